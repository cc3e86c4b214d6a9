import csv
import io

import pytest
from rich.console import Console

from pipeline.plot_sweep import plot_sweep
from pipeline.show_sweep import check_targets, show_sweep, write_csv
from transforms.errors import UsageError


def line(layers, pooling, n_components, spearman, **more):
  scores = {"spearman": spearman, "pearson": 0.5, "auc": None, "accuracy": None, "f1": None}
  return {"layers": layers, "combine": "average", "pooling": pooling, "n_components": n_components} | scores | more


def found(lines, binary=False, options=None):
  counts = {"pairs": 90, "texts": 150, "left_out": 2, "truncated": 0, "binary": binary}
  return counts | {
    "kind": "sweep",
    "checkpoint": "output/model.ckpt-9",
    "options": options or {},
    "file": "p.csv",
    "seconds": {"encode": 1.25, "score": 0.5},
    "lines": lines,
  }


LINES = [
  line((1, 2), "mean", 64, 0.75),
  line((2,), "pooler", None, 0.7),
  line((0,), "max", 64, 0.625),
  line((1,), "max", 64, 0.625),
  line((2,), "max", 64, 0.5),
  line((1,), "cls", None, None),
]


def shown(lines, **how):
  console = Console(file=io.StringIO(), width=100)
  show_sweep(found(lines, **how), console)
  return console.file.getvalue()


def test_the_best_is_marked_and_how_to_get_it_stands_below():
  out = shown(LINES).splitlines()
  assert [row.split() for row in out[1:4]] == [
    ["1", "2", "mean", "64", "0.7500", "0.5000", "best"],
    ["2", "pooler", "none", "0.7000", "0.5000"],
    ["0", "max", "64", "0.6250", "0.5000"],
  ]
  assert out[6].split() == ["1", "cls", "none", "-", "0.5000"]
  assert out[7:] == [
    "90 pairs of p.csv, 150 distinct texts; 2 left out, as a text has no token",
    "K: components of a whitening fitted on these texts; none: raw vectors",
    "one pass over the texts 1.2 s, scoring 0.5 s",
    "the best: sorbus freeze output/model.ckpt-9 ENCODER_DIR --pooling mean --layers 1 2; then embed with "
    "--n-components 64",
  ]


def test_the_pooler_has_no_layers_to_ask_for():
  assert shown(LINES[1:]).endswith(
    "sorbus freeze output/model.ckpt-9 ENCODER_DIR --pooling pooler; then embed with --whitening none\n"
  )


def test_freezing_takes_the_files_and_the_tokens_that_the_sweep_had():
  options = {"vocab": "a b/vocab.txt", "max_seq_length": 64, "lowercase": False, "strip_accents": True}
  out = shown(LINES, options=options)
  assert "--layers 1 2 --vocab 'a b/vocab.txt' --max-seq-length 64 --no-lowercase --strip-accents; then" in out


def test_the_table_has_twenty_and_says_so():
  out = shown([line((1,), "mean", K, 0.5) for K in range(1, 31)])
  assert "the best 20 of 30 combinations; --csv FILE has them all" in out
  assert len([row for row in out.splitlines() if " mean  " in row]) == 20
  assert "combinations" not in shown(LINES)


def test_the_csv_has_every_line(tmp_path):
  write_csv(found(LINES), str(tmp_path / "a.csv"))
  rows = list(csv.DictReader((tmp_path / "a.csv").open()))
  assert len(rows) == len(LINES) and list(rows[0]) == ["layers", "pooling", "n_components", "spearman", "pearson"]
  assert rows[0] == {"layers": "1 2", "pooling": "mean", "n_components": "64", "spearman": "0.75", "pearson": "0.5"}
  assert rows[1]["n_components"] == "none" and rows[5]["spearman"] == ""


def test_of_labels_the_csv_has_thresholds_too(tmp_path):
  more = {"auc": 0.9, "accuracy": {"at": 0.4, "value": 0.8}, "f1": {"at": 0.3, "value": 0.7}}
  write_csv(found([line((1,), "mean", 64, 0.5, **more)], binary=True), str(tmp_path / "a.csv"))
  (row,) = csv.DictReader((tmp_path / "a.csv").open())
  assert (row["auc"], row["accuracy"], row["accuracy_at"], row["f1"], row["f1_at"]) == (
    "0.9",
    "0.8",
    "0.4",
    "0.7",
    "0.3",
  )


@pytest.mark.parametrize(
  ("targets", "message"),
  [
    (("no/a.csv", None), "--csv no/a.csv: there is no folder no; make it, or give another"),
    ((None, "no/a.svg"), "--plot no/a.svg: there is no folder no; make it, or give another"),
    ((None, "a.jpeg"), "--plot a.jpeg: its ending says what is drawn; give one of .svg, .png"),
  ],
)
def test_what_cannot_be_written_is_refused_before(targets, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UsageError) as error:
    check_targets(*targets)
  assert str(error.value) == message
  check_targets("a.csv", "a.svg")


@pytest.mark.parametrize(("ending", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_the_picture_names_layers_components_and_the_best(tmp_path, ending, begins):
  plot_sweep(found(LINES), str(tmp_path / f"a.{ending}"))
  data = (tmp_path / f"a.{ending}").read_bytes()
  assert data.startswith(begins)
  if ending == "svg":
    names = ("1+2", "pooler", "raw", "64", "mean of layer", "best: mean of 1 2, 64 components, 0.7500")
    assert not [name for name in names if f"<!-- {name} -->".encode() not in data]
