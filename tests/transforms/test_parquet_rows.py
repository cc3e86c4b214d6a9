import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from tests.reading import read_all, read_bytes, verdicts, write_parquet
from transforms.errors import InputFileError
from transforms.input_files import ReadOptions, Slice, keep_schema, list_files
from transforms.parquet_rows import bounded
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


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_a_text_that_the_file_has_once_is_not_read_a_thousand_times_at_once(tmp_path, kind):
  texts = pa.array(["x" * 500_000] * 1000, kind)
  write_parquet(tmp_path / "a.parquet", 1000, text=texts, html=texts)
  assert (tmp_path / "a.parquet").stat().st_size < 200_000
  options = ReadOptions(keep_columns=("html",))
  files = list_files([f"{tmp_path}/a.parquet"], options)
  before = pa.total_allocated_bytes()
  tracemalloc.start()
  arrow_bytes = [pa.total_allocated_bytes() - before for _ in read_slice(files[0], 0, Slice(0, 0, 1), options)]
  python_peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert len(arrow_bytes) == 1000
  assert max(arrow_bytes) < 200 << 20 and python_peak < 100 << 20  # of 1 GB


def test_a_batch_is_copied_to_python_in_pieces(tmp_path):
  batch = pa.record_batch({"text": ["x" * 1_000_000] * 20})
  parts = list(bounded(batch))
  assert [part.num_rows for part in parts] == [8, 8, 4]
  assert pa.Table.from_batches(parts).equals(pa.Table.from_batches([batch]))
  assert list(bounded(batch.slice(0, 0))) == []
  assert [part.num_rows for part in bounded(pa.record_batch({"text": ["x" * (9 << 20)] * 2}))] == [1, 1]


def test_all_columns_that_are_read_count_as_bytes(tmp_path):
  words = [f"{i:05d}" for i in range(100)]
  html, tags = ([f"{word} {'x' * 10_000}" for word in words], [[{"tag": "y" * 10_000 + word}] for word in words])
  write_parquet(tmp_path / "a.parquet", 100, text=words, html=html, tags=tags, unused=html)
  for keep, least in (((), 500), (("html",), 1_000_000), (("html", "tags"), 2_000_000)):
    file = list_files([f"{tmp_path}/a.parquet"], ReadOptions(keep_columns=keep))[0]
    assert least < file.text_bytes < least + 200_000, keep
    assert file.text_bytes == sum(group.text_bytes for group in file.row_groups)


# Each beyond the year 9999, or in a zone of no such name: Python has no value for it.
FAR = {
  "zoned": pa.array([253_402_300_799_999_999 + 1], pa.timestamp("us", "Asia/Tokyo")),
  "last": pa.array([253_402_300_799_000_000], pa.timestamp("us", "Asia/Tokyo")),  # beyond it in Tokyo
  "unknown": pa.array([1], pa.timestamp("ms", "Nowhere/Land")),
  "seconds": pa.array([10**13], pa.timestamp("s")),
  "past": pa.array([-(10**12)], pa.timestamp("s")),
  "day": pa.array([3_000_000], pa.date32()),
  "day64": pa.array([86_400_000 * 3_000_000], pa.date64()),
  "ns": pa.array([1_500], pa.timestamp("ns", "UTC")),
  "time": pa.array([5], pa.time32("ms")),
  "time_ns": pa.array([5_000], pa.time64("ns")),
}


@pytest.mark.parametrize("name", FAR)
def test_kept_times_arrive_as_they_are(tmp_path, name):
  write_parquet(
    tmp_path / "a.parquet", text=["x", "y"], when=pa.concat_arrays([FAR[name], pa.nulls(1, FAR[name].type)])
  )
  options = ReadOptions(keep_columns=("when",))
  files = list_files([f"{tmp_path}/a.parquet"], options)
  kind = keep_schema(files, options).field("when").type
  values = pa.array([row.kept[0] for row in read_all(files, options)], kind)
  assert values.equals(pa.concat_arrays([FAR[name].cast(kind, safe=False), pa.nulls(1, kind)]))


@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("zoned", "10000-01-01 00:00:00.000000Z"),
    ("last", "9999-12-31 23:59:59.000000Z"),
    ("unknown", "1970-01-01 00:00:00.001Z"),
    ("day", "10183-09-21"),
    ("time", "00:00:00.005"),
  ],
)
def test_kept_times_among_other_files_become_strings(tmp_path, name, text):
  write_parquet(tmp_path / "a.parquet", text=["x"], when=FAR[name])
  (tmp_path / "b.jsonl").write_text('{"text": "y", "when": null}\n')
  options = ReadOptions(keep_columns=("when",))
  assert [row.kept for row in read_all(list_files([f"{tmp_path}/*"], options), options)] == [(text,), (None,)]


@pytest.mark.parametrize("name", ["zoned", "last", "unknown", "day"])
def test_a_nested_time_that_json_cannot_say_costs_one_row(tmp_path, name):
  good = pa.array([0], FAR[name].type) if name != "unknown" else pa.nulls(1, FAR[name].type)
  items = pa.ListArray.from_arrays([0, 1, 2], pa.concat_arrays([FAR[name], good]))
  write_parquet(tmp_path / "a.parquet", text=["x", "y"], times=items)
  options = ReadOptions(keep_columns=("times",))
  bad, row = read_all(list_files([f"{tmp_path}/a.parquet"], options), options)
  assert (bad.doc_id, bad.reason, bad.text) == ("a.parquet#0", "invalid JSON", "x")
  assert bad.detail.startswith("column 'times' cannot be kept: ")
  assert row.text == "y"
