import datetime
import math
from dataclasses import replace

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.run_parts import H, make_plan, run_on_beam
from transforms.base_run import BaseRun, BaseShard
from transforms.digests import bucket_of, digest_array, to_arrow
from transforms.errors import StoreError
from transforms.find_changes import FindChanges, decide_changes, equal_rows, find_differing, read_rows
from transforms.records import ChangesRecord, ComparedRecord, Records, ShardRecord
from transforms.vector_table import CHANGES_SCHEMA, to_parquet, to_vectors
from transforms.vector_types import coding
from transforms.whitening import Whitening
from transforms.write_vectors import NoWhitening

WHITENING = Whitening.none(H)


def table(**columns):
  return pa.table({"doc_id": pa.array(columns.pop("ids"), pa.string()), **columns})


def sides(result):
  rows, unchanged = result
  return {(row["doc_id"], row["is_new"]) for row in rows.to_pylist()}, unchanged


# --- equal rows


@pytest.mark.parametrize(
  ("kind", "a", "b", "same"),
  [
    (pa.int32(), [1, 2, None, None], [1, 3, None, 4], [True, False, True, False]),
    (pa.string(), ["x", "", None], ["x", None, None], [True, False, True]),
    (pa.float64(), [1.5, math.nan, 0.0, None], [1.5, math.nan, -0.0, 0.0], [True, True, False, False]),
    (pa.float32(), [0.1, math.nan], [0.1, 1.0], [True, False]),
    (pa.bool_(), [True, False, None], [True, True, False], [True, False, False]),
    (pa.binary(2), [b"ab", b"cd"], [b"ab", b"ce"], [True, False]),
    (pa.decimal128(5, 2), [1, None], [1, 2], [True, False]),
    (pa.timestamp("ns", "UTC"), [2**62, 5], [2**62, 6], [True, False]),
    (pa.date32(), [datetime.date(2024, 2, 29), None], [datetime.date(2024, 2, 29), None], [True, True]),
    (pa.list_(pa.string()), [["a"], [], None, ["a"]], [["a"], None, None, ["a", "b"]], [True, False, True, False]),
    (pa.list_(pa.float32(), 2), [[0, 1], [2, 3]], [[0, 1], [2, 4]], [True, False]),
    (pa.struct([("n", pa.int8())]), [{"n": 1}, {"n": 2}], [{"n": 1}, {"n": 3}], [True, False]),
    (pa.dictionary(pa.int32(), pa.string()), ["a", "b"], ["a", "c"], [True, False]),
    (pa.string(), [], [], []),
    (pa.list_(pa.float32(), 2), [], [], []),
    (pa.list_(pa.list_(pa.float32(), 2), 0), [[]], [[]], [True]),
  ],
  ids=str,
)
def test_rows_are_equal_where_every_value_is(kind, a, b, same):
  left, right = (pa.table({"doc_id": ["i"] * len(v), "x": pa.array(v, kind)}) for v in (a, b))
  assert equal_rows(left, right).tolist() == same


# --- two sides of a range


def test_what_differs_of_a_range():
  new = table(ids=["a", "b", "c"], x=[1, 2, 3])
  base = table(ids=["d", "c", "b"], x=[4, 3, 9])
  expected = {("a", True), ("b", True), ("b", False), ("d", False)}, 1
  assert sides(find_differing(new, base, comparable=True)) == expected
  # In another order of the columns it is the same row still.
  assert sides(find_differing(new, base.select(["x", "doc_id"]), comparable=True)) == expected
  every = {("a", True), ("b", True), ("c", True), ("d", False), ("c", False), ("b", False)}, 0
  assert sides(find_differing(new, base, comparable=False)) == every


@pytest.mark.parametrize(
  "base", [table(ids=["a"]), table(ids=["a"], x=["1"]), table(ids=["a"], y=[1]), table(ids=["a"], x=[1], y=[1])]
)
def test_rows_of_other_columns_are_all_different(base):
  assert sides(find_differing(table(ids=["a"], x=[1]), base, comparable=True)) == ({("a", True), ("a", False)}, 0)


def test_empty_sides():
  nothing, one = table(ids=[], x=pa.array([], pa.int64())), table(ids=["a"], x=[1])
  assert sides(find_differing(one, nothing, comparable=True)) == ({("a", True)}, 0)
  assert sides(find_differing(nothing, one, comparable=True)) == ({("a", False)}, 0)
  assert sides(find_differing(nothing, nothing, comparable=True)) == (set(), 0)


def test_what_is_done_about_an_id():
  met = table(ids=["é", "b", "a", "b", "0"], is_new=[False, True, True, False, True])
  change = decide_changes(met)
  assert change.table.schema == CHANGES_SCHEMA
  assert change.table.to_pydict() == {"doc_id": ["0", "a", "b", "é"], "change": ["upsert"] * 3 + ["delete"]}
  assert (change.new, change.changed, change.gone) == (2, 1, 1)


# --- over two runs


def write_run(plan, rows):
  """Writes {doc_id: (text, kept value)} as the shards of a run; returns their ShardRecords."""
  ids = list(rows)
  digests = digest_array(rows[i][0] for i in ids)
  vectors = to_vectors(np.ones((len(ids), 2), np.float32))
  columns = {"vector": vectors, "text_digest": to_arrow(digests), "x": pa.array([rows[i][1] for i in ids])}
  every, bucket = table(ids=ids, **columns), bucket_of(digests, plan.bits)
  records = []
  for b in range(1 << plan.bits):
    part = every.filter(pa.array(bucket == b))
    name = f"part-{b:05d}-of-{1 << plan.bits:05d}"
    stored = plan.storage.write_content(f"{plan.folder}/vectors", name, ".parquet", to_parquet(part, {}), len(part))
    if len(part):
      records.append(ShardRecord(b, stored, WHITENING.fingerprint, 0, 0, 0, {}, (), 0.0))
  return records


def base_of(plan, records, **fields):
  shards = tuple(BaseShard(r.bucket, plan.bits, r.vectors) for r in records)
  return replace(BaseRun(plan.run_id, plan.store.fingerprint, WHITENING.fingerprint, shards), **fields)


class Find(beam.PTransform):
  def __init__(self, plan, base, whitening=WHITENING):
    super().__init__()
    self.plan, self.base, self.whitening = plan, base, whitening

  def expand(self, shards):
    whitening = shards.pipeline | "Whitening" >> beam.Create([self.whitening])
    return shards | FindChanges(self.plan, self.base, whitening)


def found(folder, plan, records, base, whitening=WHITENING):
  """(records, {id: change}) of comparing a run with its base on Beam."""
  records = Records.of(run_on_beam(folder, records, Find(plan, base, whitening)))
  changes = {}
  for record in records.changes:
    rows = pq.read_table(plan.storage.path(record.changes.path)).to_pylist()
    assert record.changes.rows == len(rows) == record.new + record.changed + record.gone > 0
    assert changes.keys().isdisjoint(row["doc_id"] for row in rows)
    changes |= {row["doc_id"]: row["change"] for row in rows}
  return records, changes


OLD = {f"id {i:02d}": (f"text {i}", i) for i in range(40)}
NEW = {f"id {i:02d}": (f"text {i}", i) for i in range(2, 44)}  # 0 and 1 are gone, 40 to 43 new
NEW |= {"id 05": ("another text", 5), "id 06": ("text 6", -6)}  # edited; an edited column
NEW |= {"id 10": ("text 11", 10), "id 11": ("text 10", 11)}  # swapped
CHANGED = {"id 05", "id 06", "id 10", "id 11"}
ADDED = {f"id {i}" for i in range(40, 44)}
GONE = {"id 00", "id 01"}


@pytest.mark.parametrize("bits", [(2, 2), (0, 3), (3, 0), (2, 4), (4, 2), (8, 8)], ids=str)
def test_changes_are_exact_whatever_the_buckets(tmp_path, bits):
  old, new = (make_plan(tmp_path / "ds", run_id=f"r{i}", bits=bits[i]) for i in range(2))
  base = base_of(old, write_run(old, OLD))
  records, changes = found(tmp_path / "out", new, write_run(new, NEW), base)
  assert changes == dict.fromkeys(CHANGED | ADDED, "upsert") | dict.fromkeys(GONE, "delete")
  totals = [sum(getattr(r, name) for r in records.changes) for name in ("new", "changed", "gone")]
  assert totals == [4, 4, 2] and sum(r.unchanged for r in records.compared) == len(NEW) - 8
  assert not [r for r in records.compared if r.problem]
  assert new.storage.names("runs/r1/progress"), "who reads for long shows that it lives"
  names = new.storage.names("runs/r1/changes")
  assert all(
    name.startswith(f"part-{i:05d}-of-{min(64, 1 << bits[1]):05d}-")
    for i, name in zip(sorted(r.part for r in records.changes), names, strict=True)
  )


def test_vectors_that_are_stored_otherwise_are_all_changed(tmp_path):
  """By type, or by the ranges of int8: their text and columns do not tell."""
  ranged = [replace(WHITENING, ranges=np.full(H, size, np.float32)) for size in (0.5, 0.75)]
  old = make_plan(tmp_path / "ds", run_id="r0")
  rows = write_run(old, OLD)

  def count_unchanged(kind, whitening, stored_as):
    new = make_plan(tmp_path / "ds", run_id=f"r-{kind}-{whitening.ranges[:1]}", vector_type=kind)
    records, _ = found(tmp_path / new.run_id, new, rows, base_of(old, rows, coding=stored_as), whitening)
    return sum(record.unchanged for record in records.compared)

  int8 = coding("int8", ranged[0].ranges_fingerprint)
  assert count_unchanged("int8", ranged[0], int8) == count_unchanged("float16", ranged[0], "float16") == len(OLD)
  assert count_unchanged("int8", ranged[1], int8) == count_unchanged("float32", WHITENING, int8) == 0


def test_a_range_without_a_shard_of_ours_is_looked_at_for_what_is_gone(tmp_path):
  old, new = (make_plan(tmp_path / "ds", run_id=f"r{i}", bits=4) for i in range(2))
  base = base_of(old, write_run(old, OLD))
  _, changes = found(tmp_path / "1", new, write_run(new, {"id 03": OLD["id 03"]}), base)
  assert changes == dict.fromkeys(OLD.keys() - {"id 03"}, "delete")
  _, changes = found(tmp_path / "2", new, [], base)
  assert changes == dict.fromkeys(OLD, "delete")


def test_without_a_base_everything_is_new(tmp_path):
  plan = make_plan(tmp_path / "ds", bits=2)
  for number, base in enumerate((None, base_of(plan, []))):
    records, changes = found(tmp_path / str(number), plan, write_run(plan, NEW), base)
    assert changes == dict.fromkeys(NEW, "upsert")
    assert sum(r.new for r in records.changes) == len(NEW) and not any(r.unchanged for r in records.compared)


@pytest.mark.parametrize("field", ["encoder_fingerprint", "whitening_fingerprint"])
def test_with_another_map_everything_is_upserted_and_what_is_gone_deleted(tmp_path, field):
  old, new = (make_plan(tmp_path / "ds", run_id=f"r{i}", bits=2) for i in range(2))
  base = base_of(old, write_run(old, OLD), **{field: "another"})
  records, changes = found(tmp_path / "out", new, write_run(new, NEW), base)
  assert changes == dict.fromkeys(NEW, "upsert") | dict.fromkeys(GONE, "delete")
  assert [sum(getattr(r, name) for r in records.changes) for name in ("new", "changed", "gone")] == [4, 38, 2]


def test_where_nothing_was_written_nothing_changes(tmp_path):
  old, new = (make_plan(tmp_path / "ds", run_id=f"r{i}", bits=2) for i in range(2))
  base = base_of(old, write_run(old, OLD))
  nothing = [ShardRecord(0, None, "", 0, 0, 0, {"duplicate id": 1}, (), 0.0)]
  assert found(tmp_path / "out", new, nothing, base, NoWhitening("too few")) == (Records(), {})


def gone(path):
  path.unlink()


def longer(path):
  path.write_bytes(path.read_bytes() + b"x")


def other_bytes(path):
  path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("harm", [gone, longer, other_bytes])
def test_a_base_that_cannot_be_read_upserts_what_it_may_have_held(tmp_path, harm):
  old, new = (make_plan(tmp_path / "ds", run_id=f"r{i}", bits=1) for i in range(2))
  shards = write_run(old, OLD)
  harm(old.storage.path(shards[1].vectors.path))
  records, changes = found(tmp_path / "out", new, write_run(new, NEW), base_of(old, shards))
  upper = {i for i in NEW if bucket_of(digest_array([NEW[i][0]]), 1)[0] == 1}
  assert changes.keys() == upper | {i for i in CHANGED | ADDED | GONE if i in changes}
  assert all(changes[i] == "upsert" for i in upper | CHANGED | ADDED)  # never too little
  assert {i for i in changes if changes[i] == "delete"} <= GONE  # and nothing that is there
  assert [r.problem is None for r in records.compared] == [True, False]
  assert shards[1].vectors.path in records.compared[1].problem
  assert sum(r.new + r.changed for r in records.changes) + sum(r.unchanged for r in records.compared) == len(NEW)


def test_our_own_shard_has_to_be_readable(tmp_path):
  plan = make_plan(tmp_path / "ds")
  [record] = write_run(plan, NEW)
  plan.storage.remove(record.vectors.path)
  with pytest.raises(StoreError, match=rf"^{record.vectors.path}: missing, or not of the .* bytes"):
    read_rows(plan.storage, [record.vectors])


def test_shards_are_read_without_their_vectors(tmp_path):
  plan = make_plan(tmp_path / "ds")
  [record] = write_run(plan, NEW)
  assert read_rows(plan.storage, [record.vectors]).column_names == ["doc_id", "text_digest", "x"]
  assert read_rows(plan.storage, [record.vectors], ids_only=True).column_names == ["doc_id"]


def test_work_done_twice_writes_the_same_file(tmp_path):
  old, new = (make_plan(tmp_path / "ds", run_id=f"r{i}", bits=1) for i in range(2))
  base, records = base_of(old, write_run(old, OLD)), write_run(new, NEW)
  first, second = (found(tmp_path / str(i), new, order, base)[0] for i, order in enumerate((records, records[::-1])))
  assert first == second and len(first.changes) == len(new.storage.names("runs/r1/changes")) == 2
  assert {type(r) for r in (*first.changes, *first.compared)} == {ChangesRecord, ComparedRecord}
