"""All tokens of a long text, by units: pieces between which a tokenizer can cut it, and where sentences end."""

import re
from dataclasses import dataclass
from itertools import islice

import numpy as np

from transforms.tokenizer import Tokenizer

_UNITS_AT_ONCE = 8192
BLANKS = " \t\n\r"
# What may stand between the end of a sentence and the blank behind it: quotes and brackets.
CLOSERS = "\"'\u2019\u201d\u00bb)\\]\u300d\u300f\uff09\u300b\u3011"
# "3.5" and "e.g.," end no sentence; Chinese puts no blank behind one.
_SENTENCE_END = re.compile(f"(?:[\u3002\uff01\uff1f\u2026][{CLOSERS}]*|[.!?][{CLOSERS}]*[{BLANKS}])[{BLANKS}]*$")
_LINE_END = re.compile("[\n\r]")


@dataclass(frozen=True)
class Units:
  """A text of U units and n tokens, without the specials.

  Attributes:
    input_ids: int32 [n].
    tokens: int64 [U + 1], how many tokens stand before each unit, and n.
    characters: int64 [U + 1], how many characters do, and those of the text.
    is_end: bool [U + 1], whether a sentence or a line ends there.
  """

  input_ids: np.ndarray
  tokens: np.ndarray
  characters: np.ndarray
  is_end: np.ndarray

  @property
  def ends(self) -> np.ndarray:
    """The numbers of tokens behind which a sentence ends, ascending."""
    return self.tokens[self.is_end]


def find_units(tokenizer: Tokenizer, text: str) -> Units:
  """Tokenises a whole text, however long; beside the numbers only some thousand units are in memory.

  Raises:
    TypeError: the text has a lone surrogate.
  """
  ids, n_tokens, n_characters, is_end = [np.empty(0, np.int32)], [0], [0], [False]
  pairs = tokenizer.units(text)
  while some := list(islice(pairs, _UNITS_AT_ONCE)):
    n_tokens += (len(row) for _, row in some)
    n_characters += (len(unit) for unit, _ in some)
    is_end += (_ends_sentence(unit) for unit, _ in some)
    ids.append(np.fromiter((i for _, row in some for i in row), np.int32))
  return Units(np.concatenate(ids), np.cumsum(n_tokens), np.cumsum(n_characters), np.array(is_end))


def last_tokens(tokenizer: Tokenizer, text: str, n: int) -> list[int]:
  """Returns the ids of the last `n` tokens of a text that has so many; no more of it is looked at than is needed."""
  size, found = 8 * n, list[int]()
  while len(found) < n:
    start = max(0, len(text) - size)
    found = [i for _, row in tokenizer.units(text, start) for i in row]
    assert start or len(found) >= n, (len(found), n)
    size *= 2
  return found[-n:]


def _ends_sentence(unit: str) -> bool:
  return bool(_SENTENCE_END.search(unit) or _LINE_END.search(unit))
