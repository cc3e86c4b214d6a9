import bz2
import gzip
import json
from collections import Counter

import pyarrow as pa
import pytest

from tests.bad_corpus import write_bad_corpus
from tests.reading import no_sleep, read_all, read_bytes, reasons, verdicts
from transforms.errors import InputFileError
from transforms.input_files import ReadOptions, Slice, list_files
from transforms.rejected import RejectedDocument
from transforms.rows import Row, read_slice

# --- text


def test_text(tmp_path):
  rows = read_bytes(tmp_path, "a.txt", "\ufeffone\r\n\n中文\nlast".encode(), keep_columns=("text",))
  assert rows == [
    Row(0, "a.txt#0", "one", ("one",)),
    Row(8, "a.txt#8", "", ("",)),
    Row(9, "a.txt#9", "中文", ("中文",)),
    Row(16, "a.txt#16", "last", ("last",)),
  ]


def test_text_that_is_rejected(tmp_path):
  rows = read_bytes(tmp_path, "a.txt", b"good\nbad \xff\xfe\nnul \0\n\xed\xa0\x80\ngood")
  assert rows[1] == RejectedDocument(
    "a.txt#5", "a.txt", 5, "invalid bytes", "byte 4: ff is not utf-8", "bad \\xff\\xfe"
  )
  assert rows[2] == RejectedDocument("a.txt#12", "a.txt", 12, "NUL character", "character 4", "nul \0")
  assert reasons(rows) == [None, "invalid bytes", "NUL character", "invalid bytes", None]


def test_only_a_line_feed_ends_a_line(tmp_path):
  text = "a\rb\vc\fd\x1ce\x85f\u2028g\u2029h"
  assert verdicts(read_bytes(tmp_path, "a.txt", text.encode())) == [(0, text)]


def test_gb18030(tmp_path):
  data = "\ufeff第一\n𠀀第二\r\n".encode("gb18030") + b"\xff\n" + "第三".encode("gb18030")
  rows = read_bytes(tmp_path, "a.txt", data, encoding="gb18030")
  assert verdicts(rows) == [
    (0, "第一"),
    (9, "𠀀第二"),
    (19, "invalid bytes", "byte 0: ff is not gb18030"),
    (21, "第三"),
  ]
  row = {"id": "七", "text": '有"引号"'}
  lines = json.dumps(row, ensure_ascii=False).encode("gb18030")
  assert read_bytes(tmp_path, "a.jsonl", lines, encoding="gb18030", id_column="id") == [Row(0, "七", '有"引号"')]
  table = 'id,text\n七,"有,引""号"\n'.encode("gb18030")
  assert read_bytes(tmp_path, "a.csv", table, encoding="gb18030", id_column="id") == [Row(8, "七", '有,引"号')]


def test_a_long_line_comes_through_and_an_endless_one_does_not(tmp_path):
  data = b"x" * 5_000_000 + b"\n" + b"y" * (64 << 20) + b"y\nend"
  rows = read_bytes(tmp_path, "a.txt.gz", gzip.compress(data, 1))
  assert [len(row.text) for row in rows] == [5_000_000, 10_000, 3]
  assert verdicts(rows)[1] == (5_000_001, "document too long", "over 67108864 bytes")
  assert rows[2].doc_id == "a.txt.gz#72108867"


# --- JSON


@pytest.mark.parametrize(
  ("line", "reason", "detail"),
  [
    ('{"id": "i", "text": "cut in ha', "invalid JSON", "Unterminated string starting at: line 1 column 21 (char 20)"),
    ("[" * 100_000, "invalid JSON", "nested too deeply"),
    ("[1]", "not an object", "it is list"),
    ('"text"', "not an object", "it is str"),
    ('{"id": "i"}', "missing column", "column 'text'"),
    ('{"text": "t"}', "missing column", "column 'id'"),
    ('{"id": "i", "text": null}', "null", "column 'text'"),
    ('{"id": null, "text": "t"}', "null", "column 'id'"),
    ('{"id": "i", "text": 1.5}', "not a string", "column 'text' is float"),
    ('{"id": "i", "text": 7}', "not a string", "column 'text' is int"),
    ('{"id": "i", "text": ["a"]}', "not a string", "column 'text' is list"),
    ('{"id": true, "text": "t"}', "not a string", "column 'id' is bool"),
    ('{"id": 1.0, "text": "t"}', "not a string", "column 'id' is float"),
    ('{"id": "", "text": "t"}', "empty id", "column 'id'"),
    ('{"id": "i", "text": "a\\ud800b"}', "lone surrogate", "character 1: U+D800"),
    ('{"id": "\\udfff", "text": "t"}', "lone surrogate", "column 'id', character 0: U+DFFF"),
    ('{"id": "i", "text": "t", "kept": "\\ud800"}', "lone surrogate", "column 'kept', character 0: U+D800"),
    ('{"id": "i", "text": "t", "kept": ["\\ud800"]}', "lone surrogate", "column 'kept', character 2: U+D800"),
    ('{"id": "i", "text": "a\\u0000"}', "NUL character", "character 1"),
    ('{"id": "\\u0000", "text": "t"}', "NUL character", "column 'id', character 0"),
    ('{"id": 007, "text": "t"}', "invalid JSON", "Expecting ',' delimiter: line 1 column 9 (char 8)"),
    ('{"id": ' + "9" * 5000 + ', "text": "t"}', "invalid JSON", None),
  ],
)
def test_json_that_is_rejected(tmp_path, line, reason, detail):
  data = f'{{"id": "i", "text": "t", "kept": 1}}\n{line}\n'.encode()
  good, bad = read_bytes(tmp_path, "a.jsonl", data, id_column="id", keep_columns=("kept",))
  assert good == Row(0, "i", "t", ("1",))
  assert (bad.position, bad.reason) == (36, reason)
  assert detail is None or bad.detail == detail


def test_a_rejected_document_is_known_by_its_id_if_that_is_sound(tmp_path):
  data = b'{"id": "007", "text": null}\n{"id": "", "text": "t"}\n'
  rows = read_bytes(tmp_path, "a.jsonl", data, id_column="id")
  assert [(row.doc_id, row.text) for row in rows] == [
    ("007", '{"id": "007", "text": null}'),
    ("a.jsonl#28", '{"id": "", "text": "t"}'),
  ]


def test_json_values(tmp_path):
  lines = [
    '{"id": "007", "title": "Τ", "text": "x", "kept": {"a": [1, null]}}',
    "",
    '{"id": 7, "title": "\\ud83d\\ude00", "text": "y", "kept": "s"}',
    '{"id": 12345678901234567890123, "title": "", "text": "z"}',
  ]
  options = {"text_columns": ("title", "text"), "id_column": "id", "keep_columns": ("kept", "id")}
  rows = read_bytes(tmp_path, "a.jsonl", "\n".join(lines).encode(), **options)
  assert rows == [
    Row(0, "007", "Τ\nx", ('{"a": [1, null]}', "007")),
    Row(69, "7", "😀\ny", ("s", "7")),
    Row(130, "12345678901234567890123", "\nz", (None, "12345678901234567890123")),
  ]


# --- compression


def zstd(data):
  return pa.Codec("zstd").compress(data, asbytes=True)


COMPRESSIONS = [("gz", gzip.compress), ("bz2", bz2.compress), ("zst", zstd)]


@pytest.mark.parametrize(("ending", "compress"), COMPRESSIONS)
def test_concatenated_streams_are_read_to_the_end(tmp_path, ending, compress):
  lines = [f"line {i}" for i in range(5000)]
  data = "\n".join(lines).encode()
  stored = compress(data[:1000]) + compress(b"") + compress(data[1000:])
  rows = read_bytes(tmp_path, f"a.txt.{ending}", stored)
  assert [row.text for row in rows] == lines
  assert rows[-1].position == data.rindex(b"line")


@pytest.mark.parametrize(("ending", "compress"), COMPRESSIONS)
def test_compressed_data_that_ends_too_early(tmp_path, ending, compress):
  first, second = compress(b"first\n" * 50), compress(b"second\n" * 50)
  stored = first + second
  for n_bytes in [0, *range(1, len(first)), *range(len(first) + 1, len(stored))]:
    # One byte of a gzip header is not known to be one.
    problem = (
      "is damaged" if ending == "gz" and n_bytes in (1, len(first) + 1) else "ends in the middle of its compression"
    )
    with pytest.raises(InputFileError, match=rf"^a\.txt\.{ending} {problem}.*: mend it, or --allow-bad-files counts"):
      read_bytes(tmp_path, f"a.txt.{ending}", stored[:n_bytes])


@pytest.mark.parametrize(("ending", "compress"), COMPRESSIONS)
def test_compressed_data_that_is_damaged(tmp_path, ending, compress):
  for stored in (compress(b"first\n" * 50) + b"and then no stream", b"not compressed at all"):
    with pytest.raises(InputFileError, match=rf"^a\.txt\.{ending} is damaged \(.*--allow-bad-files"):
      read_bytes(tmp_path, f"a.txt.{ending}", stored)


# --- files that are not what was listed


def list_one(tmp_path, data=b"a\nb\nc\n", name="a.txt"):
  path = tmp_path / name
  path.write_bytes(data)
  return path, list_files([f"{path}"], ReadOptions())[0]


def test_a_file_that_changed_before_it_is_read(tmp_path):
  path, file = list_one(tmp_path)
  path.write_bytes(b"a\nb\nc\nd\n")
  with pytest.raises(InputFileError, match=r"^a\.txt changed since it was listed .*--allow-bad-files"):
    next(read_slice(file, 0, Slice(0), ReadOptions()))


def test_a_file_that_changes_while_it_is_read(tmp_path):
  path, file = list_one(tmp_path)
  rows = read_slice(file, 0, Slice(0), ReadOptions())
  next(rows)
  path.write_bytes(b"x\ny\nz\n" * 2)
  with pytest.raises(InputFileError, match=r"^a\.txt changed since it was listed"):
    list(rows)


def test_a_file_that_vanished(tmp_path):
  path, file = list_one(tmp_path)
  path.unlink()
  with pytest.raises(InputFileError, match=r"^a\.txt is not there: .*--allow-bad-files"):
    list(read_slice(file, 0, Slice(0), ReadOptions(), sleep=no_sleep))


def test_a_limit_ends_a_slice_early(tmp_path):
  _, file = list_one(tmp_path)
  assert verdicts(read_slice(file, 0, Slice(0, limit=2), ReadOptions())) == [(0, "a"), (2, "b")]


# --- everything at once


@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize("slice_bytes", [10_000, 64 << 20])
def test_every_bad_input_of_a_mixed_corpus_is_accounted_for(tmp_path, with_ids, slice_bytes):
  corpus = write_bad_corpus(tmp_path, with_ids=with_ids, too_long=slice_bytes > 10_000)
  rows = read_all(list_files(corpus.patterns, corpus.options), corpus.options, slice_bytes)
  found = Counter(row.reason for row in rows if isinstance(row, RejectedDocument))
  assert found == corpus.rejected_by_reading
  assert sum(isinstance(row, Row) for row in rows) == corpus.n_rows
  assert len(rows) == corpus.n_read
  places = [(row.doc_id.partition("#")[0], row.position, row.doc_id) for row in rows]
  assert len(set(places)) == len(rows)
