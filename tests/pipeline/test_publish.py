import datetime
import json
import time
from dataclasses import replace

import numpy as np
import pytest

from pipeline.dataset import Dataset
from pipeline.gates import judge
from pipeline.lock import DatasetLock, Owner
from pipeline.publish import count, finish_run, make_manifest, remove_orphans, versions
from pipeline.publish_plan import PublishPlan
from tests.run_parts import H, make_plan
from transforms.moments import Moments
from transforms.records import (
  BucketRecord,
  ChangesRecord,
  ComparedRecord,
  Records,
  ShardRecord,
  SliceRecord,
  WrittenRecord,
)
from transforms.whitening import Whitening
from transforms.write_vectors import NoWhitening

NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC)
WHITENING = Whitening(np.zeros(H), np.eye(H)[:, :2], np.array([4.0, 3.0, 2.0, 1.0]), 93, "")
MOMENTS = Moments.from_vectors(np.random.default_rng(0).normal(size=(93, H)))
VERDICTS = {"documents", "whitening", "rejected", "vectors", "accounts"}


@pytest.fixture
def plan(tmp_path):
  Dataset.open_or_create(str(tmp_path), {"fingerprint": make_plan(tmp_path).store.fingerprint})
  return PublishPlan(
    run=make_plan(tmp_path, bits=1),
    base=0,
    max_rejected=0.1,
    started="2024-02-29T11:00:00+00:00",
    options={"limit": None},
    encoder={"url": "/enc", "fingerprint": "ab"},
    whitening="fit",
  )


def make_records(plan, shards=(50, 43)):
  """100 documents read, 93 written, 7 rejected: 4 by reading, 1 by encoding, 2 by writing; 5 of them changed."""
  storage, folder = plan.run.storage, plan.run.folder

  def stored(kind, name, rows, content=b"x"):
    return storage.write_content(f"{folder}/{kind}", name, ".bin", content, rows)

  return [
    WrittenRecord((59, 34, 0)),
    ComparedRecord(0, 58, None),
    ComparedRecord(1, 20, None),
    ChangesRecord(0, stored("changes", "0", 17), 10, 5, 2),
    SliceRecord(0, 0, 0, 60, {"null": 3}, (stored("rejected", "read-0", 3),), None, 1.25),
    SliceRecord(1, 0, 0, 36, {"no tokens": 1}, (stored("rejected", "read-1", 1),), None, 0.5),
    BucketRecord(
      *(0, stored("documents", "0", 52), ("0-r0-00.parquet", "0-r1-11.parquet"), 53, 40, 30, 10, 500, 600),
      *({"zero vector": 1}, (stored("rejected", "encode-0", 1),), 3.0, {"a.txt": 1}),
    ),
    BucketRecord(1, stored("documents", "1", 43), ("1-r1-22.parquet",), 43, 43, 43, 0, 400, 450, {}, (), 2.0),
    ShardRecord(
      *(0, stored("vectors", "0", shards[0]), WHITENING.fingerprint, 5, 7, 900),
      *({"duplicate id": 2}, (stored("rejected", "write-0", 2),), 0.25, {"b.txt": 2}),
    ),
    ShardRecord(1, stored("vectors", "1", shards[1]), WHITENING.fingerprint, 1, 2, 800, {}, (), 0.25),
  ]


def finish(plan, records, whitening=WHITENING, hours=0):
  finish_run(plan, records, MOMENTS, whitening, lambda: NOON + datetime.timedelta(hours=hours))
  return Dataset(plan.run.storage).manifest(plan.run.run_id)


def test_counts(plan):
  assert count(Records.of(make_records(plan))) == {
    "read": 100,
    "written": 93,
    "rejected": {"duplicate id": 2, "no tokens": 1, "null": 3, "zero vector": 1},
    "new": 10,
    "changed": 5,
    "unchanged": 78,
    "gone": 2,
    "distinct": 83,
    "encoded": 73,
    "reused": 10,
    "truncated": 6,
    "unknown_tokens": 9,
    "tokens": 1700,
    "encoded_tokens": 900,
    "computed_tokens": 1050,
    "bad_files": 0,
  }


def test_a_bad_file_counts_once_however_often_it_was_met(plan):
  bad = [SliceRecord(2, begin, wave, 0, {}, (), "c.gz is damaged", 0.0) for begin in (0, 5) for wave in (0, 1)]
  records = Records.of([*make_records(plan), *bad])
  assert count(records)["bad_files"] == 1 and count(records)["read"] == 100
  assert make_manifest(plan, records, WHITENING, NOON)["bad_files"] == ["c.gz is damaged"]


def test_the_manifest(plan):
  records = make_records(plan)
  manifest = finish(plan, records)
  assert json.loads(plan.run.storage.read("runs/r1/manifest.json")) == manifest
  assert manifest.keys() == {
    *(
      "format_version",
      "run_id",
      "base",
      "started",
      "finished",
      "options",
      "inputs",
      "encoder",
      "whitening",
      "buckets",
    ),
    *(
      "by_input",
      "changes",
      "kept_columns",
      "vectors",
      "long_texts",
      "counts",
      "seconds",
      "files",
      "raw_files",
      "bad_files",
      "verdicts",
      "versions",
    ),
  }
  assert (manifest["finished"], manifest["buckets"], manifest["base"]) == ("2024-02-29T12:00:00+00:00", 2, 0)
  assert manifest["inputs"][0] == {"name": "a.txt", "url": "/in/a.txt", "bytes": 1000, "version": ""}
  assert manifest["seconds"] == {"read": 1.75, "encode": 5.0, "write": 0.5}
  assert manifest["raw_files"] == ["0-r0-00.parquet", "0-r1-11.parquet", "1-r1-22.parquet"]
  assert [file["rows"] for file in manifest["files"]["vectors"]] == [50, 43]
  assert [file["rows"] for file in manifest["files"]["documents"]] == [52, 43]
  assert sum(file["rows"] for file in manifest["files"]["rejected"]) == 7
  assert manifest["whitening"] == {
    "asked": "fit",
    "fingerprint": WHITENING.fingerprint,
    "hidden_size": 4,
    "n_components": 2,
    "count": 93,
    "kept_variance": 0.7,
  }
  assert {name: verdict["passed"] for name, verdict in manifest["verdicts"].items()} == dict.fromkeys(VERDICTS, True)
  assert manifest["verdicts"]["rejected"]["finding"] == "7 of 100 documents rejected (7.00%), 10.00% allowed"
  assert manifest["verdicts"]["accounts"]["finding"] == (
    "100 read = 93 written + 7 rejected, in each input file too; written = 10 new + 5 changed + 78 unchanged"
  )
  assert manifest["by_input"] == [
    {"read": 63, "written": 59, "rejected": 4},
    {"read": 37, "written": 34, "rejected": 3},
    {"read": 0, "written": 0, "rejected": 0},
  ]
  assert manifest["changes"] == {"against": None, "problem": None}
  assert [file["rows"] for file in manifest["files"]["changes"]] == [17]


def test_a_run_tells_the_versions_of_what_its_vectors_come_from():
  computing = {"tensorflow", "numpy", "tokenizers", "sentencepiece"}  # as an encoder does
  assert versions().keys() == {"python", "apache-beam", "pyarrow"} | computing


def test_a_run_that_passes_is_published_with_its_whitening(plan):
  finish(plan, make_records(plan))
  dataset = Dataset(plan.run.storage)
  assert dataset.published().run_id == "r1" and dataset.published().number == 1
  assert dataset.whitening("r1").fingerprint == WHITENING.fingerprint
  (stored,) = dataset.manifest("r1")["files"]["moments"]
  assert Moments.from_bytes(plan.run.storage.read(stored["path"])).count == 93


def drop_shard(records):
  return records[:-1]


def change_whitening(records):
  return [*records[:-1], replace(records[-1], whitening_fingerprint="another")]


@pytest.mark.parametrize(
  ("failing", "max_rejected", "whitening", "change", "finding"),
  [
    (
      {"rejected"},
      0.069,
      WHITENING,
      list,
      "7 of 100 documents rejected (7.00%), 6.90% allowed; see runs/r1/rejected/",
    ),
    ({"accounts"}, 0.1, WHITENING, drop_shard, "100 read are not 50 written + 7 rejected; the counts do not add up"),
    ({"accounts"}, 0.1, WHITENING, change_whitening, "shards of several whitenings; the counts do not"),
    ({"whitening"}, 0.1, NoWhitening("5 documents are too few"), list, "5 documents are too few"),
    ({"documents"}, 0.1, WHITENING, lambda records: [], "0 documents read; check what --input matches"),
  ],
)
def test_each_verdict_alone_keeps_a_run_unpublished(plan, failing, max_rejected, whitening, change, finding):
  plan = replace(plan, max_rejected=max_rejected)
  manifest = finish(plan, change(make_records(plan)), whitening)
  assert {name for name, verdict in manifest["verdicts"].items() if not verdict["passed"]} == failing
  assert manifest["verdicts"][failing.copy().pop()]["finding"].startswith(finding)
  assert Dataset(plan.run.storage).published() is None
  assert ("whitening" in manifest["files"]) == (whitening is WHITENING)


def test_a_share_that_is_just_allowed_passes(plan):
  records = Records.of(make_records(plan))
  assert judge(replace(plan, max_rejected=0.07), count(records), records, WHITENING)["rejected"]["passed"]


@pytest.mark.parametrize(("base_rows", "max_shrink", "passed"), [(124, 0.25, True), (125, 0.25, False), (50, 0, True)])
def test_rows_that_are_gone_keep_a_run_unpublished(plan, base_rows, max_shrink, passed):
  manifest = finish(replace(plan, base_rows=base_rows, max_shrink=max_shrink), make_records(plan))
  verdict = manifest["verdicts"]["rows"]
  assert verdict["passed"] is passed is (Dataset(plan.run.storage).published() is not None)
  if not passed:
    start = "93 rows after 125 (25.60% fewer), 25.00% allowed; is all of the input there? If it is, raise --max-shrink"
    assert verdict["finding"].startswith(start)
    assert verdict["finding"].endswith("`sorbus publish DATASET r1 --anyway`")


def test_a_refused_whitening_is_in_the_manifest(plan):
  manifest = finish(plan, make_records(plan), NoWhitening("5 documents are too few"))
  assert manifest["whitening"] == {"asked": "fit", "refused": "5 documents are too few"}
  assert manifest["verdicts"].keys() == VERDICTS - {"accounts"}


@pytest.mark.parametrize(
  ("n_slices", "wrong"),
  [
    *((None, None), (2, None)),
    (3, "2 slices of the input were read (2 different ones), and 3 planned"),
    (1, "2 slices of the input were read (2 different ones), and 1 planned"),
  ],
)
def test_a_slice_that_an_engine_lost_is_missed(plan, n_slices, wrong):
  """All that it would have led to is lost with it, so that what is left adds up."""
  verdict = finish(replace(plan, n_slices=n_slices), make_records(plan))["verdicts"]["accounts"]
  assert verdict["passed"] is (wrong is None)
  assert wrong is None or verdict["finding"].startswith(wrong)


def test_the_first_manifest_is_kept(plan):
  """A second attempt finds the run decided, whatever it has itself to say."""
  first = finish(plan, make_records(plan))
  other = Whitening(np.ones(H), np.eye(H), np.empty(0), 0, "")
  assert finish(plan, make_records(plan)[:1], other, hours=1) == first
  assert Dataset(plan.run.storage).whitening("r1").fingerprint == WHITENING.fingerprint
  assert len(plan.run.storage.names("published")) == 1


def test_an_attempt_that_died_before_publishing_is_carried_on(plan):
  first = finish(plan, make_records(plan))
  plan.run.storage.remove("published/00000001.json")
  assert finish(plan, []) == first
  assert Dataset(plan.run.storage).published().run_id == "r1"


def test_the_last_step_gives_back_the_lock_that_a_detached_run_was_left(plan):
  lock = DatasetLock(plan.run.storage)
  number = lock.acquire(Owner("embed", plan.run.run_id, "elsewhere", None, time.time()))
  finish(plan, make_records(plan))
  assert lock.holder()
  finish(replace(plan, frees_lock=number), make_records(plan))  # and again, by an engine that tries once more
  finish(replace(plan, frees_lock=number), make_records(plan))
  assert lock.holder() is None


def test_orphans_are_removed_and_nothing_else(plan):
  records = make_records(plan)
  storage = plan.run.storage
  zombies = (
    "vectors/0-zombie.bin",
    "documents/1-zombie.bin",
    "rejected/read-0-zombie.jsonl",
    "whitening-00.npz",
    "changes/z",
  )
  for path in zombies:
    storage.write(f"runs/r1/{path}", b"")
  for path in ("runs/r1/plan.json", "runs/r0/vectors/0.bin", "raw/ab/0-r1-33.parquet"):
    storage.write(path, b"")
  manifest = finish(plan, records)
  named = {file["path"] for files in manifest["files"].values() for file in files}
  written = set(storage.walk("runs/r1"))
  assert written - {"runs/r1/plan.json", "runs/r1/manifest.json"} == named and len(named) == 11
  assert all(storage.exists(path) for path in ("runs/r1/plan.json", "runs/r0/vectors/0.bin", "raw/ab/0-r1-33.parquet"))
  remove_orphans(plan.run, manifest)
  assert set(storage.walk("runs/r1")) == written


def test_of_two_runs_with_one_base_the_second_stays_unpublished(plan):
  late = replace(plan, run=replace(plan.run, run_id="r2"))
  finish(plan, make_records(plan))
  manifest = finish(late, make_records(late))
  assert all(verdict["passed"] for verdict in manifest["verdicts"].values())
  assert Dataset(plan.run.storage).published().run_id == "r1"
  assert Dataset(plan.run.storage).published_entry(2) is None
