import bz2
import gzip
import io
import json
import tracemalloc
from collections import Counter
from typing import ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.bad_corpus import write_bad_corpus
from transforms.errors import InputFileError
from transforms.input_files import ReadOptions, Slice, cut_slices, keep_schema, list_files
from transforms.rejected import RejectedDocument
from transforms.rows import Row, read_slice


def read_all(files, options, slice_bytes=64 << 20):
  kept = keep_schema(files, options)
  return [
    row
    for piece in cut_slices(files, slice_bytes)
    for row in read_slice(files[piece.file], piece.file, piece, options, kept, sleep=no_sleep)
  ]


def no_sleep(seconds):
  raise AssertionError(seconds)


def read_bytes(folder, name, data, **options):
  """Read one file with these bytes."""
  (folder / name).write_bytes(data)
  options = ReadOptions(**options)
  return read_all(list_files([f"{folder / name}"], options, sleep=no_sleep), options)


def verdicts(rows):
  """A row as (position, text), a rejected document as (position, reason, detail)."""
  return [(r.position, r.text) if isinstance(r, Row) else (r.position, r.reason, r.detail) for r in rows]


def reasons(rows):
  return [row.reason if isinstance(row, RejectedDocument) else None for row in rows]


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


# --- CSV and TSV


def test_csv(tmp_path):
  data = '\ufeffid,text,lang\r\n1,"two\r\nlines, ""quoted""",en\r\n\r\n2,5" pipe,\r\n007,last,de'.encode()
  rows = read_bytes(tmp_path, "a.csv", data, id_column="id", keep_columns=("lang",))
  assert rows == [
    Row(17, "1", 'two\nlines, "quoted"', ("en",)),
    Row(50, "2", '5" pipe', ("",)),
    Row(62, "007", "last", ("de",)),
  ]


@pytest.mark.parametrize(
  ("broken", "detail"),
  [
    (b'2,"nobody closes this', "unexpected end of data"),
    (b'2,"closed" too early', "',' expected after '\"'"),
  ],
)
def test_a_broken_quote_costs_one_line(tmp_path, broken, detail):
  data = b"id,text\n1,a\n" + broken + b"\n3,c\n4,d\n"
  rows = read_bytes(tmp_path, "a.csv", data)
  assert verdicts(rows) == [
    (12, "unclosed quote", detail) if row[0] == 12 else row
    for row in [(8, "a"), (12, ""), (13 + len(broken), "c"), (17 + len(broken), "d")]
  ]


def test_an_unclosed_quote_before_quoted_records(tmp_path):
  rows = read_bytes(tmp_path, "a.csv", b'id,text\n1,"open\n2,"b"\n3,"c\nc"\n')
  assert [row.text for row in rows] == ['1,"open', "b", "c\nc"]
  assert reasons(rows) == ["unclosed quote", None, None]


def test_an_unclosed_quote_is_given_up_after_a_mebibyte(tmp_path):
  filler = b"5,filler line\n" * 100_000
  rows = read_bytes(tmp_path, "a.csv", b'id,text\n1,"open\n' + filler + b'6,"end"\n')
  assert rows[0].detail == "no closing quote in the next 1048576 bytes"
  assert len(rows) == 100_002 and rows[-1].text == "end"


def test_csv_that_is_rejected(tmp_path):
  data = b'id,text\n1,a,b\n2\n3,\xff\n4,"\xff\n\xfe"\n,e\n6,\0\n7,g\n'
  rows = read_bytes(tmp_path, "a.csv", data, id_column="id")
  assert verdicts(rows) == [
    (8, "wrong number of fields", "3 instead of 2"),
    (14, "wrong number of fields", "1 instead of 2"),
    (16, "invalid bytes", "byte 2: ff is not utf-8"),
    (20, "invalid bytes", "byte 3: ff is not utf-8"),
    (28, "empty id", "column 'id'"),
    (31, "NUL character", "character 0"),
    (35, "g"),
  ]
  assert rows[3].text == '4,"\\xff\n\\xfe"'


def test_tsv_has_no_quotes(tmp_path):
  data = b'id\ttext\n1\t"open\n2\tb "c" d\n3\tx\ty\n'
  rows = read_bytes(tmp_path, "a.tsv", data, id_column="id")
  assert verdicts(rows) == [(8, '"open'), (16, 'b "c" d'), (26, "wrong number of fields", "3 instead of 2")]


def test_without_a_header_columns_are_numbers(tmp_path):
  data = b'\xff,x\n1,"a"\n2,b,c\n3,d\n'
  rows = read_bytes(tmp_path, "a.csv", data, header=False, id_column="1", text_columns=("2",))
  assert verdicts(rows) == [
    (0, "invalid bytes", "byte 0: ff is not utf-8"),
    (4, "a"),
    (10, "wrong number of fields", "3 instead of 2"),
    (16, "d"),
  ]


def test_a_later_csv_file_without_the_column_is_rejected_row_by_row(tmp_path):
  (tmp_path / "a.csv").write_text("id,text\n1,a\n")
  (tmp_path / "b.csv").write_text("id,body\n2,b\n3,c\n")
  options = ReadOptions()
  rows = read_all(list_files([f"{tmp_path}/*.csv"], options), options)
  detail = "column 'text'; the file's are: id, body"
  assert verdicts(rows) == [(8, "a"), (8, "missing column", detail), (12, "missing column", detail)]


# --- Parquet


def write_parquet(path, row_group_size=2, **columns):
  pq.write_table(pa.table(columns), path, row_group_size=row_group_size)


def strings_of(values):
  """A string array of these bytes, valid or not: pyarrow does not look, as other writers do not."""
  return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path, kind):
  texts = pa.array(["a", None, "", "d\0", "e"], pa.string()).cast(kind)
  write_parquet(tmp_path / "a.parquet", text=texts, id=[7, 8, 9, 10, None], n=[1, 2, 3, 4, 5], unused=["x"] * 5)
  options = ReadOptions(id_column="id", keep_columns=("n", "text"))
  files = list_files([f"{tmp_path}/a.parquet"], options)
  assert [group.rows for group in files[0].row_groups] == [2, 2, 1]
  for slice_bytes in (1, 1 << 20):
    rows = read_all(files, options, slice_bytes)
    assert [row for row in rows if isinstance(row, Row)] == [Row(0, "7", "a", (1, "a")), Row(2, "9", "", (3, ""))]
    assert [(r.doc_id, r.reason) for r in rows if isinstance(r, RejectedDocument)] == [
      ("8", "null"),
      ("10", "NUL character"),
      ("a.parquet#4", "null"),
    ]


def test_parquet_strings_that_are_not_utf8_cost_one_row(tmp_path):
  values = strings_of([b"good", b"bad \xff", None, "é".encode()])
  write_parquet(tmp_path / "a.parquet", text=values, id=["a", "b", "c", "d"])
  options = ReadOptions(id_column="id")
  rows = read_all(list_files([f"{tmp_path}/a.parquet"], options), options)
  assert verdicts(rows) == [
    (0, "good"),
    (1, "invalid bytes", "column 'text', byte 4: ff is not utf-8"),
    (2, "null", "column 'text'"),
    (3, "é"),
  ]
  assert (rows[1].doc_id, rows[1].text) == ("b", "bad \\xff")


def test_kept_columns_of_parquet_among_other_files_become_strings(tmp_path):
  write_parquet(tmp_path / "a.parquet", text=["x", "y"], n=[1, None], tags=[["a", "é"], None])
  (tmp_path / "b.jsonl").write_text('{"text": "z", "n": 2, "tags": ["b"]}\n')
  options = ReadOptions(keep_columns=("n", "tags"))
  rows = read_all(list_files([f"{tmp_path}/*"], options), options)
  assert [row.kept for row in rows] == [("1", '["a", "é"]'), (None, None), ("2", '["b"]')]


def test_a_parquet_file_is_read_in_bounded_batches(tmp_path):
  noise = np.random.default_rng(0)  # that no compression makes small
  write_parquet(tmp_path / "a.parquet", 100_000, text=[noise.bytes(600).hex() for _ in range(50_000)])
  options = ReadOptions()
  files = list_files([f"{tmp_path}/a.parquet"], options)
  before = pa.total_allocated_bytes()
  tracemalloc.start()
  peak = max(pa.total_allocated_bytes() - before for _ in read_slice(files[0], 0, Slice(0, 0, 1), options))
  python_peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 30 << 20 and python_peak < 20 << 20  # of 60 MB of text in one row group


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


def test_a_damaged_parquet_file(tmp_path):
  write_parquet(tmp_path / "good.parquet", 1000, text=[f"text {i}" for i in range(1000)])
  data = bytearray((tmp_path / "good.parquet").read_bytes())
  data[100:2000] = bytes(1900)
  with pytest.raises(InputFileError, match=r"^a\.parquet is a damaged Parquet file .*--allow-bad-files"):
    read_bytes(tmp_path, "a.parquet", bytes(data))


def test_a_limit_ends_a_slice_early(tmp_path):
  _, file = list_one(tmp_path)
  assert verdicts(read_slice(file, 0, Slice(0, limit=2), ReadOptions())) == [(0, "a"), (2, "b")]


# --- a file system that fails now and then


class FlakyFile(io.BytesIO):
  """Once it has failed, it stays broken, as a connection does."""

  is_broken = False

  def read(self, n=-1, /):
    if self.is_broken:
      raise ConnectionError("the connection is gone")
    self.is_broken = True
    FlakyFileSystem.fail()
    self.is_broken = False
    return super().read(min(n, 7))  # short reads, as sockets give them


class FlakyFileSystem(MemoryFileSystem):
  """Fails at each request for which `failures` has an exception."""

  protocol = "flaky"
  store: ClassVar[dict] = {}
  failures: ClassVar[list] = []

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(path.removeprefix("flaky:/"))

  @classmethod
  def fail(cls):
    error = cls.failures.pop(0) if cls.failures else None
    if error is not None:
      raise error

  def _open(self, path, mode="rb", **kwargs):
    self.fail()
    handle = super()._open(path, mode, **kwargs)
    return FlakyFile(handle.getvalue()) if mode == "rb" else handle


class ClientError(Exception):
  """Object stores' clients have classes of their own."""


@pytest.fixture
def flaky():
  fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
  FlakyFileSystem.store.clear()
  yield FlakyFileSystem
  FlakyFileSystem.failures = []


LINES = [f"line {i} of the file" for i in range(20)]
TRANSIENT = [OSError(5, "Input/output error"), TimeoutError("slow"), ConnectionResetError("reset"), ClientError("503")]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.parquet"])
@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_transient_errors_lose_and_repeat_nothing(flaky, tmp_path, name, error):
  data = "\n".join(LINES).encode()
  if name == "a.parquet":
    write_parquet(tmp_path / name, 5, text=LINES)
    data = (tmp_path / name).read_bytes()
  fsspec.filesystem("flaky").pipe(f"/in/{name}", gzip.compress(data) if name.endswith("gz") else data)
  options = ReadOptions()
  files = list_files([f"flaky://in/{name}"], options)
  pauses = []
  for n_good in range(0, 40, 3):
    flaky.failures = [None] * n_good + [error] * 3 + [None] * 2 + [error] * 3
    rows = [r for piece in cut_slices(files, 50) for r in read_slice(files[0], 0, piece, options, sleep=pauses.append)]
    assert [row.text for row in rows] == LINES
  assert set(pauses) == {1.0, 4.0, 16.0}


def test_an_error_that_stays_fails_the_file_and_no_row(flaky):
  fsspec.filesystem("flaky").pipe("/in/a.txt", b"a\nb\n")
  file = list_files(["flaky://in/a.txt"], ReadOptions())[0]
  flaky.failures = [OSError(5, "Input/output error")] * 4
  pauses = []
  with pytest.raises(InputFileError) as error:
    list(read_slice(file, 0, Slice(0), ReadOptions(), sleep=pauses.append))
  assert str(error.value) == (
    "a.txt cannot be read (OSError: [Errno 5] Input/output error): mend it, or --allow-bad-files counts such files and "
    "goes on"
  )
  assert pauses == [1.0, 4.0, 16.0]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), IsADirectoryError(21, "Is a directory")])
def test_a_permanent_error_is_not_tried_again(flaky, error):
  fsspec.filesystem("flaky").pipe("/in/a.txt", b"a\nb\n")
  file = list_files(["flaky://in/a.txt"], ReadOptions())[0]
  flaky.failures = [error]
  with pytest.raises(InputFileError, match=r"^a\.txt cannot be read \("):
    list(read_slice(file, 0, Slice(0), ReadOptions(), sleep=no_sleep))


def test_a_mistake_of_ours_is_not_taken_for_the_file_systems(flaky):
  fsspec.filesystem("flaky").pipe("/in/a.txt", b"a\nb\n")
  file = list_files(["flaky://in/a.txt"], ReadOptions())[0]
  flaky.failures = [TypeError("a bug")]
  with pytest.raises(TypeError, match="a bug"):
    list(read_slice(file, 0, Slice(0), ReadOptions(), sleep=no_sleep))


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
