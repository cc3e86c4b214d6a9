"""Rejected documents found again, or not; whole jobs are in tests/integration/test_replay.py."""

import json

import pyarrow as pa
import pytest

from pipeline.dataset import Dataset, to_json
from pipeline.replay_account import account_for_replay
from tests.manifests import manifest
from transforms.vector_table import to_parquet

INPUTS = [{"name": f"{name}.jsonl", "url": f"/in/{name}.jsonl", "bytes": 9, "version": None} for name in "ab"]


def reject(doc_id, reason="null", file="a.jsonl", position=0):
  return {"doc_id": doc_id, "file": file, "position": position, "reason": reason, "detail": "", "text": None}


@pytest.fixture
def dataset(tmp_path):
  return Dataset.open_or_create(str(tmp_path), {"fingerprint": "ab", "tokenizer": {}})


def a_run(dataset, run_id, rejects, documents=()):
  """Writes what a run rejected, and its documents (doc_id, file, position); returns its manifest."""
  storage = dataset.storage
  lines = "".join(f"{json.dumps(line)}\n" for line in rejects).encode()
  ids, files, positions = zip(*documents, strict=True) if documents else ((), (), ())
  columns = [pa.array(ids, pa.string()), pa.array(files, pa.int32()), pa.array(positions, pa.int64())]
  table = pa.table(columns, names=["doc_id", "source_file", "source_position"])
  folder = f"runs/{run_id}"
  stored = {
    "rejected": storage.write_content(f"{folder}/rejected", "a", ".jsonl", lines, len(rejects)),
    "documents": storage.write_content(f"{folder}/documents", "a", ".parquet", to_parquet(table, {}), len(ids)),
  }
  files = {name: [vars(file)] for name, file in stored.items()}
  value = manifest(run_id=run_id, files=files, inputs=INPUTS)
  storage.write(f"{folder}/manifest.json", to_json(value))
  return value


@pytest.mark.parametrize(
  ("before", "rejects", "documents", "became"),
  [
    (reject("x"), [], [("x", 1, 500)], "written"),  # an id is an id, wherever it is
    (reject("x"), [reject("x", "no tokens", "b.jsonl", 7)], [], "no tokens"),
    (reject("x"), [], [("y", 0, 0)], "gone"),  # another stands in its place
    (reject("x"), [reject("x", "duplicate id", position=9)], [("x", 0, 0), ("x", 0, 9)], "written"),
    (reject("x"), [reject("x", "zero vector")], [("x", 0, 0)], "zero vector"),  # rejected after its documents file
    (reject("a.jsonl#0", "invalid JSON"), [], [("new", 0, 0)], "written"),
    (reject("a.jsonl#0", "invalid JSON"), [], [("new", 1, 0)], "gone"),  # in another file
    (reject("a.jsonl#0", "invalid JSON"), [reject("x", "no tokens")], [], "no tokens"),  # has an id now
    (reject("a.jsonl#0", "invalid JSON"), [reject("a.jsonl#0", "not an object")], [], "not an object"),
    (reject("gone.jsonl#0", "invalid JSON", "gone.jsonl"), [], [("new", 0, 0)], "gone"),
    (reject("x", "duplicate id", position=4), [], [("x", 0, 0), ("y", 0, 4)], "written"),
    (reject("x", "duplicate id", position=4), [reject("x", "duplicate id", position=4)], [("x", 0, 0)], "duplicate id"),
    (reject("x", "duplicate id", position=4), [], [("x", 0, 0)], "gone"),
    (reject("x"), [reject("x", "null"), reject("x", "no tokens", position=3)], [], "null"),  # counted once
    (reject("\ud800"), [reject("\ud800")], [], "null"),
  ],
)
def test_what_became_of_one(dataset, before, rejects, documents, became):
  a_run(dataset, "r1", [before])
  told = account_for_replay(dataset, "r1", a_run(dataset, "r2", rejects, documents))
  assert told == {
    "run_id": "r1",
    "rejected": 1,
    "written": int(became == "written"),
    "still_rejected": {} if became in ("written", "gone") else {became: 1},
    "gone": int(became == "gone"),
  }


def test_each_counts_also_where_they_share_an_id(dataset):
  a_run(dataset, "r1", [reject("x"), reject("x", position=5), reject("y", position=9)])
  told = account_for_replay(dataset, "r1", a_run(dataset, "r2", [reject("y", position=9)], [("x", 0, 0)]))
  assert (told["rejected"], told["written"], told["still_rejected"], told["gone"]) == (3, 2, {"null": 1}, 0)


@pytest.mark.parametrize("data", [None, b"{\n", b"[]\n", b'{"doc_id": "x"}\n', b"\xff\n"])
def test_what_cannot_be_told_is_said_and_not_raised(dataset, data):
  path = a_run(dataset, "r1", [reject("x")])["files"]["rejected"][0]["path"]
  dataset.storage.remove(path)
  if data is not None:
    dataset.storage.write(path, data)
  told = account_for_replay(dataset, "r1", a_run(dataset, "r2", []))
  assert told.keys() == {"run_id", "problem"}
  assert told["problem"].startswith(f"{path}: missing or damaged (")
