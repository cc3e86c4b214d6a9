from collections import Counter
from dataclasses import replace
from itertools import pairwise

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that

from tests.run_parts import NO_COLUMNS, local_pipeline, make_encoder, make_report, plan_files, read_rejects
from transforms import read_documents
from transforms.digests import bucket_of, digest, digest_array, from_arrow, to_arrow
from transforms.errors import InputFileError
from transforms.input_files import ReadOptions, cut_slices, keep_schema
from transforms.input_slices import piece_bytes
from transforms.known_texts import write_known
from transforms.read_documents import (
  RECORDS,
  ReadDocuments,
  SliceReader,
  Wave,
  chunks,
  partition,
  spread,
  token_table,
)
from transforms.rejected_files import RejectedFiles
from transforms.rows import Row
from transforms.vector_table import block_schema, from_ipc

TEXTS = [f"red house {i}" for i in range(60)]
LINES = [*TEXTS[:20], "", "bad \0 line", *TEXTS[20:40], "\u200b", *TEXTS[40:]]
FILES = {"a.txt": "\n".join(LINES).encode(), "b.txt": b"\xff\n" + "\n".join(TEXTS[:5]).encode()}
EVERYTHING = Wave(0, 0, 1 << 16)


def make_reader(plan, piece, wave=EVERYTHING):
  rejects = RejectedFiles(plan.storage, plan.folder, f"read-{piece.file}-{piece.begin}-{wave.number}")
  return SliceReader(plan, wave, piece, make_encoder().load_tokenizer(), rejects)


def read_wave(plan, wave, slice_size=300):
  """Reads all slices of a plan in one wave: ({bucket: its documents}, records)."""
  blocks, records = {}, []
  for piece in cut_slices(plan.files, slice_size):
    reader = make_reader(plan, piece, wave)
    for bucket, block in reader.blocks(make_report(plan)):
      blocks.setdefault(bucket, []).append(block)
    records.append(reader.record())
  return {bucket: from_ipc(found, block_schema(plan.kept)) for bucket, found in blocks.items()}, records


def test_chunks_are_bounded_in_number_and_text(monkeypatch):
  monkeypatch.setattr(read_documents, "_CHUNK_ROWS", 3)
  monkeypatch.setattr(read_documents, "_CHUNK_CHARACTERS", 10)
  rows = [Row(i, str(i), "x" * n, ()) for i, n in enumerate([1, 1, 1, 1, 9, 1, 50, 0, 4])]
  found = list(chunks(iter(rows)))
  assert [[len(row.text) for row in chunk] for chunk in found] == [[1, 1, 1], [1, 9], [1, 50], [0, 4]]
  assert [row for chunk in found for row in chunk] == rows
  assert list(chunks(iter([]))) == []


def test_what_stands_before_the_damage_comes_out_before_the_error():
  def rows():
    yield from [Row(0, "a", "one"), Row(4, "b", "two")]
    raise InputFileError("a.gz ends in the middle of its compression")

  found = chunks(rows())
  assert [row.text for row in next(found)] == ["one", "two"]
  with pytest.raises(InputFileError, match="ends in the middle"):
    next(found)


def test_token_table():
  kept = pa.schema([pa.field("lang", pa.string()), pa.field("year", pa.int64())])
  rows = [Row(0, "007", "red tree", ("en", 1)), Row(9, "b", "small unknown", (None, None))]
  tokens = make_encoder().load_tokenizer().tokenise([row.text for row in rows])
  table = token_table(rows, digest_array(row.text for row in rows), tokens, 3, kept)
  assert table.schema == block_schema(kept)
  assert table.to_pylist() == [
    {
      "doc_id": "007",
      "text_digest": digest("red tree"),
      "source_file": 3,
      "source_position": 0,
      "truncated": False,
      "n_unknown": 0,
      "n_tokens": 4,
      "input_ids": [2, 4, 14, 3],
      "lang": "en",
      "year": 1,
    },
    {
      "doc_id": "b",
      "text_digest": digest("small unknown"),
      "source_file": 3,
      "source_position": 9,
      "truncated": False,
      "n_unknown": 1,
      "n_tokens": 4,
      "input_ids": [2, 9, 1, 3],
      "lang": None,
      "year": None,
    },
  ]
  nothing = make_encoder().load_tokenizer().tokenise([])
  assert len(token_table([], digest_array([]), nothing, 0, NO_COLUMNS)) == 0


@pytest.mark.parametrize("bits", [0, 1, 5, 16])
def test_partition_keeps_every_row_once_in_its_bucket_and_in_order(bits):
  numbers = pa.array(range(200))
  table = pa.table({"text_digest": to_arrow(digest_array(map(str, range(200)))), "n": numbers})
  parts = list(partition([table[:50], table[50:]], bits))
  assert [bucket for bucket, _ in parts] == sorted({bucket for bucket, _ in parts})
  for bucket, part in parts:
    assert len(part) and (bucket_of(from_arrow(part["text_digest"]), bits) == bucket).all()
    assert part["n"].to_pylist() == sorted(part["n"].to_pylist())
  assert sorted(n for _, part in parts for n in part["n"].to_pylist()) == list(range(200))


def expected_rejects():
  return Counter({"no tokens": 2, "NUL character": 1, "invalid bytes": 1})


def test_every_line_is_a_document_or_rejected(tmp_path):
  plan = plan_files(tmp_path, FILES, bits=3)
  blocks, records = read_wave(plan, EVERYTHING)
  documents = pa.concat_tables(blocks.values())
  assert Counter(documents["text_digest"].to_pylist()) == Counter(map(digest, [*TEXTS, *TEXTS[:5]]))
  assert len(set(documents["doc_id"].to_pylist())) == 65
  for bucket, table in blocks.items():
    assert (bucket_of(from_arrow(table["text_digest"]), 3) == bucket).all()
  assert sum(record.documents for record in records) == 65 and len(records) > 3
  assert sum((Counter(record.rejected) for record in records), Counter()) == expected_rejects()
  rejects = read_rejects(plan)
  assert Counter(reject["reason"] for reject in rejects) == expected_rejects()
  position = FILES["a.txt"].index("\u200b".encode())
  assert {
    "doc_id": f"a.txt#{position}",
    "file": "a.txt",
    "position": position,
    "reason": "no tokens",
    "detail": "the tokeniser finds nothing in this text but white space and characters that it drops",
    "text": "\u200b",
  } in rejects


@pytest.mark.parametrize("edges", [[0, 8], [0, 3, 8], [0, 1, 2, 5, 8]])
def test_waves_together_read_everything_once(tmp_path, edges):
  plan = plan_files(tmp_path, FILES, bits=3)
  whole, _ = read_wave(plan, EVERYTHING)
  found, rejected_in = {}, []
  for number, (first, stop) in enumerate(pairwise(edges)):
    blocks, records = read_wave(plan, Wave(number, first, stop))
    assert all(first <= bucket < stop for bucket in blocks)
    assert {record.wave for record in records} == {number}
    assert sum(record.documents for record in records) == sum(map(len, blocks.values()))
    found |= blocks
    rejected_in.append(sum((Counter(record.rejected) for record in records), Counter()))
  assert found.keys() == whole.keys() and all(found[bucket].equals(whole[bucket]) for bucket in whole)
  assert sum(rejected_in, Counter()) == expected_rejects()
  assert all(counts.keys() <= {"no tokens"} for counts in rejected_in[1:])


def test_a_text_without_tokens_is_rejected_in_its_own_wave(tmp_path):
  plan = plan_files(tmp_path, {"a.txt": b"red\n   \nblue"}, bits=1)
  own = int(bucket_of(digest_array(["   "]), 1)[0])
  counts = [read_wave(plan, Wave(bucket, bucket, bucket + 1))[1][0].rejected for bucket in range(2)]
  assert counts[own] == {"no tokens": 1} and counts[1 - own] == {}


class CountedProgress:
  """Keeps what is added."""

  def __init__(self):
    self.counts = Counter()

  def add(self, **counts):
    assert all(n >= 0 for n in counts.values())
    self.counts.update(counts)


@pytest.mark.parametrize("chunk_rows", [1, 7, 1024])
def test_progress_of_a_slice_adds_up_to_its_bytes(tmp_path, monkeypatch, chunk_rows):
  monkeypatch.setattr(read_documents, "_CHUNK_ROWS", chunk_rows)
  plan = plan_files(tmp_path, FILES | {"c.jsonl": b'{"text": "red"}\n' * 9})
  for piece in cut_slices(plan.files, 300):
    progress = CountedProgress()
    reader = SliceReader(
      plan, EVERYTHING, piece, make_encoder().load_tokenizer(), RejectedFiles(plan.storage, "r", "x")
    )
    n = sum(len(from_ipc([block], block_schema(NO_COLUMNS))) for _, block in reader.blocks(progress))
    assert progress.counts["bytes_read"] == piece_bytes(plan.files[piece.file], piece) > 0
    record = reader.record()
    assert n == record.documents == progress.counts["documents_kept"]
    assert progress.counts["rows_read"] == record.documents + sum(record.rejected.values())


def test_tokens_are_spread_over_texts_that_have_none():
  tokens = make_encoder().load_tokenizer().tokenise(["red tree", "0 " * 20, "who"])
  found = spread(tokens, np.array([False, True, False, True, True, False]))
  assert found.lengths.tolist() == [0, 4, 0, 16, 3, 0] and found.offsets[0] == 0
  assert found.input_ids.tolist() == tokens.input_ids.tolist()
  assert found.truncated.tolist() == [False, False, False, True, False, False]
  assert found.n_unknown.tolist() == [0, 0, 0, 0, 1, 0]
  nothing = spread(make_encoder().load_tokenizer().tokenise([]), np.zeros(2, dtype=bool))
  assert nothing.offsets.tolist() == [0, 0, 0]


def test_known_texts_travel_without_tokens(tmp_path):
  """And are no less documents: what differs is the tokens, whatever else stands in the chunk."""
  plan = plan_files(tmp_path, FILES, bits=3)
  known = np.unique(digest_array([*TEXTS[3:30], "of yesterday"]))
  wave = replace(EVERYTHING, known=write_known(plan.storage, f"{plan.folder}/known", "w", known))
  blocks, records = read_wave(plan, wave)
  plain_blocks, plain_records = read_wave(plan, EVERYTHING)
  assert [(r.documents, r.rejected) for r in records] == [(r.documents, r.rejected) for r in plain_records]
  for bucket, plain in plain_blocks.items():
    table = blocks[bucket]
    assert table.drop_columns(["input_ids", "n_tokens"]).equals(plain.drop_columns(["input_ids", "n_tokens"]))
    for text, ids, plain_ids in zip(
      from_arrow(table["text_digest"]), table["input_ids"].to_pylist(), plain["input_ids"].to_pylist(), strict=True
    ):
      assert ids == ([] if text in known else plain_ids)


def test_blocks_leave_before_the_slice_ends(tmp_path, monkeypatch):
  monkeypatch.setattr(read_documents, "_CHUNK_ROWS", 10)
  monkeypatch.setattr(read_documents, "_BUFFER_BYTES", 1000)
  plan = plan_files(tmp_path, FILES)
  [piece, *_] = cut_slices(plan.files)
  reader = make_reader(plan, piece)
  sizes = [len(from_ipc([block], block_schema(NO_COLUMNS))) for _, block in reader.blocks(CountedProgress())]
  assert len(sizes) > 1 and sum(sizes) == len(TEXTS) and max(sizes) < 40


@pytest.mark.parametrize("allow", [False, True])
def test_a_bad_file_fails_the_run_or_is_recorded(tmp_path, allow):
  plan = plan_files(tmp_path, FILES, options=ReadOptions(allow_bad_files=allow))
  (tmp_path / "in/b.txt").unlink()
  if not allow:
    with pytest.raises(InputFileError, match=r"^b\.txt is not there"):
      read_wave(plan, EVERYTHING)
    return
  _, records = read_wave(plan, EVERYTHING)
  assert [record.bad_file for record in records if record.file == 0] == [None] * (len(records) - 1)
  assert records[-1].bad_file.startswith("b.txt is not there") and records[-1].documents == 0


def test_read_documents_on_beam(tmp_path):
  """Through the engine: the same blocks and records, and columns that are kept."""
  options = ReadOptions(id_column="id", keep_columns=("lang",))
  lines = "\n".join(f'{{"id": "{i}", "text": "{text}", "lang": "l{i % 3}"}}' for i, text in enumerate(TEXTS))
  files = {"a.jsonl": lines.encode(), "b.jsonl": b'{"id": "x", "text": null}'}
  plan = plan_files(tmp_path, files, options=options, bits=2)
  object.__setattr__(plan, "kept", keep_schema(plan.files, options))

  def check_blocks(found):
    table = pa.concat_tables([from_ipc([block], block_schema(plan.kept)) for _, block in found])
    rows = {row["doc_id"]: (row["text_digest"], row["lang"]) for row in table.to_pylist()}
    assert rows == {str(i): (digest(text), f"l{i % 3}") for i, text in enumerate(TEXTS)} and len(table) == 60

  def check_records(found):
    assert sum(record.documents for record in found) == 60
    assert sum((Counter(record.rejected) for record in found), Counter()) == {"null": 1}

  with local_pipeline() as p:
    slices = p | beam.Create(list(cut_slices(plan.files, 700)))
    read = slices | ReadDocuments(plan, EVERYTHING, make_encoder().load_tokenizer)
    assert_that(read.blocks, check_blocks, "Blocks")
    assert_that(read[RECORDS], check_records, "Records")


def test_nothing_is_read_for_a_run_that_is_finished(tmp_path):
  """An engine that lost the answer tries again what had come to its end."""
  plan = plan_files(tmp_path, {"a.txt": b"red\ngreen\n"})

  def read():
    with local_pipeline() as p:
      read = (
        p | beam.Create(list(cut_slices(plan.files))) | ReadDocuments(plan, EVERYTHING, make_encoder().load_tokenizer)
      )
      _ = read[RECORDS] | beam.Map(lambda record: (tmp_path / "read").write_text(str(record.documents)))

  plan.storage.create(f"{plan.folder}/manifest.json", b"{}")
  read()
  assert not (tmp_path / "read").exists()
  plan.storage.remove(f"{plan.folder}/manifest.json")
  read()
  assert (tmp_path / "read").read_text() == "2"


def test_waves_hold_their_buckets():
  buckets = np.arange(10)
  assert buckets[Wave(1, 3, 6).holds(buckets)].tolist() == [3, 4, 5]
  assert Wave(0, 0, 1).records_rejects and not Wave(1, 1, 2).records_rejects
