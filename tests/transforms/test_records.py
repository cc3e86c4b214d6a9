import json
import random
from collections import Counter

import pytest

from transforms.records import (
  BucketRecord,
  ChangesRecord,
  ComparedRecord,
  Records,
  ShardRecord,
  SliceRecord,
  WrittenRecord,
  from_json_lines,
  to_json_lines,
)
from transforms.storage import StoredFile

FILE = StoredFile("runs/1/rejected/read-00000-0-00.jsonl", 2, 300, "ab" * 32)
OTHER = StoredFile("runs/1/documents/0-00.parquet", 4, 500, "cd" * 32)

RECORDS = [
  SliceRecord(1, 0, 0, 10, {"null": 2, "invalid JSON": 1}, (FILE, OTHER), None, 0.25),
  SliceRecord(0, 64, 1, 0, {}, (), "a.gz ends in the middle of its compression", 1.0),
  SliceRecord(0, 64, 0, 3, {}, (), None, 1e-9),
  SliceRecord(0, 0, 0, 3, {}, (), None, 1 / 3),
  BucketRecord(1, OTHER, ("1-r-00.parquet", "1-s-11.parquet"), 5, 4, 3, 1, 70, 80, {"zero vector": 1}, (FILE,), 2.5),
  BucketRecord(0, OTHER, (), 0, 0, 0, 0, 0, 0, {}, (), 0.0),
  ShardRecord(1, OTHER, "ef" * 32, 1, 2, 3, {"duplicate id": 4}, (FILE,), 0.125),
  ShardRecord(0, None, "", 0, 0, 0, {"zero vector": 2, "duplicate id": 1}, (), 0.5, {"a.txt": 3}),
]
OF_A_RUN = [
  WrittenRecord((3, 0, 5)),
  ComparedRecord(1, 7, None),
  ComparedRecord(0, 0, "runs/0/vectors/part-0: missing"),
  ChangesRecord(1, OTHER, 1, 2, 3),
  ChangesRecord(0, FILE, 4, 5, 6),
]


@pytest.mark.parametrize("record", [*RECORDS, *OF_A_RUN], ids=lambda record: record.kind)
def test_a_record_survives_its_json(record):
  assert from_json_lines(to_json_lines([record])) == [record]


def test_one_line_of_json():
  line = to_json_lines([ShardRecord(3, FILE, "f", 1, 2, 3, {"null": 1}, (), 0.5, {"a.txt": 1})])
  stored = {"path": FILE.path, "rows": 2, "bytes": 300, "sha256": "ab" * 32}
  assert json.loads(line) == {
    "kind": "shard",
    "bucket": 3,
    "vectors": stored,
    "whitening_fingerprint": "f",
    "truncated": 1,
    "n_unknown": 2,
    "n_tokens": 3,
    "rejected": {"null": 1},
    "files": [],
    "seconds": 0.5,
    "rejected_by_file": {"a.txt": 1},
    "clipped": 0,
    "long": 0,
  }
  assert line.count(b"\n") == 1 and line.endswith(b"\n")


def test_equal_records_are_equal_bytes_in_any_order():
  shuffled = RECORDS[:]
  random.Random(0).shuffle(shuffled)
  assert to_json_lines(shuffled) == to_json_lines(RECORDS)
  assert to_json_lines([]) == b"" and from_json_lines(b"") == []


def test_records_are_sorted_into_kinds():
  shuffled = [*RECORDS, *OF_A_RUN]
  random.Random(1).shuffle(shuffled)
  records = Records.of(iter(shuffled))
  assert [r.bucket for r in records.compared] == [r.part for r in records.changes] == [0, 1]
  assert records.written == (WrittenRecord((3, 0, 5)),)
  assert [(r.wave, r.file, r.begin) for r in records.slices] == [(0, 0, 0), (0, 0, 64), (0, 1, 0), (1, 0, 64)]
  assert [r.bucket for r in records.buckets] == [r.bucket for r in records.shards] == [0, 1]
  assert len(records.all()) == len(RECORDS)


def test_rejects_add_up_over_all_stages():
  assert Records.of(RECORDS).rejected() == Counter({"duplicate id": 5, "zero vector": 3, "null": 2, "invalid JSON": 1})
  assert Records.of([]).rejected() == Counter()
