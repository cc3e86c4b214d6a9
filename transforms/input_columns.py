"""Whether an input has the columns that are asked for: a mistyped one would reject every document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from transforms.errors import UsageError
from transforms.input_types import InputFile, ReadOptions

# Where a header was forgotten, whole documents stand in the place of the names.
_SHOWN_COLUMNS: Final = 12
_SHOWN_CHARACTERS: Final = 30


def check_columns(file: InputFile, columns: Sequence[str], options: ReadOptions) -> None:
  """Check that every column asked for is there, once.

  Args:
    file: which one, for the message.
    columns: those that it has.
    options: those that are asked for.

  Raises:
    UsageError: one is missing, or there more than once.
  """
  for column in options.columns:
    if columns.count(column) != 1:
      problem, remedy = "has more than one column", "rename all but one of them"
      if column not in columns:
        problem, remedy = "has no column", _remedy(file, columns, _flag(column, options), options.header)
      raise UsageError(f"{file.name} {problem} {column!r}; its columns are: {_shown(columns)}; {remedy}")


def _flag(column: str, options: ReadOptions) -> str:
  if column in options.text_columns:
    return "--text-column"
  return "--id-column" if column == options.id_column else "--keep-columns"


def _remedy(file: InputFile, columns: Sequence[str], flag: str, header: bool) -> str:
  if file.format not in ("csv", "tsv"):
    return f"name it with {flag}"
  if not header:
    return f"name it by its number: {flag} {columns[0]}"
  return f"name it with {flag}, or give --no-header if its first line is a document already"


def _shown(columns: Sequence[str]) -> str:
  names = ", ".join(_shortened(column) for column in columns[:_SHOWN_COLUMNS])
  more = len(columns) - _SHOWN_COLUMNS
  return f"{names} and {more:,} more" if more > 0 else names


def _shortened(column: str) -> str:
  line = " ".join(column.split())  # a quoted name may go over several lines
  return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 1]}…"
