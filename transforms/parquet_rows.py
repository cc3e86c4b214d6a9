"""Parquet input: what its footer promises, and its rows in bounded batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from transforms import rejected
from transforms.errors import InputFileError, SorbusError, UsageError
from transforms.input_columns import check_columns
from transforms.input_source import REMEDY, InputSource
from transforms.input_types import InputFile, ReadOptions, RowGroup, Slice
from transforms.rejected import RejectedDocument
from transforms.row_maker import BadDocument, Row, RowMaker, check_length, json_text

T = TypeVar("T")

BATCH_BYTES: Final = 8 << 20
# Few, as the footer tells no bound of what rows decode to: a dictionary holds a text once, however often it occurs.
MAX_BATCH_ROWS: Final = 64


def with_footer(file: InputFile, options: ReadOptions, *, sleep: Callable[[float], object] = time.sleep) -> InputFile:
  """Return the listed file with what its footer says.

  Raises:
    InputFileError: if there is no readable footer.
    UsageError: if a column is missing or of a type that cannot be used.
  """
  source = InputSource(file, options.storage, sleep=sleep)
  try:
    table = _undamaged(file, lambda: _open(source))
  finally:
    source.close()
  _check_schema(file, options, table.schema_arrow)
  groups = tuple(_row_group(table.metadata.row_group(i), options) for i in range(table.num_row_groups))
  kept = tuple(kept_type(table.schema_arrow.field(column).type) for column in options.keep_columns)
  return replace(file, text_bytes=sum(group.text_bytes for group in groups), row_groups=groups, kept_types=kept)


def _row_group(group: Any, options: ReadOptions) -> RowGroup:
  chunks = [group.column(i) for i in range(group.num_columns)]
  n_bytes = sum(c.total_uncompressed_size for c in chunks if _is_read(c.path_in_schema, options))
  return RowGroup(group.num_rows, n_bytes)


def _is_read(path: str, options: ReadOptions) -> bool:
  return any(path == column or path.startswith(f"{column}.") for column in options.columns)  # fields of a nested one


def _check_schema(file: InputFile, options: ReadOptions, schema: pa.Schema) -> None:
  check_columns(file, schema.names, options)
  for column in options.text_columns:
    kind = schema.field(column).type
    if not _is_string(kind):
      raise UsageError(f"column {column!r} of {file.name} is {kind}: a text column must be of strings")
  if options.id_column is not None:
    kind = schema.field(options.id_column).type
    if not (_is_string(kind) or pt.is_integer(kind)):
      raise UsageError(f"column {options.id_column!r} of {file.name} is {kind}: ids must be strings or integers")
  for column in options.keep_columns:
    kind = schema.field(column).type
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind):
      raise UsageError(f"column {column!r} of {file.name} is {kind}: bytes cannot be kept, leave it out")


def _is_string(kind: pa.DataType) -> bool:
  if pt.is_dictionary(kind):
    kind = kind.value_type
  return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)


def kept_type(kind: pa.DataType) -> pa.DataType:
  """Return the type in which a Parquet column is carried: plain ones as they are, all others as JSON in a string.

  Nanoseconds become microseconds, the finest that Python's own date and time types can carry.
  """
  if pt.is_timestamp(kind) and kind.unit == "ns":
    return pa.timestamp("us", kind.tz)
  if pt.is_time64(kind):
    return pa.time64("us")
  plain = (pt.is_boolean, pt.is_integer, pt.is_floating, pt.is_decimal, pt.is_date, pt.is_time, pt.is_timestamp)
  return kind if any(is_kind(kind) for is_kind in plain) else pa.string()


def parquet_rows(
  source: InputSource, piece: Slice, options: ReadOptions, kept: pa.Schema | None, maker: RowMaker
) -> Iterator[Row | RejectedDocument]:
  """Yield the documents of the slice's row groups; only the columns needed are read.

  Raises:
    InputFileError: if the file is damaged.
  """
  file = source.file
  table = _undamaged(file, lambda: _open(source))
  _check_schema(file, options, table.schema_arrow)  # the footer of a listed file; one that was damaged then may not be
  end = table.num_row_groups if piece.end is None else piece.end
  position = sum(table.metadata.row_group(i).num_rows for i in range(piece.begin))
  types = (
    kept.types if kept is not None else [kept_type(table.schema_arrow.field(c).type) for c in options.keep_columns]
  )
  batches = table.iter_batches(
    _batch_rows(table, options, range(piece.begin, end)),
    row_groups=list(range(piece.begin, end)),
    columns=list(options.columns),
    use_threads=False,
  )
  while (batch := _undamaged(file, lambda: next(batches, None))) is not None:
    for part in bounded(batch):
      yield from _undamaged(file, partial(_rows, part, position, options, types, maker))
      position += part.num_rows


def _open(source: InputSource) -> Any:
  # A buffer size makes pyarrow read column chunks in pieces; without one it holds whole chunks.
  return pq.ParquetFile(pa.PythonFile(source, mode="r"), buffer_size=1 << 20, pre_buffer=False)


def _batch_rows(table: Any, options: ReadOptions, groups: range) -> int:
  sizes = [_row_group(table.metadata.row_group(i), options) for i in groups]
  mean_bytes = sum(size.text_bytes for size in sizes) // max(1, sum(size.rows for size in sizes))
  return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // max(1, mean_bytes)))


def bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
  """Cut a batch by its decoded bytes, as Python's copy of them comes on top."""
  n_rows = max(1, batch.num_rows * BATCH_BYTES // max(1, batch.nbytes))
  for start in range(0, batch.num_rows, n_rows):
    yield batch.slice(start, n_rows)


def _undamaged(file: InputFile, action: Callable[[], T]) -> T:
  try:
    return action()
  except SorbusError:
    raise
  except (pa.ArrowException, OSError) as error:  # errors of storage are InputFileErrors by now
    problem = " ".join(f"{error}".split())
    raise InputFileError(f"{file.name} is a damaged Parquet file ({problem}): {REMEDY}") from error


def _rows(
  batch: pa.RecordBatch, position: int, options: ReadOptions, types: list[pa.DataType], maker: RowMaker
) -> list[Row | RejectedDocument]:
  texts = zip(*(_strings(batch.column(column)) for column in options.text_columns), strict=True)
  ids = _values(batch.column(options.id_column)) if options.id_column is not None else [None] * batch.num_rows
  columns = [
    _kept(batch.column(column), kind, column) for column, kind in zip(options.keep_columns, types, strict=True)
  ]
  kept = zip(*columns, strict=True) if columns else iter([()] * batch.num_rows)
  return [
    _row(maker, position + i, doc_id, list(text), values)
    for i, (doc_id, text, values) in enumerate(zip(ids, texts, kept, strict=True))
  ]


def _row(
  maker: RowMaker, position: int, doc_id: Any, texts: list[Any], kept: tuple[Any, ...]
) -> Row | RejectedDocument:
  raw = next((text for text in texts if text), None)
  try:
    check_length(max(len(text) if text else 0 for text in texts))
  except BadDocument as bad:
    return maker.rejected(position, bad, raw)
  return maker.row(position, doc_id, texts, kept, raw)


def _values(column: pa.Array) -> list[Any]:
  return _strings(column) if _is_string(column.type) else column.to_pylist()


def _strings(column: pa.Array) -> list[Any]:
  """Return str, None, or bytes where a value is not UTF-8: Parquet's writers need not check."""
  if pt.is_dictionary(column.type):
    column = column.dictionary_decode()
  try:
    return column.to_pylist()
  except UnicodeDecodeError:
    return [_text_or_bytes(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _text_or_bytes(value: bytes | None) -> str | bytes | None:
  try:
    return None if value is None else value.decode("utf-8")
  except UnicodeDecodeError:
    return value


def _kept(column: pa.Array, kind: pa.DataType, name: str) -> list[Any]:
  if _is_string(column.type):
    return _strings(column)
  if pt.is_string(kind) and kept_type(column.type) == kind:  # lists, structs and the like
    return [_nested(value, name) for value in column]
  if pt.is_string(kind) and pt.is_timestamp(column.type) and column.type.tz:
    column = column.cast(pa.timestamp(column.type.unit, "UTC"))  # zones may have names that nobody knows
  column = column.cast(kind, safe=False)
  if pt.is_temporal(kind):
    column = column.view(pa.int32() if kind.bit_width == 32 else pa.int64())
  return column.to_pylist()


def _nested(value: Any, name: str) -> str | bytes | BadDocument | None:
  try:
    return json_text(value.as_py())
  except UnicodeDecodeError as error:
    return error.object
  except (OverflowError, LookupError, ValueError) as error:  # a time that Python has no date or no zone for
    return BadDocument(rejected.INVALID_JSON, f"column {name!r} cannot be kept: {error}")
