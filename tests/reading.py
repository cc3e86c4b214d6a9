"""Read input files in tests: what comes out as rows, and what is rejected."""

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.input_files import ReadOptions, cut_slices, keep_schema, list_files
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


def write_parquet(path, row_group_size=2, **columns):
  pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
