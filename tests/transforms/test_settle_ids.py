import random
from itertools import chain

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from tests.run_parts import encode_by_bucket, make_plan, run_on_beam
from transforms.digests import digest, digest_array, to_arrow
from transforms.errors import StoreError
from transforms.input_files import ReadOptions
from transforms.rows import Row
from transforms.settle_ids import ID_SCHEMA, SettleIds, find_losers, id_table, read_documents_file

WITH_IDS = ReadOptions(id_column="id")


def ids_of(*rows):
  """Rows (id, bucket, row, file, position) as a table."""
  digests, rest = to_arrow(digest_array(row[0] for row in rows)), zip(*(row[1:] for row in rows), strict=True)
  columns = [pa.array(values, kind) for values, kind in zip(rest, ID_SCHEMA.types[1:], strict=True)]
  return pa.table([digests, *columns], schema=ID_SCHEMA)


def losers(*rows):
  table = find_losers(ids_of(*rows))
  return sorted(zip(table["bucket"].to_pylist(), table["row"].to_pylist(), strict=True))


@pytest.mark.parametrize(
  ("rows", "expected"),
  [
    ([("a", 0, 0, 0, 0)], []),
    ([("a", 0, 0, 0, 0), ("b", 0, 1, 0, 0)], []),
    ([("a", 0, 0, 0, 7), ("a", 0, 1, 0, 3)], [(0, 0)]),  # the lower position stays
    ([("a", 0, 0, 1, 0), ("a", 1, 0, 0, 99)], [(0, 0)]),  # the lower file stays, whatever the position
    ([("a", 5, 2, 0, 0), ("a", 3, 1, 0, 10), ("a", 5, 9, 2, 0)], [(3, 1), (5, 9)]),  # all but one lose
    ([("a", 0, 0, 0, 3), ("a", 5, 7, 0, 3), ("a", 1, 2, 0, 9), ("a", 1, 3, 0, 9)], [(1, 2), (1, 3)]),  # of chunks, all
    ([("a", 0, 0, 0, 0), ("b", 0, 1, 0, 1), ("a", 1, 0, 0, 2), ("b", 1, 1, 0, 3)], [(1, 0), (1, 1)]),
  ],
)
def test_the_lowest_file_and_position_stays(rows, expected):
  assert losers(*rows) == expected
  assert losers(*reversed(rows)) == expected


def test_no_ids_no_losers():
  assert len(find_losers(ID_SCHEMA.empty_table())) == 0


def test_the_order_of_the_input_does_not_matter():
  rng = random.Random(0)
  rows = [(f"id {rng.randrange(40)}", i % 8, i // 8, rng.randrange(3), i) for i in range(200)]
  first = {}
  for row in sorted(rows, key=lambda row: row[3:]):
    first.setdefault(row[0], row)
  expected = sorted((row[1], row[2]) for row in rows if first[row[0]] != row)
  for _ in range(5):
    rng.shuffle(rows)
    assert losers(*rows) == expected


def test_one_row_of_ids_for_each_document(tmp_path):
  plan = make_plan(tmp_path, options=WITH_IDS)
  [record] = encode_by_bucket(plan, [Row(30, "y", "red", ()), Row(10, "x", "blue", ())], file=2)
  documents = read_documents_file(plan, record)
  table = id_table(documents, 5)
  assert table["id_digest"].to_pylist() == [digest(doc_id) for doc_id in documents["doc_id"].to_pylist()]
  assert table.select(["bucket", "row", "source_file"]).to_pydict() == {
    "bucket": [5, 5],
    "row": [0, 1],
    "source_file": [2, 2],
  }
  assert table["source_position"].equals(documents["source_position"])


def settle(folder, plan, records):
  """Runs SettleIds and returns {bucket: the ids that lost}."""
  found = {}
  for settled in run_on_beam(folder, records, SettleIds(plan)):
    documents = read_documents_file(plan, settled.record)
    assert settled.record in records and settled.record.bucket not in found
    assert settled.dropped.dtype == np.int64 and (np.diff(settled.dropped) > 0).all()
    found[settled.record.bucket] = documents["doc_id"].take(pa.array(settled.dropped)).to_pylist()
  return found


def test_duplicates_within_and_across_buckets(tmp_path):
  plan = make_plan(tmp_path, bits=2, options=WITH_IDS)
  texts = ["red", "green", "blue", "white", "black", "small", "large", "old", "new", "house"]
  rows = [Row(10 * i, f"id {i}", text, ()) for i, text in enumerate(texts)]
  within = [Row(500 + i, "id 0", "red", ()) for i in range(3)]  # the same text, so the same bucket
  across = [Row(600 + i, "id 1", text, ()) for i, text in enumerate(texts)]
  records = encode_by_bucket(plan, [*rows, *within, *across])
  assert len(records) == 4
  plan.storage.remove_folder(f"{plan.folder}/progress")
  found = settle(tmp_path / "1", plan, records)
  assert found.keys() == {0, 1, 2, 3}
  assert plan.storage.names(f"{plan.folder}/progress"), "who reads for long shows that it lives"
  assert sorted(chain.from_iterable(found.values())) == ["id 0"] * 3 + ["id 1"] * 10
  assert settle(tmp_path / "2", plan, records[::-1]) == found


def test_buckets_without_a_loser_come_through(tmp_path):
  plan = make_plan(tmp_path, bits=2, options=WITH_IDS)
  records = encode_by_bucket(
    plan, [Row(i, f"id {i}", text, ()) for i, text in enumerate(["red", "blue", "old", "new"])]
  )
  assert settle(tmp_path / "1", plan, records) == {record.bucket: [] for record in records}


def test_ids_made_from_the_place_are_not_shuffled(tmp_path):
  plan = make_plan(tmp_path)  # no id column
  records = encode_by_bucket(plan, [Row(0, "a.txt#0", "red", ())])
  assert settle(tmp_path / "1", plan, records) == {0: []}
  for options, shuffles in [(ReadOptions(), False), (WITH_IDS, True)]:
    pipeline = beam.Pipeline(runner="FnApiRunner")
    _ = pipeline | beam.Create(records, reshuffle=False) | SettleIds(make_plan(tmp_path, options=options))
    assert ("GroupByKey" in str(pipeline.to_runner_api())) == shuffles


def test_a_documents_file_that_is_damaged_or_gone(tmp_path):
  plan = make_plan(tmp_path)
  [record] = encode_by_bucket(plan, [Row(0, "a.txt#0", "red", ())])
  path = record.documents.path
  data = plan.storage.read(path)
  plan.storage.write(path, data[:20] + bytes([data[20] ^ 1]) + data[21:])
  with pytest.raises(StoreError, match=rf"^{path}: damaged \(its sha256 .*; run again$"):
    read_documents_file(plan, record)
  plan.storage.remove(path)
  with pytest.raises(StoreError, match=rf"^{path}: a file that this run wrote is gone; run again$"):
    read_documents_file(plan, record)
