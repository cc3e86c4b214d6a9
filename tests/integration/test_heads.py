"""Heads by the command line: frozen, embedded, thresholds changed, searched; and the README's example of predicting."""

import json
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.command_line import main
from tests.conftest import REPOSITORY
from tests.integration.run_files import NIGHT, matrix, run_folder, write_shards
from tests.tiny_bert import WORDS, random_head, write_google_checkpoint
from transforms.encoder import load_encoder

LABELS = ("joy", "anger", "neutral")
TEXTS = [" ".join(np.random.default_rng(i).choice(WORDS, 1 + i % 5)) + f" {i}" for i in range(60)]
FORMS = {"softmax": dict(enumerate(LABELS)), "sigmoid": {label: i for i, label in enumerate(LABELS)}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  return str(write_google_checkpoint(tmp_path_factory.mktemp("heads") / "checkpoint", head=len(LABELS)))


@pytest.fixture(scope="module")
def logits(checkpoint, tmp_path_factory):
  """Of all texts, float64 [N, 3]: what the pooler gives, from an encoder of its own, times the weights as written."""
  folder = str(tmp_path_factory.mktemp("pooler") / "encoder")
  assert main(["freeze", checkpoint, folder, "--pooling", "pooler"]) == 0
  head = random_head(hidden_size=32, labels=len(LABELS), seed=0)
  return load_encoder(folder).encode_texts(TEXTS).astype(np.float64) @ head["output_weights"].T + head["output_bias"]


def activated(kind, logits):
  if kind == "sigmoid":
    return 1 / (1 + np.exp(-logits))
  return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def freeze(checkpoint, folder, kind, *options):
  (folder / "labels.json").write_text(json.dumps(FORMS[kind]))
  encoder = str(folder / "encoder")
  command = ["freeze", checkpoint, encoder, "--head", kind, "--labels", str(folder / "labels.json"), *options]
  assert main(command) == 0
  return encoder


def embed(capsys, folder, encoder, *options):
  """Embeds TEXTS and returns the manifest."""
  if not (folder / "input").exists():
    write_shards(folder / "input", TEXTS, 2)
  command = [*NIGHT, "--input", f"{folder}/input/*.jsonl", "--id-column", "id", "--encoder", encoder]
  command += ["--dataset", str(folder / "dataset"), "--threads", "1", "--buckets", "2", "--n-components", "8", "--json"]
  capsys.readouterr()
  assert main([*command, *options]) == 0
  return json.loads(capsys.readouterr().out)["run"]


def read_rows(folder, manifest):
  return pq.read_table(run_folder(folder / "dataset", manifest) / "vectors").sort_by("doc_id")


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_probabilities_from_freeze_to_parquet(checkpoint, logits, tmp_path, capsys, kind):
  encoder = freeze(checkpoint, tmp_path, kind, "--pooling", "mean", "--layers", "1")
  assert "note: the head stands on the last layer, so all 2 are computed" in capsys.readouterr().out
  manifest = embed(capsys, tmp_path, encoder, "--keep-columns", "text")
  table, expected = read_rows(tmp_path, manifest), activated(kind, logits)
  predicted = ["probabilities"] + ["labels"] * (kind == "sigmoid")
  assert table.column_names == [
    "doc_id",
    "vector",
    "n_tokens",
    "truncated",
    "n_unknown",
    "text_digest",
    *predicted,
    "text",
  ]
  assert table["text"].to_pylist() == TEXTS
  np.testing.assert_allclose(matrix(table["probabilities"]), expected, rtol=0, atol=1e-6)
  np.testing.assert_allclose(load_encoder(encoder).predict(TEXTS), expected, rtol=0, atol=1e-6)
  assert (manifest["encoder"]["head"], manifest["encoder"]["labels"]) == (kind, list(LABELS))
  assert manifest["options"]["threshold"] == (0.5 if kind == "sigmoid" else None)
  [first, *_] = sorted(run_folder(tmp_path / "dataset", manifest).glob("vectors/*.parquet"))
  assert json.loads(pq.read_schema(first).metadata[b"sorbus.labels"]) == list(LABELS)


def test_another_threshold_names_other_labels_and_encodes_nothing(checkpoint, logits, tmp_path, capsys):
  encoder = freeze(checkpoint, tmp_path, "sigmoid")
  counts, named = [], []
  for options in ([], ["--threshold", "0.2"]):
    manifest = embed(capsys, tmp_path, encoder, *options)
    threshold = float(options[1]) if options else 0.5
    table = read_rows(tmp_path, manifest)
    probabilities = matrix(table["probabilities"])
    above = [[label for label, p in zip(LABELS, row, strict=True) if p > threshold] for row in probabilities.tolist()]
    assert table["labels"].to_pylist() == above
    counts.append(manifest["counts"]["encoded"])
    named.append(sum(map(len, above)))
  assert counts == [len(TEXTS), 0] and 0 < named[0] < named[1] < len(TEXTS) * len(LABELS)

  hits = run_search(capsys, tmp_path, encoder, "--json")
  [hit] = json.loads(hits)
  assert hit["doc_id"] == "000007" and hit["kept"] == {} and hit["labels"] == above[7] != []
  _, *body = run_search(capsys, tmp_path, encoder).splitlines()
  assert " ".join(body).split() == f"labels: {', '.join(above[7])}".split()


def run_search(capsys, folder, encoder, *options):
  capsys.readouterr()
  assert main(["search", str(folder / "dataset"), TEXTS[7], "-k", "1", "--encoder", encoder, *options]) == 0
  return capsys.readouterr().out


def test_without_a_head_a_hit_has_no_labels_in_json(checkpoint, tmp_path, capsys):
  assert main(["freeze", checkpoint, str(tmp_path / "encoder")]) == 0
  manifest = embed(capsys, tmp_path, str(tmp_path / "encoder"))
  assert manifest["options"]["threshold"] is None
  assert not {"head", "labels"} & manifest["encoder"].keys()
  [hit] = json.loads(run_search(capsys, tmp_path, str(tmp_path / "encoder"), "--json"))
  assert hit.keys() == {"score", "doc_id", "kept"}


@pytest.mark.parametrize(
  ("command", "message"),
  [
    (
      ["freeze", "{checkpoint}", "{e}", "--labels", "x.txt"],
      "--labels x.txt: without --head there is nothing to label",
    ),
    (["freeze", "{checkpoint}", "{e}", "--head", "tanh"], "argument --head: invalid choice: 'tanh'"),
    (
      ["embed", "--input", "x", "--encoder", "e", "--dataset", "d", "--threshold", "2"],
      "--threshold: 2 is no share; choose 0 to 1",
    ),
    (
      ["embed", "--input", "x", "--encoder", "e", "--dataset", "d", "--threshold", "many"],
      "--threshold: invalid share value",
    ),
  ],
)
def test_what_cannot_be_is_refused_in_one_line(checkpoint, tmp_path, capsys, command, message):
  words = [word.format(checkpoint=checkpoint, e=tmp_path / "e") for word in command]
  assert main(words) == 2
  [line] = capsys.readouterr().err.splitlines()
  assert message in line and not (tmp_path / "e").exists()


def test_the_example_of_predicting_in_the_readme_runs_without_beam(checkpoint, logits, tmp_path):
  readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
  [example] = [code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if ".predict(" in code]
  assert len(example.splitlines()) <= 10
  freeze(checkpoint, tmp_path, "softmax")
  program = f"{example}\nimport sys\nassert 'apache_beam' not in sys.modules\n"
  done = subprocess.run(
    [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  encoder = load_encoder(str(tmp_path / "encoder"))
  texts = re.findall(r'^  "(.*)",$', example, re.MULTILINE)
  expected = [
    f"{LABELS[row.argmax()]} {row.max():.2f}  {text}" for row, text in zip(encoder.predict(texts), texts, strict=True)
  ]
  assert len(texts) == 2 and done.stdout.splitlines() == expected
