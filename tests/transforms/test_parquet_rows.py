import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from tests.reading import read_all, read_bytes, verdicts, write_parquet
from transforms.errors import InputFileError
from transforms.input_files import ReadOptions, Slice, list_files
from transforms.rejected import RejectedDocument
from transforms.rows import Row, read_slice


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


def test_a_damaged_parquet_file(tmp_path):
  write_parquet(tmp_path / "good.parquet", 1000, text=[f"text {i}" for i in range(1000)])
  data = bytearray((tmp_path / "good.parquet").read_bytes())
  data[100:2000] = bytes(1900)
  with pytest.raises(InputFileError, match=r"^a\.parquet is a damaged Parquet file .*--allow-bad-files"):
    read_bytes(tmp_path, "a.parquet", bytes(data))
