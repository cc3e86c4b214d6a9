"""One document as it was read, and the rules by which values become one or are rejected."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from transforms import rejected
from transforms.input_types import InputFile, ReadOptions
from transforms.lines import MAX_LINE_BYTES
from transforms.rejected import RejectedDocument, shown


class Row(NamedTuple):
  """One document.

  Attributes:
    position: byte offset of its (first) line in the decompressed bytes, or its row number in a Parquet file.
    doc_id: from the id column, or `name#position`.
    text: the text columns, joined by line breaks.
    kept: the kept columns' values: str or None; of Parquet, Python values of the kept schema's types, but dates and
      times as the integers that Arrow has for them, since Python's own end with the year 9999.
  """

  position: int
  doc_id: str
  text: str
  kept: tuple[Any, ...] = ()


Raw = bytes | str | None


class _Missing:
  def __repr__(self) -> str:
    return "MISSING"


# Stands for the value of a column that the record does not have; None is a null that is there.
MISSING: Final = _Missing()


class BadDocument(Exception):  # noqa: N818  (it is a verdict on data, caught where the document's place is known)
  """Says why a document is rejected."""

  def __init__(self, reason: str, detail: str = "") -> None:
    super().__init__(reason, detail)
    self.reason = reason
    self.detail = detail


class RowMaker:
  """Makes rows of one file from values by column."""

  def __init__(self, file: InputFile, options: ReadOptions) -> None:
    self._name = file.name
    self._encoding = options.encoding
    self._text_columns = options.text_columns
    self._id_column = options.id_column
    self._keep_columns = options.keep_columns

  def row(
    self, position: int, doc_id: object, texts: list[Any], kept: Iterable[Any], raw: Raw
  ) -> Row | RejectedDocument:
    """Return the document, or say why it is none.

    Args:
      position: as in `Row`.
      doc_id: the id column's value; ignored if there is no id column.
      texts: the text columns' values, in order.
      kept: the kept columns' values, in order, as they shall be; a BadDocument for one that cannot be.
      raw: what the values were taken from, to be shown if there is no text to show.
    """
    known_id = f"{self._name}#{position}"
    try:
      if self._id_column is not None:
        known_id = _id(doc_id, self._id_column)
      text = self._text(texts)
      raw = text
      _check_text(text)
      return Row(position, known_id, text, self._kept(kept))
    except BadDocument as bad:
      return self._rejected(position, known_id, bad, raw)

  def rejected(self, position: int, bad: BadDocument, raw: Raw) -> RejectedDocument:
    """Return a rejected document whose values are not known."""
    return self._rejected(position, f"{self._name}#{position}", bad, raw)

  def _rejected(self, position: int, doc_id: str, bad: BadDocument, raw: Raw) -> RejectedDocument:
    return RejectedDocument(doc_id, self._name, position, bad.reason, bad.detail, shown(raw, self._encoding))

  def _text(self, values: list[Any]) -> str:
    for column, value in zip(self._text_columns, values, strict=True):
      if type(value) is not str:
        raise _not_a_string(value, column)
    return values[0] if len(values) == 1 else "\n".join(values)

  def _kept(self, values: Iterable[Any]) -> tuple[Any, ...]:
    kept = tuple(values)
    for column, value in zip(self._keep_columns, kept, strict=True):
      if type(value) is str:
        _check_surrogates(value, column)
      elif value is MISSING or type(value) is bytes:
        raise _not_a_string(value, column)
      elif isinstance(value, BadDocument):
        raise value
    return kept


def _id(value: object, column: str) -> str:
  if type(value) is int:  # a bool is no id
    return str(value)
  if type(value) is not str:
    raise _not_a_string(value, column)
  if not value:
    raise BadDocument(rejected.EMPTY_ID, f"column {column!r}")
  if "\0" in value:
    raise BadDocument(rejected.NUL_CHARACTER, f"column {column!r}, character {value.index(chr(0))}")
  _check_surrogates(value, column)
  return value


def _check_text(text: str) -> None:
  if "\0" in text:
    raise BadDocument(rejected.NUL_CHARACTER, f"character {text.index(chr(0))}")
  if not text.isascii():
    _check_surrogates(text)


def _check_surrogates(value: str, column: str = "") -> None:
  try:
    value.encode("utf-8")
  except UnicodeEncodeError as error:
    where = f"column {column!r}, " if column else ""
    detail = f"{where}character {error.start}: U+{ord(value[error.start]):04X}"
    raise BadDocument(rejected.LONE_SURROGATE, detail) from None


def _not_a_string(value: object, column: str) -> BadDocument:
  if value is MISSING:
    return BadDocument(rejected.MISSING_COLUMN, f"column {column!r}")
  if value is None:
    return BadDocument(rejected.NULL, f"column {column!r}")
  if isinstance(value, bytes):
    return invalid_bytes(value, "utf-8", f"column {column!r}, ")
  return BadDocument(rejected.NOT_A_STRING, f"column {column!r} is {type(value).__name__}")


def invalid_bytes(raw: bytes, encoding: str, where: str = "") -> BadDocument:
  """Say which of the bytes are not text in `encoding`."""
  try:
    raw.decode(encoding)
  except UnicodeDecodeError as error:
    start, end = error.start, min(error.end, error.start + 8)
    return BadDocument(rejected.INVALID_BYTES, f"{where}byte {start}: {raw[start:end].hex(' ')} is not {encoding}")
  raise AssertionError(raw[:100])


def check_length(n_bytes: int) -> None:
  """Reject what is over the bound."""
  if n_bytes > MAX_LINE_BYTES:
    raise BadDocument(rejected.DOCUMENT_TOO_LONG, f"over {MAX_LINE_BYTES} bytes")


def json_text(value: object) -> str | None:
  """Return a kept value as text: a string as it is, null as None, anything else as JSON."""
  if value is None or isinstance(value, str):
    return value
  return json.dumps(value, ensure_ascii=False, default=str)
