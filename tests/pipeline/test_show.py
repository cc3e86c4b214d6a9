import datetime
import io

import pytest
from rich.console import Console

from pipeline.command_line import main
from pipeline.dataset import Dataset, to_json
from pipeline.show import describe_dataset, describe_drift, passed, show_dataset, show_run
from tests.manifests import MANIFEST, manifest
from transforms.errors import UsageError

NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC)


def printed(show, *args):
  console = Console(file=io.StringIO(), width=100)
  show(*args, console)
  return [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]


def test_a_run():
  assert printed(show_run, MANIFEST) == [
    "run r1",
    " read            12,345  1,234/s and thread",
    " written         12,000  6,000/s and thread",
    "   new              700",
    "   changed          300",
    "   unchanged     11,000",
    "   gone             200  since run r0",
    " distinct        11,000",
    " encoded          1,000  250/s and thread, 4,500 tokens/s; 10.0% padding",
    " reused          10,000",
    " truncated            7",
    " rejected           345  in runs/r1/rejected/",
    "   duplicate id     300",
    "   no tokens         45",
    " took                90  seconds",
    "encoder minilm (0123456789ab)",
    "whitening fit: 768 → 256 components, 93.1% of the variance kept",
  ]


def test_where_every_document_is_changed_the_table_says_by_what():
  lines = printed(show_run, manifest(counts={"new": 0, "changed": 12000, "unchanged": 0}))
  assert "   changed       12,000  all: by their texts, or by a new whitening, encoder or vector type" in lines


def test_a_run_that_did_nothing_divides_by_nothing():
  counts = dict.fromkeys(MANIFEST["counts"], 0) | {"rejected": {}}
  seconds = dict.fromkeys(MANIFEST["seconds"], 0.0)
  lines = printed(show_run, manifest(counts=counts, seconds=seconds))
  assert " encoded       0" in lines and " rejected      0" in lines and not [line for line in lines if "/s" in line]


@pytest.mark.parametrize(
  ("replay", "line"),
  [
    (
      {"rejected": 1200, "written": 1000, "still_rejected": {"null": 150, "no tokens": 20}, "gone": 30},
      "of 1,200 rejected documents 1,000 are written now, 170 still rejected (150 null, 20 no tokens), 30 gone from "
      "the input",
    ),
    ({"problem": "a is missing"}, "what became of its rejected documents cannot be told: a is missing"),
  ],
)
def test_what_became_of_replayed_documents(replay, line):
  assert f"replay of run r0: {line}" in printed(show_run, {**MANIFEST, "replay": {"run_id": "r0", **replay}})


def test_each_verdict_that_said_no_is_told_in_one_line():
  finding = "7 of 100 documents rejected (7.00%), 1.00% allowed; see runs/r1/rejected/, mend them, or raise [it]"
  verdicts = {"rejected": {"passed": False, "finding": finding}, "whitening": {"passed": False, "finding": "why"}}
  lines = printed(show_run, manifest(verdicts=verdicts))
  assert lines[-2:] == [f"held back (rejected): {finding}", "held back (whitening): why"]
  assert passed(MANIFEST) and not passed(manifest(verdicts=verdicts))


@pytest.mark.parametrize(
  ("whitening", "line"),
  [
    ({"refused": "5 documents are too few"}, "whitening: none could be fitted"),
    ({"asked": "none", "count": 0, "n_components": 768, "kept_variance": None}, "whitening none: 768 → 768 components"),
    (
      {"asked": "/w/[1].npz"},
      "whitening /w/[1].npz: 768 → 256 components, 93.1% of the variance kept; fitted on 5,000 documents",
    ),
  ],
)
def test_whitenings(whitening, line):
  assert printed(show_run, manifest(whitening=whitening))[-1] == line


@pytest.mark.parametrize(
  ("whitening", "fewer"),
  [
    ({"count": 150, "n_components": 127}, 15),
    ({"asked": "reuse", "fitted_by": "r0", "count": 2559}, 255),
    ({"count": 5, "n_components": 3}, 1),
    ({"count": 2560}, None),
    ({"asked": "none", "count": 0, "n_components": 768, "kept_variance": None}, None),
    ({"asked": "/w/of-another-program.npz", "count": 0, "kept_variance": None}, None),
  ],
)
def test_a_whitening_of_few_documents_is_warned_of_as_long_as_it_is_in_use(whitening, fewer):
  value = manifest(whitening=whitening)
  (warning,) = [line for line in printed(show_run, value) if line.startswith("warning:")] or [None]
  if fewer is None:
    assert warning is None
    return
  N, K = (value["whitening"][key] for key in ("count", "n_components"))
  assert warning.startswith(f"warning: {N:,} documents are few to fit a whitening of {K} components: below 10 for each")
  assert f"`sorbus rewhiten DATASET --n-components {fewer}` takes fewer" in warning


DRIFT = {"against": "r0", "mean": 0.0301, "covariance": 0.1182, "neighbours": 0.105, "sample": 1000, "reason": None}
DRIFT_LINE = (
  "drift under the whitening of run r0: mean 0.030, covariance 0.118; a new fit changes 10.5% of the 10 nearest "
  "neighbours of 1,000 texts"
)


@pytest.mark.parametrize(
  ("drift", "whitening", "lines"),
  [
    (None, {}, []),
    (DRIFT, {"asked": "reuse", "fitted_by": "r0"}, [DRIFT_LINE]),
    (DRIFT, {"asked": "fit", "fitted_by": "r1"}, [DRIFT_LINE]),
    (DRIFT | {"fitted_by": None}, {"asked": "/w/1.npz"}, [DRIFT_LINE]),
    (
      DRIFT | {"against": "r7", "fitted_by": "r0"},  # which the nights between have reused
      {"asked": "reuse", "fitted_by": "r0"},
      [DRIFT_LINE],
    ),
    (
      DRIFT | {"neighbours": 0.3001},
      {"asked": "reuse", "fitted_by": "r0"},
      [
        DRIFT_LINE.replace("10.5%", "30.0%"),
        "warning: the corpus has drifted from its whitening (above 30%): fit anew with `sorbus rewhiten DATASET`, or "
        "with --whitening fit on the next run",
      ],
    ),
    (DRIFT | {"neighbours": 0.4}, {"asked": "fit", "fitted_by": "r1"}, [DRIFT_LINE.replace("10.5%", "40.0%")]),
    (
      DRIFT | {"neighbours": 0.4},
      {"asked": "reuse", "fitted_by": "r1"},
      [
        DRIFT_LINE.replace("10.5%", "40.0%"),
        "fitted anew, since that is above --refit-above: vectors cannot be compared with those of older runs",
      ],
    ),
    (
      DRIFT | {"mean": None, "covariance": None, "neighbours": None, "reason": "too few"},
      {"asked": "reuse", "fitted_by": "r0"},
      ["drift under the whitening of run r0: mean unknown, covariance unknown; neighbours unknown (too few)"],
    ),
  ],
)
def test_drift(drift, whitening, lines):
  value = manifest(whitening=whitening) | {"drift": drift}
  assert list(describe_drift(value)) == lines
  assert printed(show_run, value)[-len(lines) :] == lines if lines else True


def test_variance_kept_is_of_the_documents_of_another_run_unless_it_was_fitted_anew():
  reused, anew = ({"asked": "reuse", "fitted_by": run_id} for run_id in ("r0", "r1"))
  assert printed(show_run, manifest(whitening=reused))[-1].endswith("; fitted on 5,000 documents of run r0")
  assert (
    printed(show_run, manifest(whitening=anew))[-1]
    == "whitening reuse, fitted anew: 768 → 256 components, 93.1% of the variance kept"
  )


def test_what_was_not_written_has_no_counts():
  nothing = {"written": 0, "truncated": 0, "new": 0, "changed": 0, "unchanged": 0, "gone": 0}
  lines = printed(show_run, manifest(counts=nothing, whitening={"refused": "too few"}) | {"changes": None})
  for name in ("written", "truncated", "  new", "  changed", "  unchanged", "  gone"):
    assert f" {name:<14}       –" in lines


def test_changes_that_may_not_be_all_are_warned_of():
  lines = printed(show_run, manifest(changes={"problem": "part-0: missing"}))
  assert " ".join(lines[-2:]).endswith("is not fully known, as the run before could not be read: part-0: missing")


def test_tokens_that_the_encoder_does_not_know_are_warned_of():
  warning = "warning: 60% of the tokens are unknown to the encoder: is its vocabulary for this language?"
  assert printed(show_run, manifest(counts={"unknown_tokens": 144_000}))[-1] == warning
  assert not [line for line in printed(show_run, manifest(counts={"unknown_tokens": 12_000})) if "warning" in line]


LARGER = "take all of each by --long-texts windows or chunks, or freeze with a larger --max-seq-length"


@pytest.mark.parametrize(
  ("encoder", "advice"),
  [
    ({}, f"; {LARGER}"),
    ({"max_seq_length": 256}, f", 256 tokens; {LARGER}"),
    (
      {"max_seq_length": 256, "max_position_embeddings": 512},
      f", 256 tokens; {LARGER}: the model has 512 positions",
    ),
    (
      {"max_seq_length": 512, "max_position_embeddings": 512},
      ", 512 tokens, as many as the model has positions; take all of each by --long-texts windows or chunks",
    ),
  ],
)
def test_a_corpus_most_of_which_is_cut_is_warned_of(encoder, advice):
  assert printed(show_run, manifest(counts={"truncated": 9_000}, encoder=encoder))[-1] == (
    f"warning: 75% of the documents are cut at the encoder's max_seq_length{advice}"
  )
  assert not [line for line in printed(show_run, manifest(counts={"truncated": 6_000})) if "warning" in line]


@pytest.mark.parametrize(
  ("head", "threshold", "line"),
  [
    ("sigmoid", 0.8, "encoder minilm (0123456789ab), head sigmoid over 2 labels, threshold 0.8"),
    ("softmax", None, "encoder minilm (0123456789ab), head softmax over 2 labels"),
  ],
)
def test_a_head_is_told_with_the_threshold_that_was_used(head, threshold, line):
  shown = manifest(encoder={"head": head, "labels": ["joy", "[fear]"]}, options={"threshold": threshold})
  assert printed(show_run, shown)[-2] == line


def test_bad_files_are_named():
  bad = manifest(counts={"bad_files": 2}, bad_files=["a.gz is damaged", "b[1].gz is not there"])
  assert " bad files            2  a.gz is damaged; b[1].gz is not there" in printed(show_run, bad)


@pytest.fixture
def dataset(tmp_path):
  dataset = Dataset.open_or_create(str(tmp_path / "ds"), {"fingerprint": "ab", "tokenizer": {}})
  held = {"rejected": {"passed": False, "finding": "too many"}}
  runs = {"r1": MANIFEST, "r2": manifest(run_id="r2"), "r3": manifest(run_id="r3", verdicts=held)}
  for run_id, value in runs.items():
    dataset.storage.write(f"runs/{run_id}/manifest.json", to_json(value))
  dataset.storage.write("runs/r4/plan.json", b"{}")
  return dataset


def test_a_dataset(dataset, zone):
  zone("Europe/Berlin")
  dataset.publish("r2", 0, NOON)
  description = describe_dataset(dataset)
  finished = "2024-02-29T12:00:00+00:00"
  assert description == {
    "kind": "dataset",
    "dataset": dataset.storage.root,
    "published": "r2",
    "runs": [
      {"run_id": "r1", "status": "kept", "written": 12000, "rejected": 345, "finished": finished},
      {"run_id": "r2", "status": "published", "written": 12000, "rejected": 345, "finished": finished},
      {"run_id": "r3", "status": "held back", "written": 12000, "rejected": 345, "finished": finished},
      {"run_id": "r4", "status": "unfinished", "written": None, "rejected": None, "finished": None},
    ],
    "run": manifest(run_id="r2"),
  }
  lines = printed(show_dataset, description | {"dataset": "/ds"})
  assert lines[:6] == [
    "/ds",
    " run  status      written  rejected  finished",
    " r1   kept         12,000       345  2024-02-29 13:00 CET",
    " r2   published    12,000       345  2024-02-29 13:00 CET",
    " r3   held back    12,000       345  2024-02-29 13:00 CET",
    " r4   unfinished",
  ]
  assert lines[6:8] == [
    "the newest run, r4, is unfinished: it is being made, or `sorbus embed` carries on with what it has",
    "run r2",
  ]


def test_the_newest_run_is_pointed_to_where_another_is_shown(dataset):
  dataset.publish("r1", 0, NOON)
  description = describe_dataset(dataset)
  for newest, line in (
    (description["runs"][1], "the newest run is not published, or no more: --run r2 shows it"),
    (description["runs"][2], "the newest run is held back: --run r3 shows it"),
  ):
    assert line in printed(show_dataset, description | {"runs": [description["runs"][0], newest]})


@pytest.mark.parametrize("command", ["show", "verify", "search"])
def test_a_manifest_that_lacks_counts_is_one_line(dataset, capsys, command):
  dataset.publish("r1", 0, NOON)
  dataset.storage.write("runs/r1/manifest.json", to_json({**MANIFEST, "counts": {}}))
  assert main([command, dataset.storage.root, *["text"] * (command == "search")]) == 2
  error = capsys.readouterr().err
  assert "runs/r1/manifest.json: has no 'counts.read'; it was edited or damaged" in error and error.count("\n") == 1


def test_which_run_is_shown(dataset):
  assert describe_dataset(dataset)["run"]["run_id"] == "r3"  # nothing published: the newest that finished
  assert describe_dataset(dataset, "r1")["run"]["run_id"] == "r1"
  dataset.publish("r1", 0, NOON)
  assert describe_dataset(dataset)["run"]["run_id"] == "r1"
  with pytest.raises(UsageError, match="run r4 did not finish"):
    describe_dataset(dataset, "r4")
  with pytest.raises(UsageError, match="no run 'r9'"):
    describe_dataset(dataset, "r9")


@pytest.mark.parametrize("data", [b"{", b"{}"])
def test_a_damaged_run_hides_no_other(dataset, data):
  dataset.storage.remove("runs/r1/manifest.json")
  dataset.storage.write("runs/r1/manifest.json", data)
  description = describe_dataset(dataset)
  assert [run["status"] for run in description["runs"]] == ["damaged", "kept", "held back", "unfinished"]
  assert " r1   damaged" in printed(show_dataset, description)
  with pytest.raises(UsageError, match=r"runs/r1/manifest\.json: "):
    describe_dataset(dataset, "r1")


def test_a_dataset_without_a_finished_run(tmp_path):
  dataset = Dataset.open_or_create(str(tmp_path), {"fingerprint": "ab", "tokenizer": {}})
  description = describe_dataset(dataset)
  assert (description["published"], description["runs"], description["run"]) == (None, [], None)
  with pytest.raises(UsageError, match=rf"^{tmp_path}: no run has finished yet; run `sorbus embed` again to carry on$"):
    printed(show_dataset, description)


def test_what_became_of_long_texts():
  chunks = {"mode": "chunks", "room": 126, "stride": 126, "long": 300, "chunks": 2645}
  lines = printed(show_run, manifest() | {"long_texts": chunks})
  windows = {"mode": "windows", "room": 126, "stride": 94, "long": 3000, "chunks": None}
  assert "long texts windows: 3,000 are averages over windows of at most 126 tokens, one every 94" in printed(
    show_run, manifest() | {"long_texts": windows}
  )
  assert " read            12,345  chunks of 10,000 documents; 1,234/s and thread" in lines
  assert "long texts chunks: 300 of 10,000 texts were cut into 2,645 chunks of at most 126 tokens" in lines
