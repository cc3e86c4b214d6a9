"""Rejected documents: what was read but not embedded, with the reason.

The reasons are a stable interface: they are counted, stored and queried by their text. Their wording is never changed;
what differs from case to case stands in `detail`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Final

INVALID_BYTES: Final = "invalid bytes"
NUL_CHARACTER: Final = "NUL character"
LONE_SURROGATE: Final = "lone surrogate"
INVALID_JSON: Final = "invalid JSON"
NOT_AN_OBJECT: Final = "not an object"
MISSING_COLUMN: Final = "missing column"
NULL: Final = "null"
NOT_A_STRING: Final = "not a string"
WRONG_NUMBER_OF_FIELDS: Final = "wrong number of fields"
UNCLOSED_QUOTE: Final = "unclosed quote"
DOCUMENT_TOO_LONG: Final = "document too long"
EMPTY_ID: Final = "empty id"
NO_TOKENS: Final = "no tokens"
DUPLICATE_ID: Final = "duplicate id"
ENCODER_FAILED: Final = "encoder failed"
VECTOR_NOT_FINITE: Final = "vector not finite"
ZERO_VECTOR: Final = "zero vector"

REASONS: Final = (
  INVALID_BYTES,
  NUL_CHARACTER,
  LONE_SURROGATE,
  INVALID_JSON,
  NOT_AN_OBJECT,
  MISSING_COLUMN,
  NULL,
  NOT_A_STRING,
  WRONG_NUMBER_OF_FIELDS,
  UNCLOSED_QUOTE,
  DOCUMENT_TOO_LONG,
  EMPTY_ID,
  NO_TOKENS,
  DUPLICATE_ID,
  ENCODER_FAILED,
  VECTOR_NOT_FINITE,
  ZERO_VECTOR,
)

# A rejected document is there to be recognised, not to be kept.
SHOWN_CHARACTERS: Final = 10_000


@dataclass(frozen=True)
class RejectedDocument:
  """A document that is not embedded.

  Attributes:
    doc_id: its id; `name#position` where it has none that can be used.
    file: the file's name, relative to the input's root.
    position: byte offset in the decompressed bytes, or the row number of a Parquet file.
    reason: one of `REASONS`.
    detail: what is wrong in this case, in words for people; may be empty.
    text: the document's text, or the raw line where there is no text; None where neither is known.
  """

  doc_id: str
  file: str
  position: int
  reason: str
  detail: str = ""
  text: str | None = None

  def __post_init__(self) -> None:
    assert self.reason in REASONS, self.reason

  def to_json_line(self) -> str:
    """One line of JSON without its line break, in ASCII: lone surrogates survive, and no reader can split it."""
    short = replace(self, text=self.text[:SHOWN_CHARACTERS]) if self.text is not None else self
    return json.dumps(asdict(short), ensure_ascii=True)


def shown(raw: bytes | str | None, encoding: str = "utf-8") -> str | None:
  r"""Show a raw document as at most 10,000 characters, bytes that mean nothing in `encoding` as \xNN."""
  if isinstance(raw, bytes):
    # Cut before decoding (no encoding uses more than 4 bytes for a character), as a raw line may have 64 MiB.
    raw = raw[: 4 * SHOWN_CHARACTERS].decode(encoding, "backslashreplace")
  return raw[:SHOWN_CHARACTERS] if raw is not None else None
