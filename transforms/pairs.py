"""Pairs of texts with a score, as test sets of sentence similarity come: STS-B, duplicate questions, one's own."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from transforms.csv_records import read_records
from transforms.errors import UsageError
from transforms.input_files import list_files
from transforms.input_source import InputSource
from transforms.input_types import ReadOptions, Slice
from transforms.lines import Lines
from transforms.row_maker import BadDocument
from transforms.rows import json_object, open_lines

# Of a file with more columns than three, or in JSONL, unless others are named.
COLUMNS: Final = ("sentence1", "sentence2", "score")
PairFormat = Literal["csv", "tsv", "jsonl"]
_FORMATS: Final[dict[str, PairFormat]] = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
# Lines as they are, of whatever format: no column is looked for while the file is found.
_LINES: Final = ReadOptions(format="text")


@dataclass(frozen=True, eq=False)
class Pairs:
  """P pairs of texts.

  Attributes:
    name: of the file.
    first, second: the texts, P each.
    scores: float64 [P], larger for what is more similar.
  """

  name: str
  first: tuple[str, ...]
  second: tuple[str, ...]
  scores: NDArray[np.float64]

  def __len__(self) -> int:
    return len(self.scores)

  @property
  def are_binary(self) -> bool:
    """Whether every score is 0 or 1 and both occur: labels, such as duplicate or not."""
    return set(np.unique(self.scores)) == {0.0, 1.0}

  def select(self, rows: NDArray[Any]) -> "Pairs":
    """Returns the pairs at `rows`: indices, or bool [P]."""
    chosen = np.arange(len(self))[rows].tolist()
    first, second = (tuple(column[i] for i in chosen) for column in (self.first, self.second))
    return Pairs(self.name, first, second, self.scores[chosen])


def read_pairs(path: str, columns: Sequence[str] | None = None, format: PairFormat | None = None) -> Pairs:
  """Reads pairs from CSV, TSV (no quotes) or JSONL, also compressed; `path` is a file or any fsspec URL.

  A CSV or TSV file has no header if the last field of its first line is a number, or if `columns` are numbers.

  Args:
    path: one file; its ending tells the format.
    columns: of first text, second text and score: names, or 1, 2, 3 … where there is no header. By default the columns
      of a file with three, the first two and the last of one without header, else `COLUMNS`.
    format: where the ending does not tell.

  Raises:
    UsageError: no such file or column, a line that is no pair, a score that is no number, or no pair at all.
  """
  found = list_files([path], _LINES)
  if len(found) != 1:
    raise UsageError(f"--pairs {path}: {len(found)} files; name one")
  kind = format or _format(found[0].name)
  source = InputSource(replace(found[0], format=kind), {})
  try:
    lines = open_lines(source, Slice(0), _LINES)
    triples = _json_triples(lines, columns or COLUMNS) if kind == "jsonl" else _triples(lines, kind, columns)
    return _as_pairs(path, triples)
  except _BadLine as bad:
    raise UsageError(f"{path}, line {bad.line}: {bad.problem}") from None
  finally:
    source.close()


class _BadLine(Exception):  # noqa: N818  (caught where the file's name is known)
  def __init__(self, line: int, problem: str) -> None:
    super().__init__(line, problem)
    self.line, self.problem = line, problem


# The line, first and second text, and the score as it stands there.
_Triple = tuple[int, Any, Any, Any]


def _format(name: str) -> PairFormat:
  endings = [ending.lower() for ending in PurePosixPath(name).suffixes]
  for ending in reversed(endings):  # before one of .gz, .bz2, .zst
    if ending in _FORMATS:
      return _FORMATS[ending]
  raise UsageError(f"--pairs {name}: its ending does not tell how it is read; give --format csv, tsv or jsonl")


def _as_pairs(path: str, triples: Iterator[_Triple]) -> Pairs:
  first, second, scores = [], [], []
  for line, one, other, score in triples:
    for text in (one, other):
      if not isinstance(text, str):
        raise _BadLine(line, f"{_shown(text)} is no text; name the columns with --columns FIRST SECOND SCORE")
    first.append(one)
    second.append(other)
    scores.append(_number(line, score))
  if not scores:
    raise UsageError(f"{path}: has no pair; give a file with two texts and a score a line")
  return Pairs(path, tuple(first), tuple(second), np.array(scores))


def _number(line: int, score: Any) -> float:
  value = _as_number(score)
  if value is None:
    raise _BadLine(
      line, f"the score {_shown(score)} is no number; name the columns with --columns FIRST SECOND SCORE, or mend it"
    )
  return value


def _as_number(value: Any) -> float | None:
  """A finite number, of JSON or as text, or None; 1_000 is none."""
  try:
    number = float(value) if not isinstance(value, str) or "_" not in value else math.nan
  except (TypeError, ValueError, OverflowError):
    return None
  return number if math.isfinite(number) else None


def _triples(lines: Lines, kind: PairFormat, columns: Sequence[str] | None) -> Iterator[_Triple]:
  """The pairs of a CSV or TSV file."""
  records = _numbered_records(lines, kind)
  head = next(records, None)
  if head is None:
    return
  places, has_header = _places(*head, columns)
  width = len(head[1])
  for line, fields in records if has_header else chain([head], records):
    if len(fields) != width:
      quotes = ", or a comma that is not in quotes" if kind == "csv" else ""
      raise _BadLine(line, f"{len(fields)} fields where the first line has {width}: a broken line{quotes}; mend it")
    first, second, score = (fields[place] for place in places)
    yield line, first, second, score


def _numbered_records(lines: Lines, kind: PairFormat) -> Iterator[tuple[int, list[str]]]:
  numbers: dict[int, int] = {}

  def numbered() -> Lines:
    for number, (offset, line) in enumerate(lines, start=1):
      numbers[offset] = number
      yield offset, line

  for offset, fields, _ in read_records(numbered(), "utf-8", kind):
    if isinstance(fields, BadDocument):
      raise _BadLine(numbers[offset], f"{fields.reason.replace('_', ' ')} ({fields.detail}); mend the line")
    yield numbers.pop(offset), fields


def _places(line: int, head: list[str], columns: Sequence[str] | None) -> tuple[list[int], bool]:
  """Where first text, second text and score stand, and whether the first line is a header."""
  if columns and all(column.isdecimal() for column in columns) and not set(columns) <= set(head):
    places = [int(column) - 1 for column in columns]
    if not all(0 <= place < len(head) for place in places):
      raise _BadLine(line, f"--columns {' '.join(columns)}: there are {len(head)} columns, 1 to {len(head)}")
    return places, False
  if columns is None and len(head) >= 3 and _as_number(head[-1]) is not None:
    return [0, 1, len(head) - 1], False
  names = columns or (head if len(head) == 3 else COLUMNS)
  if missing := [name for name in names if name not in head]:
    raise _BadLine(
      line,
      f"no column {missing[0]!r}; its columns are: {', '.join(map(_short, head[:12]))}; name three of them with "
      "--columns FIRST SECOND SCORE, or by number, such as --columns 1 2 3, if it has no header",
    )
  return [head.index(name) for name in names], True


def _json_triples(lines: Lines, columns: Sequence[str]) -> Iterator[_Triple]:
  for number, (_, line) in enumerate(lines, start=1):
    if not line or line.isspace():
      continue
    try:
      value = json_object(line, "utf-8")
    except BadDocument as bad:
      raise _BadLine(number, f"{bad.reason.replace('_', ' ')} ({bad.detail}); mend the line") from None
    if missing := [column for column in columns if column not in value]:
      keys = ", ".join(map(_short, list(value)[:12]))
      raise _BadLine(
        number, f"no {missing[0]!r}; its keys are: {keys}; name three of them with --columns FIRST SECOND SCORE"
      )
    first, second, score = (value[column] for column in columns)
    yield number, first, second, score


def _shown(value: Any) -> str:
  return _short(repr(value))


def _short(text: str) -> str:
  return text if len(text) <= 40 else f"{text[:39]}…"
