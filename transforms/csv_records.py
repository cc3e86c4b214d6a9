"""CSV and TSV records with the byte offset of their first line, such that one broken quote costs one line."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from transforms import rejected
from transforms.lines import MAX_LINE_BYTES, Lines
from transforms.row_maker import BadDocument, check_length, invalid_bytes

# How far the lines after a record's first are searched for the closing quote.
MAX_CONTINUED_BYTES: Final = 1 << 20

# The csv module stops at fields of 128 kB by default; the limit is one for the process, and harmless when high.
csv.field_size_limit(2 * MAX_LINE_BYTES)


class Record(NamedTuple):
  """One record: where it starts, its fields or why it has none, and its bytes (of a broken one, the first line's)."""

  position: int
  fields: list[str] | BadDocument
  raw: bytes


def read_records(lines: Lines, encoding: str, format: str) -> Iterator[Record]:
  """Yield the records of CSV (RFC 4180, quotes) or TSV (no quoting at all); blank lines hold none.

  A record that is not well formed, or whose quote is not closed within 1 MiB of further lines, is rejected as its first
  line alone: the line after it is read as a record again.
  """
  return _tsv_records(lines, encoding) if format == "tsv" else _CsvRecords(lines, encoding).records()


def _tsv_records(lines: Lines, encoding: str) -> Iterator[Record]:
  for position, line in lines:
    if line:
      yield Record(position, _fields(line, encoding, "\t"), line)


def _fields(line: bytes, encoding: str, delimiter: str) -> list[str] | BadDocument:
  try:
    check_length(len(line))
    return line.decode(encoding).split(delimiter)
  except UnicodeDecodeError:
    return invalid_bytes(line, encoding)
  except BadDocument as bad:
    return bad


class _CsvRecords:
  def __init__(self, lines: Lines, encoding: str) -> None:
    self._lines = lines
    self._encoding = encoding
    self._again: deque[tuple[int, bytes]] = deque()  # lines that a broken record had swallowed

  def records(self) -> Iterator[Record]:
    while (first := self._next_line()) is not None:
      position, line = first
      if b'"' in line and len(line) <= MAX_LINE_BYTES:
        yield self._quoted_record(position, line)
      elif line:
        yield Record(position, _fields(line, self._encoding, ","), line)

  def _next_line(self) -> tuple[int, bytes] | None:
    return self._again.popleft() if self._again else next(self._lines, None)

  def _quoted_record(self, position: int, first: bytes) -> Record:
    taken: list[tuple[int, bytes]] = []
    try:
      fields = next(csv.reader(self._texts(first, taken), strict=True))
    except csv.Error as error:
      self._again.extendleft(reversed(taken))
      return Record(position, BadDocument(rejected.UNCLOSED_QUOTE, str(error)), first)
    raw = b"\n".join([first, *(line for _, line in taken)])
    # Bytes without meaning came through as lone surrogates: they must not hide where the record ends.
    is_text = all(field.isascii() or _is_encodable(field) for field in fields)
    return Record(position, fields if is_text else invalid_bytes(raw, self._encoding), raw)

  def _texts(self, first: bytes, taken: list[tuple[int, bytes]]) -> Iterator[str]:
    """Yield the record's first line, then as many more as the parser asks for, up to the bound."""
    yield self._decoded(first)
    n_bytes = 0
    while (line := self._next_line()) is not None:
      taken.append(line)
      n_bytes += len(line[1]) + 1
      if n_bytes > MAX_CONTINUED_BYTES:
        raise csv.Error(f"no closing quote in the next {MAX_CONTINUED_BYTES} bytes")
      yield self._decoded(line[1])

  def _decoded(self, line: bytes) -> str:
    # The parser takes a bare carriage return for a line break, and the line break for the end of an unquoted field.
    return line.decode(self._encoding, "surrogateescape") + "\n"


def _is_encodable(field: str) -> bool:
  try:
    field.encode("utf-8")
  except UnicodeEncodeError:
    return False
  return True
