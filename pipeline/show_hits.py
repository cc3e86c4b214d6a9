"""Say what a search found: a block for each document for people, JSON for programs."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from pipeline.search import Hit
from transforms.errors import printable
from transforms.text_chunks import CHUNK_COLUMNS, PARENT_ID

_MAX_LINES = 3  # of a value
_INDENT = 8  # cells of a score and what is behind it
_MIN_WIDTH = 20


def hits_to_json(hits: Sequence[Hit]) -> str:
  """Returns what `sorbus search --json` prints."""
  values = [{name: value for name, value in asdict(hit).items() if (name, value) != ("labels", None)} for hit in hits]
  return json.dumps([_json_value(value) for value in values], indent=2, ensure_ascii=False, default=str)


def show_hits(hits: Sequence[Hit], console: Console) -> None:
  """Prints score and id of each, the nearest first, and under them labels and kept columns that hold something.

  Nothing is cut but values of more than three lines. Columns are not aligned: Chinese has no blank to wrap at, so that
  a narrow column cannot hold it.
  """
  width = max(console.width, _MIN_WIDTH) - _INDENT
  bodies = [_packed(_fields(hit), width, " · ") for hit in hits]
  for i, (hit, body) in enumerate(zip(hits, bodies, strict=True)):
    if i and any(bodies):  # ids alone are a list without gaps
      console.print()
    head = _packed([_shown(hit.doc_id), *_place(hit)], width, "  ")
    lines = [f"{hit.score:<{_INDENT}.4f}{head[0]}", *(" " * _INDENT + line for line in head[1:])]
    console.print(Text("\n".join(lines), "bold"), soft_wrap=True)
    if body:
      console.print(Text("\n".join(" " * _INDENT + line for line in body)), soft_wrap=True)
  if not hits:
    console.print("no documents")


def _place(hit: Hit) -> list[str]:
  """Returns where in its document a chunk stands; nothing for what is no chunk."""
  if not _is_chunk(hit):
    return []
  _, start, end = (hit.kept[name] for name in CHUNK_COLUMNS.names)
  return [f"at {start}–{end}"]


def _is_chunk(hit: Hit) -> bool:
  is_part = str(hit.kept.get(PARENT_ID)) == hit.doc_id.rpartition("#")[0]
  return is_part and set(CHUNK_COLUMNS.names) <= hit.kept.keys()


def _fields(hit: Hit) -> Iterator[str]:
  if hit.labels is not None:
    yield f"labels: {_shown(', '.join(hit.labels)) or 'none'}"
  told = CHUNK_COLUMNS.names if _is_chunk(hit) else ()
  for name, value in hit.kept.items():
    if name not in told and (shown := _shown(value)):
      yield f"{_shown(name)}: {shown}"


def _shown(value: Any) -> str:
  """Returns a value as one line in which no control character reaches the terminal."""
  return printable(" ".join(str("" if value is None else value).split()))


def _packed(fields: Sequence[str] | Iterator[str], width: int, between: str) -> list[str]:
  """Returns lines of at most `width` cells: short fields beside each other, a long one by itself, folded."""
  lines: list[str] = []
  for field in fields:
    if lines and cell_len(joined := f"{lines[-1]}{between}{field}") <= width:
      lines[-1] = joined
    else:
      lines += _folded(field, width)
  return lines


def _folded(text: str, width: int) -> list[str]:
  """Returns the first lines of a text, of at most `width` cells; a word stays whole where that leaves half a line."""
  lines: list[str] = []
  limit = 2 * _MAX_LINES * width  # characters: a text may be a book, and some take no cell
  rest = text[:limit]
  while rest and len(lines) < _MAX_LINES:
    end = len(chop_cells(rest, width)[0])
    word = end
    while word and end < len(rest) and _is_of_word(rest[word]) and _is_of_word(rest[word - 1]):
      word -= 1
    end = word if word > end // 2 else end
    lines.append(rest[:end].rstrip())
    rest = rest[end:].lstrip()
  if rest or len(text) > limit:
    lines[-1] = f"{chop_cells(lines[-1], width - 1)[0]}…"
  return lines


def _is_of_word(character: str) -> bool:
  """Says whether no line should end within two of these: an ideograph, two cells wide, is a word of its own."""
  return character != " " and cell_len(character) == 1


def _json_value(value: Any) -> Any:
  """Returns a value without NaN and infinity, which JSON has not: they become null."""
  if isinstance(value, dict):
    return {key: _json_value(item) for key, item in value.items()}
  return None if isinstance(value, float) and not math.isfinite(value) else value
