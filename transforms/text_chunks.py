"""Long documents into chunks, each a document of its own: what follows on reading need not know that it is one.

A chunk keeps its place in three columns behind those that the document keeps: `parent_id`, `chunk_start`, `chunk_end`.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from transforms.errors import UsageError
from transforms.input_types import ReadOptions
from transforms.long_texts import LongTexts, lay_windows
from transforms.row_maker import Row
from transforms.text_units import Units, find_units
from transforms.tokenizer import Tokenizer

# In characters of the text, as Python counts them: `text[chunk_start:chunk_end]` is what was encoded.
CHUNK_COLUMNS = pa.schema(
  [
    pa.field("parent_id", pa.string()),
    pa.field("chunk_start", pa.int64()),
    pa.field("chunk_end", pa.int64()),
  ]
)
PARENT_ID = "parent_id"


def check_kept_with_chunks(options: ReadOptions) -> None:
  """Raises UsageError for a kept column that is called as one of ours, or would be with every chunk in full."""
  for name in options.keep_columns:
    if name in CHUNK_COLUMNS.names:
      raise UsageError(
        f"--keep-columns {name}: with --long-texts chunks Sorbus writes a column of that name itself; rename the "
        "input's"
      )
    if name in options.text_columns and len(options.text_columns) > 1:
      raise UsageError(
        f"--keep-columns {name}: it is one of several text columns, and each chunk would carry the whole of it; drop "
        "it, and cut the text out of the input by chunk_start and chunk_end"
      )


def cut_rows(rows: Sequence[Row], tokenizer: Tokenizer, long_texts: LongTexts) -> list[list[Row]]:
  """Returns the chunks of each document; one that fits is one chunk.

  A kept column that holds the text itself holds the chunk's: every chunk would carry the whole of it.
  """
  is_long = tokenizer.tokenise([row.text for row in rows]).truncated
  return [
    _chunks(row, chunk_spans(tokenizer, row.text, long_texts) if long else [(0, len(row.text))])
    for row, long in zip(rows, is_long, strict=True)
  ]


def chunk_spans(tokenizer: Tokenizer, text: str, long_texts: LongTexts) -> list[tuple[int, int]]:
  """Returns (start, end) in characters of the chunks of a text that does not fit, without blanks at their ends.

  Each has a token and fits; all tokens of the text are in them. Only a word that does not fit itself is cut inside,
  where its pieces have tokens of their own.
  """
  assert long_texts.stride is not None, long_texts
  units = find_units(tokenizer, text)
  room = max(1, long_texts.room - tokenizer.extra)
  found = lay_windows(np.unique(units.tokens), units.ends, room, min(room, long_texts.stride))
  spans = []
  for start, end in [_characters(units, *span) for span in found]:
    spans += _fitting(tokenizer, text, start, end)
  return spans


def _characters(units: Units, first: int, stop: int) -> tuple[int, int]:
  """Returns where tokens stand in the text; units without a token go with what is before them."""
  at = np.searchsorted(units.tokens, [first, stop], "right") - 1
  start, end = units.characters[at]
  return int(start), int(end)


def _fitting(tokenizer: Tokenizer, text: str, start: int, end: int) -> list[tuple[int, int]]:
  """Returns a span without the blanks around it, or if it does not fit its halves; none if it has no token."""
  piece = text[start:end]
  start, end = start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())
  tokens = tokenizer.tokenise([text[start:end]])
  if not tokens.truncated[0] or end - start < 2:  # one character can be three tokens, where hardly any fit
    return [(start, end)] if tokens.lengths[0] > 2 else []
  middle = (start + end) // 2
  return _fitting(tokenizer, text, start, middle) + _fitting(tokenizer, text, middle, end)


def _chunks(row: Row, spans: Sequence[tuple[int, int]]) -> list[Row]:
  return [
    Row(
      row.position,
      f"{row.doc_id}#{number}",
      row.text[start:end],
      (*(row.text[start:end] if value == row.text else value for value in row.kept), row.doc_id, start, end),
    )
    for number, (start, end) in enumerate(spans)
  ]
