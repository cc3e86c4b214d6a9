from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.run_parts import (
  A_FILE_FOR_EACH_TEXT,
  NO_COLUMNS,
  H,
  block_of,
  encode_rows,
  make_encoder,
  make_plan,
  make_report,
  read_rejects,
  run_on_beam,
)
from transforms import encode_documents
from transforms.digests import DigestRange, bucket_of, digest, digest_array
from transforms.encode_documents import BucketEncoder, EncodeDocuments, holdings
from transforms.encoder import Encoder
from transforms.errors import KnownTextsLostError, StoreError
from transforms.predictions import Predictions
from transforms.progress_file import read_progress
from transforms.raw_store import probabilities_of, run_of, vectors_of
from transforms.rows import Row
from transforms.settle_ids import read_documents_file
from transforms.storage import sha256
from transforms.vector_table import block_schema, from_ipc, to_ipc

TEXTS = ["red", "green house", "blue tree 1", "white town 1 2", "black house 3 4 5"]
ALL = DigestRange(0, 0)
ROWS = [Row(10 * i, f"id {i}", text, ()) for i, text in enumerate(TEXTS)]


class CountingEncoder:
  """The fake encoder, with every call kept, vectors spoilt as asked, and time passing with each batch."""

  def __init__(self, spoil=None, seconds=0.0):
    self.fake, self.spoil, self.seconds = make_encoder(), spoil or {}, seconds
    self.now, self.calls = 0.0, []
    first_tokens = self.fake.load_tokenizer().tokenise(list(self.spoil))
    ids = [first_tokens.input_ids[i] for i in first_tokens.offsets[:-1] + 1]
    self._spoilt = dict(zip(ids, self.spoil.values(), strict=True))

  def encode(self, input_ids, input_mask):
    self.calls.append(len(input_ids))
    self.now += self.seconds
    vectors = self.fake.encode(input_ids, input_mask)
    for row, token in enumerate(input_ids[:, 1]):
      if token in self._spoilt:
        vectors[row, : 1 if np.isnan(self._spoilt[token]) else H] = self._spoilt[token]
    return vectors

  def clock(self):
    return self.now

  def run(self, plan, *blocks, bucket=0):
    encoder = Encoder(self.fake.spec, self.fake.load_tokenizer(), self.encode)
    return BucketEncoder(plan, encoder, make_report(plan), self.clock).encode(bucket, blocks)


def vectors_by_text(plan, record, texts):
  """{text: raw vector} of what the record's raw files hold."""
  digests, found = np.unique(digest_array(texts)), {}
  for _, rows in plan.store.select(record.raw_files, digests):
    found |= dict(zip(rows["text_digest"].to_pylist(), vectors_of(rows), strict=True))
  return {text: found[digest(text)] for text in texts}


def doc_ids(plan, record):
  return read_documents_file(plan, record)["doc_id"].to_pylist()


def test_holdings(tmp_path):
  plan = make_plan(tmp_path, bits=1)
  store, everything, texts = plan.store, DigestRange(0, 0), np.unique(digest_array([*TEXTS, "old"]))
  found, known = holdings(store, everything, texts)
  assert found == {} and not known.any()
  buckets = bucket_of(digest_array(TEXTS), 1)
  for bucket in range(2):
    encode_rows(plan, [row for row, b in zip(ROWS, buckets, strict=True) if b == bucket], bucket)
  low, high = store.find(everything)
  found, known = holdings(store, everything, texts)
  assert found == {low: np.count_nonzero(buckets == 0), high: np.count_nonzero(buckets == 1)}
  assert texts[~known].tolist() == digest_array(["old"]).tolist()
  assert holdings(store, DigestRange(0, 1), texts)[0] == {low: found[low]}
  assert holdings(store, everything, texts[:0])[0] == {}


def test_a_text_in_two_files_is_held_by_the_first(tmp_path):
  plan = make_plan(tmp_path)
  [first] = encode_rows(plan, ROWS[:3]).raw_files
  second = plan.store.write(DigestRange(0, 0), "r2", plan.store.read(first))
  assert plan.store.find(DigestRange(0, 0)) == [first, second]
  assert holdings(plan.store, DigestRange(0, 0), np.unique(digest_array(TEXTS)))[0] == {first: 3}


def test_holdings_go_on_without_damaged_files_and_mark_them(tmp_path):
  plan = make_plan(tmp_path, **A_FILE_FOR_EACH_TEXT)
  names = sorted(encode_rows(plan, ROWS).raw_files)
  plan.storage.write(f"{plan.store.folder}/{names[1]}", b"")
  plan.storage.write(f"{plan.store.folder}/{names[3]}", plan.storage.read(f"{plan.store.folder}/{names[0]}"))
  found, known = holdings(plan.store, ALL, np.unique(digest_array(TEXTS)))
  assert found == dict.fromkeys(names[::2], 1) and np.count_nonzero(known) == 3
  assert plan.store.damaged(ALL) == names[1::2]


def test_a_file_of_another_format_version_stops_the_bucket(tmp_path):
  plan = make_plan(tmp_path)
  (name,) = encode_rows(plan, ROWS).raw_files
  sink = pa.BufferOutputStream()
  table = plan.store.read(name)
  pq.write_table(table.replace_schema_metadata({"sorbus.format_version": "7"}), sink)
  data = sink.getvalue().to_pybytes()
  plan.storage.write(f"{plan.store.folder}/all-r0-{sha256(data)[:16]}.parquet", data)
  with pytest.raises(StoreError, match=r"/all-r0-.*: format version 7, this Sorbus reads 1"):
    holdings(plan.store, ALL, np.unique(digest_array(TEXTS)))
  assert plan.store.damaged(ALL) == []


def without_tokens(block):
  table = from_ipc([block], block_schema(NO_COLUMNS))
  nothing = pa.array([[]] * len(table), table.schema.field("input_ids").type)
  return to_ipc(table.set_column(7, "input_ids", nothing))


def test_texts_without_tokens_are_taken_from_the_store(tmp_path):
  plan = make_plan(tmp_path)
  encode_rows(plan, ROWS[:3])
  encoder = CountingEncoder()
  record = encoder.run(plan, without_tokens(block_of(plan, ROWS[:3])), block_of(plan, ROWS[3:]))
  assert sum(encoder.calls) == 2 and record.distinct == record.received == 5
  assert len(vectors_by_text(plan, record, TEXTS)) == 5


def test_a_text_without_tokens_that_is_nowhere_stops_the_bucket_before_it_encodes(tmp_path):
  plan, encoder = make_plan(tmp_path), CountingEncoder()
  blocks = without_tokens(block_of(plan, ROWS[:3])), block_of(plan, ROWS[3:])
  with pytest.raises(KnownTextsLostError) as error:
    encoder.run(plan, *blocks)
  assert str(error.value) == (
    f"{plan.store.folder}: 3 known texts of bucket all are in no whole raw file any more (a file is gone); run "
    "again to encode them anew"
  )
  (name,) = encode_rows(plan, ROWS[:3]).raw_files
  plan.storage.write(f"{plan.store.folder}/{name}", b"")
  with pytest.raises(KnownTextsLostError, match=rf"3 known texts of bucket all .* \({name}\); run again"):
    encoder.run(plan, *blocks)
  assert encoder.calls == []


def test_every_distinct_text_is_encoded_once(tmp_path):
  plan, encoder = make_plan(tmp_path), CountingEncoder()
  twice = [Row(100 + i, f"again {i}", TEXTS[0], ()) for i in range(3)]
  record = encoder.run(plan, block_of(plan, ROWS[3:] + twice), block_of(plan, ROWS[:3], file=1))
  assert sum(encoder.calls) == 5
  assert (record.received, record.distinct, record.encoded, record.reused) == (8, 5, 5, 0)
  assert (record.tokens, record.rejected, record.files) == (3 + 4 + 5 + 6 + 7, {}, ())
  expected = make_encoder().load().encode_texts(TEXTS)
  found = vectors_by_text(plan, record, TEXTS)
  assert all((found[text] == vector).all() for text, vector in zip(TEXTS, expected, strict=True))


def test_raw_rows_say_what_is_known_of_a_text(tmp_path):
  plan = make_plan(tmp_path)
  record = encode_rows(plan, [Row(0, "a", "red unknown words", ()), Row(1, "b", "0 " * 20, ())])
  rows = plan.store.read(record.raw_files[0]).drop_columns(["vector"]).to_pylist()
  assert sorted(rows, key=lambda row: row["n_tokens"]) == [
    {"text_digest": digest("red unknown words"), "n_tokens": 5, "truncated": False, "n_unknown": 2},
    {"text_digest": digest("0 " * 20), "n_tokens": 16, "truncated": True, "n_unknown": 0},
  ]


def test_padding_is_counted(tmp_path):
  plan, encoder = make_plan(tmp_path), CountingEncoder()
  record = encoder.run(plan, block_of(plan, ROWS))
  assert encoder.calls == [5] and (record.tokens, record.computed_tokens) == (25, 5 * 7)
  other = replace(make_plan(tmp_path / "2"), token_budget=1)
  record = CountingEncoder().run(other, block_of(other, ROWS))
  assert record.tokens == record.computed_tokens == 25


@pytest.mark.parametrize(("flush_seconds", "files"), [(0.0, 5), (20.0, 3), (30.0, 2), (1000.0, 1)])
def test_flushes_by_time(tmp_path, flush_seconds, files):
  plan = make_plan(tmp_path, token_budget=1, flush_seconds=flush_seconds)  # a text a batch, ten seconds each
  record = CountingEncoder(seconds=10.0).run(plan, block_of(plan, ROWS))
  assert len(record.raw_files) == files and record.seconds == 50.0
  assert len(vectors_by_text(plan, record, TEXTS)) == 5


def test_flushes_by_bytes(tmp_path, monkeypatch):
  monkeypatch.setattr(encode_documents, "_FLUSH_BYTES", 80)  # a row has about 41
  plan = make_plan(tmp_path, token_budget=1, flush_seconds=1e9)
  record = CountingEncoder().run(plan, block_of(plan, ROWS))
  assert [len(plan.store.read(name)) for name in record.raw_files].count(2) == 2
  assert len(record.raw_files) == 3


def test_known_texts_are_not_encoded(tmp_path):
  plan = make_plan(tmp_path)
  first = encode_rows(plan, ROWS[:3])
  night, encoder = make_plan(tmp_path, run_id="r2"), CountingEncoder()
  record = encoder.run(night, block_of(night, ROWS))
  assert sum(encoder.calls) == 2
  assert (record.distinct, record.encoded, record.reused, record.tokens) == (5, 2, 3, 6 + 7)
  assert set(first.raw_files) < set(record.raw_files) and len(record.raw_files) == 2
  assert {run_of(name) for name in record.raw_files} == {"r1", "r2"}
  idle = CountingEncoder()
  assert idle.run(make_plan(tmp_path, run_id="r3"), block_of(plan, ROWS)).reused == 5 and idle.calls == []
  assert read_progress(night.storage, night.folder)["texts_seen"] == 5


@pytest.mark.parametrize(
  ("value", "reason"), [(np.nan, "vector not finite"), (np.inf, "vector not finite"), (0.0, "zero vector")]
)
def test_vectors_that_are_none_are_rejected_with_all_their_documents(tmp_path, value, reason):
  plan, encoder = make_plan(tmp_path), CountingEncoder({"red": value})
  twice = Row(100, "again", "red", ())
  record = encoder.run(plan, block_of(plan, ROWS), block_of(plan, [twice], file=1))
  assert (record.received, record.distinct, record.encoded, record.rejected) == (6, 4, 4, {reason: 2})
  assert sorted(doc_ids(plan, record)) == ["id 1", "id 2", "id 3", "id 4"] and record.documents.rows == 4
  rejects = sorted(read_rejects(plan), key=lambda reject: reject["doc_id"])
  assert [(r["doc_id"], r["file"], r["position"], r["reason"]) for r in rejects] == [
    ("again", "b.txt", 100, reason),
    ("id 0", "a.txt", 0, reason),
  ]
  assert "NaN or infinity" in rejects[0]["detail"] or reason == "zero vector"
  assert [file.rows for file in record.files] == [2]
  assert digest("red") not in plan.store.read(record.raw_files[0])["text_digest"].to_pylist()


def test_what_a_head_predicts_is_stored_beside_the_vector(tmp_path):
  plan = make_plan(tmp_path, predictions=Predictions(("a", "b", "c"), 0.5))
  record = encode_rows(plan, ROWS)
  [rows] = [plan.store.read(name) for name in record.raw_files]
  assert len(rows) == 5
  expected = 1 / (1 + np.exp(-vectors_of(rows)[:, :3]))
  np.testing.assert_allclose(probabilities_of(rows), expected, rtol=0, atol=1e-7)


def test_a_probability_that_is_no_number_is_rejected_as_such_a_vector_is(tmp_path):
  plan = make_plan(tmp_path, predictions=Predictions(("a", "b")))
  fake = make_encoder(labels=("a", "b"))

  def predict(input_ids, input_mask):
    vectors, probabilities = fake.encode_and_predict(input_ids, input_mask)
    probabilities[input_mask.sum(axis=1) == 3, 1] = np.nan  # "red"
    return vectors, probabilities

  encoder = BucketEncoder(plan, replace(fake.load(), run_head=predict), make_report(plan), lambda: 0.0)
  record = encoder.encode(0, [block_of(plan, ROWS)])
  assert (record.distinct, record.rejected) == (4, {"vector not finite": 1})
  [reject] = read_rejects(plan)
  assert (reject["doc_id"], reject["detail"]) == (
    "id 0",
    "the encoder's head gave a probability that is NaN or infinity",
  )


def test_a_bucket_in_which_all_is_rejected(tmp_path):
  plan = make_plan(tmp_path)
  record = CountingEncoder({"red": 0.0}).run(plan, block_of(plan, ROWS[:1]))
  assert (record.raw_files, record.distinct, record.documents.rows, record.rejected) == ((), 0, 0, {"zero vector": 1})


def test_a_second_attempt_reuses_the_flushes_of_the_first(tmp_path):
  plan = make_plan(tmp_path, token_budget=1, flush_seconds=20.0)
  spoil = {"green": np.nan}
  first = CountingEncoder(spoil, seconds=10.0).run(plan, block_of(plan, ROWS))
  again = CountingEncoder(spoil, seconds=1.0)
  second = again.run(plan, block_of(plan, ROWS[::-1]))
  assert again.calls == [1]  # the one that has no vector
  same = {"seconds": 0.0, "tokens": 0, "computed_tokens": 0}
  assert replace(first, **same) == replace(second, **same)
  assert len(plan.storage.names(f"{plan.folder}/documents")) == len(plan.storage.names(f"{plan.folder}/rejected")) == 1


def test_an_attempt_that_was_cut_short_loses_only_what_it_had_not_flushed(tmp_path):
  plan = make_plan(tmp_path, token_budget=1, flush_seconds=20.0)

  class Killed(CountingEncoder):
    def encode(self, input_ids, input_mask):
      if len(self.calls) == 3:
        raise KeyboardInterrupt
      return super().encode(input_ids, input_mask)

  with pytest.raises(KeyboardInterrupt):
    Killed(seconds=10.0).run(plan, block_of(plan, ROWS))
  again = CountingEncoder(seconds=10.0)
  record = again.run(plan, block_of(plan, ROWS))
  assert again.calls == [1, 1, 1] and (record.encoded, record.reused) == (5, 0)
  assert len(vectors_by_text(plan, record, TEXTS)) == 5


def test_the_documents_file_is_sorted_whoever_reads_first(tmp_path):
  plan = make_plan(tmp_path, kept=pa.schema([pa.field("lang", pa.string())]))
  rows = [Row(i, f"id {i % 7}", TEXTS[i % 5], (f"l{i}",)) for i in range(40)]
  first = encode_rows(plan, rows)
  assert encode_rows(plan, rows[::-1]).documents == first.documents
  found = read_documents_file(plan, first).to_pylist()
  keys = [(d["text_digest"], d["doc_id"], d["source_file"], d["source_position"]) for d in found]
  assert keys == sorted(keys) and len(keys) == 40
  assert {(d["source_position"], d["lang"]) for d in found} == {(i, f"l{i}") for i in range(40)}


def test_encode_documents_on_beam(tmp_path):
  plan = make_plan(tmp_path / "ds", bits=1)
  buckets = bucket_of(digest_array(TEXTS), 1)
  keyed = [(int(bucket), block_of(plan, [row])) for row, bucket in zip(ROWS, buckets, strict=True)]
  records = run_on_beam(tmp_path / "out", keyed, EncodeDocuments(plan, make_encoder().load))
  assert sorted(record.bucket for record in records) == [0, 1]
  assert sum(record.encoded for record in records) == 5
  assert sorted(doc_id for record in records for doc_id in doc_ids(plan, record)) == [f"id {i}" for i in range(5)]
