"""Slices of input files become documents: every line exactly once, each as a row or as a rejected document."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from transforms import rejected
from transforms.csv_records import Record, read_records
from transforms.input_source import InputSource, decompressed
from transforms.input_types import InputFile, ReadOptions, Slice
from transforms.lines import MAX_LINE_BYTES, Lines, read_lines, without_byte_order_mark
from transforms.parquet_rows import parquet_rows
from transforms.rejected import RejectedDocument
from transforms.row_maker import MISSING, BadDocument, Row, RowMaker, check_length, invalid_bytes, json_text

__all__ = ["Row", "open_lines", "read_slice"]

Documents = Iterator[Row | RejectedDocument]


def read_slice(
  file: InputFile,
  index: int,
  piece: Slice,
  options: ReadOptions,
  kept: pa.Schema | None = None,
  *,
  sleep: Callable[[float], object] = time.sleep,
) -> Documents:
  """Yield the documents of one slice, in the order of their positions.

  Args:
    file: the slice's file.
    index: its index in the listing, which the slice names too.
    piece: which part of it.
    options: as in `list_files`.
    kept: from `keep_schema`, when Parquet files are read together with others; None: the file's own types.
    sleep: waits for some seconds before another try.

  Raises:
    InputFileError: if the file is not what was listed, is damaged, or cannot be read, also after rows were yielded.
  """
  assert piece.file == index, (piece, index)
  source = InputSource(file, options.storage, sleep=sleep)
  try:
    yield from islice(_documents(source, piece, options, kept), piece.limit)
    source.verify()
  finally:
    source.close()


def _documents(source: InputSource, piece: Slice, options: ReadOptions, kept: pa.Schema | None) -> Documents:
  maker = RowMaker(source.file, options)
  if source.file.format == "parquet":
    return parquet_rows(source, piece, options, kept, maker)
  lines = open_lines(source, piece, options)
  if source.file.format == "jsonl":
    return _jsonl_rows(lines, options, maker)
  if source.file.format == "text":
    return _text_rows(lines, source.file.name, options, maker)
  return _csv_rows(read_records(lines, options.encoding, source.file.format), options, maker)


def open_lines(source: InputSource, piece: Slice, options: ReadOptions) -> Lines:
  """Yield (offset, line) of the slice, decompressed, without a byte-order mark."""
  assert source.file.compression is None or not piece.begin, piece
  source.seek(max(0, piece.begin - 1))
  lines = read_lines(decompressed(source, source.file.compression), piece.begin, piece.end)
  return lines if piece.begin else without_byte_order_mark(lines, options.encoding)


def _text_rows(lines: Lines, name: str, options: ReadOptions, maker: RowMaker) -> Documents:
  encoding, n_kept = options.encoding, len(options.keep_columns)
  for position, line in lines:
    try:
      # The shortest way for the fastest format: a decoded line can only be too long or hold NUL.
      text = line.decode(encoding)
      if "\0" in text or len(line) > MAX_LINE_BYTES:
        yield _bad_line(position, line, options, maker)
      else:
        yield Row(position, f"{name}#{position}", text, (text,) * n_kept)
    except UnicodeDecodeError:
      yield _bad_line(position, line, options, maker)


def _bad_line(position: int, line: bytes, options: ReadOptions, maker: RowMaker) -> Row | RejectedDocument:
  try:
    text = _decoded(line, options.encoding)
  except BadDocument as bad:
    return maker.rejected(position, bad, line)
  return maker.row(position, None, [text], (text,) * len(options.keep_columns), line)


def _decoded(line: bytes, encoding: str) -> str:
  check_length(len(line))
  try:
    return line.decode(encoding)
  except UnicodeDecodeError:
    raise invalid_bytes(line, encoding) from None


def _jsonl_rows(lines: Lines, options: ReadOptions, maker: RowMaker) -> Documents:
  for position, line in lines:
    if not line or line.isspace():  # a blank line holds no document
      continue
    try:
      values = json_object(line, options.encoding)
      kept = [_json_kept(values.get(column)) for column in options.keep_columns]
    except BadDocument as bad:
      yield maker.rejected(position, bad, line)
    else:
      texts = [values.get(column, MISSING) for column in options.text_columns]
      yield maker.row(position, values.get(options.id_column, MISSING), texts, kept, line)


def json_object(line: bytes, encoding: str) -> dict[Any, Any]:
  """Parse a line.

  Raises:
    BadDocument: if it is not a JSON object.
  """
  text = _decoded(line, encoding)
  try:
    value = json.loads(text)
  except ValueError as error:  # also for integers of more than 4,300 digits
    raise BadDocument(rejected.INVALID_JSON, str(error)) from None
  except RecursionError:
    raise BadDocument(rejected.INVALID_JSON, "nested too deeply") from None
  if type(value) is not dict:
    raise BadDocument(rejected.NOT_AN_OBJECT, f"it is {type(value).__name__}")
  return value


def _json_kept(value: object) -> str | None:
  try:
    return json_text(value)
  except (RecursionError, ValueError) as error:
    raise BadDocument(rejected.INVALID_JSON, f"cannot be kept: {error}") from None


def _csv_rows(records: Iterator[Record], options: ReadOptions, maker: RowMaker) -> Documents:
  columns: dict[str, int] | None = None
  n_fields = 0
  for position, fields, raw in records:
    if columns is None and (options.header or not isinstance(fields, BadDocument)):
      names = csv_columns(fields, options)
      columns, n_fields = {name: i for i, name in enumerate(names)}, len(names)
      if options.header:
        continue
    try:
      values = _csv_values(fields, columns or {}, n_fields, options)
    except BadDocument as bad:
      yield maker.rejected(position, bad, raw)
    else:
      texts = [values[column] for column in options.text_columns]
      kept = [values[column] for column in options.keep_columns]
      yield maker.row(position, values.get(options.id_column), texts, kept, raw)


def csv_columns(first: list[str] | BadDocument, options: ReadOptions) -> list[str]:
  """Return the names of a file's columns, from its first record."""
  if isinstance(first, BadDocument):
    return []
  return first if options.header else [str(i + 1) for i in range(len(first))]


def _csv_values(
  fields: list[str] | BadDocument, columns: dict[str, int], n_fields: int, options: ReadOptions
) -> dict[str | None, str]:
  if isinstance(fields, BadDocument):
    raise fields
  for column in options.columns:
    if column not in columns:
      raise BadDocument(rejected.MISSING_COLUMN, f"column {column!r}; the file's are: {', '.join(columns)}")
  if len(fields) != n_fields:
    raise BadDocument(rejected.WRONG_NUMBER_OF_FIELDS, f"{len(fields)} instead of {n_fields}")
  return {column: fields[columns[column]] for column in options.columns}
