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
from transforms.text_units import find_units
from transforms.tokenizer import N_SPECIAL, Tokenizer

# In characters of the text, as Python counts them: `text[chunk_start:chunk_end]` is what was encoded.
CHUNK_COLUMNS = pa.schema(
  [
    pa.field("parent_id", pa.string()),
    pa.field("chunk_start", pa.int64()),
    pa.field("chunk_end", pa.int64()),
  ]
)
PARENT_ID = "parent_id"
# Chunks whose tokens are in memory together.
_AT_ONCE = 1024


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
  # Units without a token go with what is before them.
  spans = units.characters[np.searchsorted(units.tokens, found, "right") - 1].tolist()
  return [span for i in range(0, len(spans), _AT_ONCE) for span in _fitting(tokenizer, text, spans[i : i + _AT_ONCE])]


def _fitting(tokenizer: Tokenizer, text: str, spans: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
  """Returns spans without the blanks around them, of each that does not fit its halves, and so on; none has no token.

  All halves are tokenised together: a word of a million characters is cut by 20 calls, and not by a million.
  """
  found = list[tuple[int, int]]()
  while spans:
    bare = [_without_blanks(text, start, end) for start, end in spans]
    tokens, spans = tokenizer.tokenise([text[start:end] for start, end in bare]), []
    for (start, end), n, truncated in zip(bare, tokens.lengths.tolist(), tokens.truncated.tolist(), strict=True):
      if truncated and end - start > 1:
        middle = (start + end) // 2
        spans += [(start, middle), (middle, end)]
      elif n > N_SPECIAL:  # may be too long: one character can be three tokens, where hardly any fit
        found.append((start, end))
  return sorted(found)


def _without_blanks(text: str, start: int, end: int) -> tuple[int, int]:
  piece = text[start:end]
  return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def _chunks(row: Row, spans: Sequence[tuple[int, int]]) -> list[Row]:
  is_text = [value == row.text for value in row.kept]  # once: it is as long as the text
  return [
    Row(
      row.position,
      f"{row.doc_id}#{number}",
      text := row.text[start:end],
      (*(text if own else value for value, own in zip(row.kept, is_text, strict=True)), row.doc_id, start, end),
    )
    for number, (start, end) in enumerate(spans)
  ]
