from collections import Counter
from dataclasses import replace

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.run_parts import (
  A_FILE_FOR_EACH_TEXT,
  NO_COLUMNS,
  H,
  encode_by_bucket,
  encode_rows,
  make_encoder,
  make_plan,
  read_rejects,
  run_on_beam,
)
from transforms import write_vectors
from transforms.digests import digest
from transforms.predictions import Predictions
from transforms.raw_store import vectors_of
from transforms.records import ShardRecord
from transforms.rows import Row
from transforms.settle_ids import SettledBucket
from transforms.storage import StoredFile
from transforms.vector_table import from_vectors, read_parquet, vectors_schema
from transforms.vector_types import to_stored
from transforms.whitening import Whitening
from transforms.write_vectors import BY_FILE, NoWhitening, ShardWriter, WriteVectors

KEPT = pa.schema([pa.field("lang", pa.string())])
TEXTS = ["red", "green house", "blue tree", "white town unknown", "black " + "1 " * 20]
ROWS = [Row(10 * i, f"id {(7 * i) % 15:02d}", TEXTS[i % 5], (f"l{i}",)) for i in range(15)]
ROTATION = np.linalg.qr(np.random.default_rng(3).normal(size=(H, H)))[0]
WHITENING = Whitening(np.full(H, 0.125), ROTATION[:, :3], np.empty(0), 0, "")
NOBODY = np.empty(0, np.int64)


def settle(record, *dropped):
  return SettledBucket(record, np.array(dropped, np.int64))


def read_shard(plan, record, K=3):
  schema = vectors_schema(K, plan.kept, plan.predictions.fields)
  return read_parquet(plan.storage.read(record.vectors.path), record.vectors.path, schema)


def expected_vectors(texts, whitening=WHITENING):
  """The formula, text by text."""
  raw = make_encoder().load().encode_texts(texts).astype(np.float64)
  reduced = (raw - whitening.mean) @ whitening.kernel
  return reduced / np.linalg.norm(reduced, axis=1, keepdims=True)


@pytest.fixture
def plan(tmp_path):
  return make_plan(tmp_path / "ds", kept=KEPT)


@pytest.mark.parametrize("bounds", [(2, 1, 1), (2, 2, 4), (4096, 3, 2), (4096, 32768, 16384)])
@pytest.mark.parametrize("flushes", [{}, A_FILE_FOR_EACH_TEXT], ids=["one file", "many files"])
def test_a_shard(tmp_path, monkeypatch, bounds, flushes):
  """The same rows however few texts a pass, a block or a row group holds."""
  for name, value in zip(("BLOCK_ROWS", "TEXTS_PER_PASS", "ROW_GROUP_ROWS"), bounds, strict=True):
    monkeypatch.setattr(write_vectors, name, value)
  plan = make_plan(tmp_path / "ds", kept=KEPT, **flushes)
  record = ShardWriter(plan, WHITENING).write(settle(encode_rows(plan, ROWS)))
  table = read_shard(plan, record)
  text_of = {row.doc_id: row.text for row in ROWS}
  ids = table["doc_id"].to_pylist()
  assert ids == sorted(text_of, key=lambda doc_id: (digest(text_of[doc_id]), doc_id))
  assert dict(zip(ids, table["lang"].to_pylist(), strict=True)) == {row.doc_id: row.kept[0] for row in ROWS}
  vectors = from_vectors(table["vector"])
  np.testing.assert_allclose(vectors, expected_vectors([text_of[doc_id] for doc_id in ids]), atol=1e-6)
  assert len(np.unique(vectors, axis=0)) == len(TEXTS)  # equal texts share a vector
  assert table["text_digest"].to_pylist() == [digest(text_of[doc_id]) for doc_id in ids]
  counts = {text_of[row["doc_id"]]: tuple(row.values())[2:5] for row in table.to_pylist()}
  assert counts == dict(
    zip(TEXTS, [(3, False, 0), (4, False, 0), (4, False, 0), (5, False, 1), (16, True, 0)], strict=True)
  )


def test_the_record_of_a_shard(plan):
  record = ShardWriter(plan, WHITENING).write(settle(encode_rows(plan, ROWS)))
  assert (record.bucket, record.truncated, record.n_unknown, record.rejected, record.files) == (0, 3, 3, {}, ())
  assert record.n_tokens == 3 * (3 + 4 + 4 + 5 + 16) and record.vectors.rows == 15
  assert record.whitening_fingerprint == WHITENING.fingerprint
  data = plan.storage.read(record.vectors.path)
  assert record.vectors == StoredFile(record.vectors.path, 15, len(data), record.vectors.sha256)
  assert record.vectors.path.startswith("runs/r1/vectors/part-00000-of-00001-")
  assert pq.ParquetFile(pa.BufferReader(data)).schema_arrow.metadata == {
    b"sorbus.format_version": b"1",
    b"sorbus.run_id": b"r1",
    b"sorbus.encoder_fingerprint": plan.store.fingerprint.encode(),
    b"sorbus.whitening_fingerprint": WHITENING.fingerprint.encode(),
  }


@pytest.mark.parametrize("bounds", [(2, 1, 1), (4096, 32768, 16384)])
def test_a_shard_with_what_a_head_predicts(tmp_path, monkeypatch, bounds):
  for name, value in zip(("BLOCK_ROWS", "TEXTS_PER_PASS", "ROW_GROUP_ROWS"), bounds, strict=True):
    monkeypatch.setattr(write_vectors, name, value)
  plan = make_plan(tmp_path / "ds", kept=KEPT, predictions=Predictions(("a", "b"), 0.55), **A_FILE_FOR_EACH_TEXT)
  record = ShardWriter(plan, WHITENING).write(settle(encode_rows(plan, ROWS), 3))
  table, text_of = read_shard(plan, record), {row.doc_id: row.text for row in ROWS}
  texts = [text_of[doc_id] for doc_id in table["doc_id"].to_pylist()]
  expected = 1 / (1 + np.exp(-make_encoder().load().encode_texts(texts)[:, :2].astype(np.float64)))
  np.testing.assert_allclose(from_vectors(table["probabilities"]), expected, rtol=0, atol=1e-6)
  holding = [[label for label, p in zip("ab", row, strict=True) if p > 0.55] for row in expected]
  assert table["labels"].to_pylist() == holding and len({tuple(labels) for labels in holding}) > 1
  metadata = pq.ParquetFile(pa.BufferReader(plan.storage.read(record.vectors.path))).schema_arrow.metadata
  assert (metadata[b"sorbus.labels"], metadata[b"sorbus.threshold"]) == (b'["a", "b"]', b"0.55")


def test_work_done_twice_writes_the_same_file(plan):
  settled = settle(encode_rows(plan, ROWS), 3)
  first, second = (ShardWriter(plan, WHITENING).write(settled) for _ in range(2))
  assert (first.vectors, first.files) == (second.vectors, second.files)
  assert len(plan.storage.names("runs/r1/vectors")) == len(plan.storage.names("runs/r1/rejected")) == 1


def test_documents_that_lost_their_id_are_rejected(plan):
  bucket = encode_rows(plan, ROWS)
  ids = read_shard(plan, ShardWriter(plan, WHITENING).write(settle(bucket)))["doc_id"].to_pylist()
  record = ShardWriter(plan, WHITENING).write(settle(bucket, 0, 1, 2, 14))  # all of one text, and one of another
  assert record.rejected == {"duplicate id": 4} and record.vectors.rows == 11
  assert record.rejected_by_file == {"a.txt": 4}
  assert read_shard(plan, record)["doc_id"].to_pylist() == ids[3:14]
  rejects = {reject["doc_id"]: reject for reject in read_rejects(plan)}
  assert rejects.keys() == {*ids[:3], ids[14]}
  [position] = [row.position for row in ROWS if row.doc_id == ids[0]]
  assert rejects[ids[0]] == {
    "doc_id": ids[0],
    "file": "a.txt",
    "position": position,
    "reason": "duplicate id",
    "detail": "an earlier document, by file name and position, has this id",
    "text": None,
  }


@pytest.mark.parametrize("at", range(5))
def test_a_reduced_vector_of_length_zero_is_rejected(plan, at):
  """Where a raw vector is the mean itself; its documents go, all of them."""
  bucket = encode_rows(plan, ROWS)
  [(_, raw)] = plan.store.select(bucket.raw_files, np.array([digest(TEXTS[at])], "S16"))
  mean = vectors_of(raw)[0].astype(np.float64)
  centred = Whitening(mean, ROTATION, np.empty(0), 0, "")
  by_file = Counter()
  record = ShardWriter(plan, centred).write(settle(bucket), by_file)
  assert record.rejected == {"zero vector": 3} and record.vectors.rows == 12
  assert (record.rejected_by_file, by_file) == ({"a.txt": 3}, {0: 12})
  assert {reject["position"] for reject in read_rejects(plan)} == {10 * at, 10 * at + 50, 10 * at + 100}
  table = read_shard(plan, record, K=H)
  text_of = {row.doc_id: row.text for row in ROWS}
  texts = [text_of[doc_id] for doc_id in table["doc_id"].to_pylist()]
  np.testing.assert_allclose(from_vectors(table["vector"]), expected_vectors(texts, centred), atol=1e-6)
  assert record.n_tokens == 3 * (3 + 4 + 4 + 5 + 16) - 3 * (3, 4, 4, 5, 16)[at]


def test_without_a_whitening_only_rejects_are_written(plan):
  record = ShardWriter(plan, NoWhitening("too few documents")).write(settle(encode_rows(plan, ROWS), 4))
  assert (record.vectors, record.whitening_fingerprint, record.n_tokens) == (None, "", 0)
  assert record.rejected == {"duplicate id": 1} and [file.rows for file in record.files] == [1]
  assert plan.storage.names("runs/r1/vectors") == []


def test_a_bucket_in_which_nothing_is_left_writes_no_shard(plan):
  everything = settle(encode_rows(plan, ROWS[:3]), 0, 1, 2)
  record = ShardWriter(plan, WHITENING).write(everything)
  assert (record.vectors, record.rejected) == (None, {"duplicate id": 3})
  empty = ShardWriter(plan, WHITENING).write(settle(encode_rows(plan, [])))
  assert (empty.vectors, empty.rejected, empty.n_tokens) == (None, {}, 0)
  assert plan.storage.names("runs/r1/vectors") == []


def test_write_vectors_on_beam(tmp_path):
  plan = make_plan(tmp_path / "ds", bits=2, kept=NO_COLUMNS)
  settled = [settle(record) for record in encode_by_bucket(plan, [row._replace(kept=()) for row in ROWS])]

  class Write(beam.PTransform):
    def expand(self, settled):
      whitening = settled.pipeline | "Whitening" >> beam.Create([WHITENING])
      written = settled | WriteVectors(plan, whitening)
      return (written.shards, written[BY_FILE]) | beam.Flatten()

  found = run_on_beam(tmp_path / "out", settled, Write())
  records = [record for record in found if isinstance(record, ShardRecord)]
  assert sum((Counter(by_file) for by_file in found if isinstance(by_file, dict)), Counter()) == {0: len(ROWS)}
  ids = Counter(doc_id for record in records for doc_id in read_shard(plan, record)["doc_id"].to_pylist())
  assert ids == Counter(row.doc_id for row in ROWS) and len(records) == len(settled) > 1
  names = {record.vectors.path.rpartition("/")[2].rpartition("-")[0] for record in records}
  assert names == {f"part-{record.bucket:05d}-of-00004" for record in records}


@pytest.mark.parametrize("kind", ["float16", "int8"])
@pytest.mark.parametrize("bounds", [(2, 1, 1), (4096, 32768, 16384)])
def test_a_shard_of_another_type_is_the_float32_one_rounded(tmp_path, monkeypatch, kind, bounds):
  for name, value in zip(("BLOCK_ROWS", "TEXTS_PER_PASS", "ROW_GROUP_ROWS"), bounds, strict=True):
    monkeypatch.setattr(write_vectors, name, value)
  plans = [make_plan(tmp_path / each, vector_type=each) for each in ("float32", kind)]
  whitening = replace(WHITENING, ranges=np.float32([0.25, 0.5, 0.75]))
  records = [ShardWriter(plan, whitening).write(settle(encode_rows(plan, ROWS))) for plan in plans]
  plain, other = (pq.read_table(plan.storage.path(r.vectors.path)) for plan, r in zip(plans, records, strict=True))
  expected, clipped = to_stored(from_vectors(plain["vector"]), kind, whitening.ranges)
  assert from_vectors(other["vector"]).tobytes() == expected.tobytes() and other["vector"].type.value_type == kind
  assert other.drop_columns("vector").equals(plain.drop_columns("vector"))
  assert [record.clipped for record in records] == [0, clipped // 3]  # of distinct texts, each of which has three rows
  assert kind != "int8" or clipped
