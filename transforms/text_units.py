"""All tokens of a long text, by units that are tokenised each for itself: a word, or what stands between blanks.

Between two units a new word begins whatever stands before and behind, so that the tokens of a text are those of its
units, and a piece of the text between two such places has the very tokens that it has in the text.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from transforms.rare_characters import IDEOGRAPHS
from transforms.wordpiece import SEPARATORS, SEPARATORS_WITHOUT_SIGMA, Wordpiece

_UNITS_AT_ONCE = 8192
_BLANKS = " \t\n\r"
# What may stand between the end of a sentence and the blank behind it. An apostrophe, like what has a set of its own in
# `wordpiece.py`, is looked through to see whether a capital sigma ends a word.
_CLOSING, _CLOSING_WITHOUT_SIGMA = '"\u201d\u00bb)\\]\u300d\u300f\uff09\u300b\u3011', "'\u2019"
_CLOSERS = _CLOSING + _CLOSING_WITHOUT_SIGMA
# "3.5" and "e.g.," end no sentence; Chinese puts no blank behind one.
_SENTENCE_END = re.compile(f"(?:[\u3002\uff01\uff1f\u2026][{_CLOSERS}]*|[.!?][{_CLOSERS}]*[{_BLANKS}])[{_BLANKS}]*$")
_LINE_END = re.compile("[\n\r]")


@dataclass(frozen=True)
class Units:
  """A text of U units and n tokens, without [CLS] and [SEP].

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


def find_units(wordpiece: Wordpiece, text: str) -> Units:
  """Tokenises a whole text, however long; beside the numbers only some thousand units are in memory.

  Raises:
    TypeError: the text has a lone surrogate.
  """
  ids, n_tokens, n_characters, is_end = [np.empty(0, np.int32)], [0], [0], [False]
  units = split_units(wordpiece, text)
  while some := list(islice(units, _UNITS_AT_ONCE)):
    rows = wordpiece.every_token(some)
    n_tokens += map(len, rows)
    n_characters += map(len, some)
    is_end += map(_ends_sentence, some)
    ids.append(np.fromiter((i for row in rows for i in row), np.int32))
  return Units(np.concatenate(ids), np.cumsum(n_tokens), np.cumsum(n_characters), np.array(is_end))


def last_tokens(wordpiece: Wordpiece, text: str, n: int) -> list[int]:
  """Returns the ids of the last `n` tokens of a text that has so many; no more of it is looked at than is needed."""
  size, found = 8 * n, list[int]()
  while len(found) < n:
    start = max(0, len(text) - size)
    units = list(_pattern(wordpiece, "\u03a3" in text).findall(text, start))
    # The first may have begun before: it is whole only where the text begins.
    found = [i for row in wordpiece.every_token(units if start == 0 else units[1:]) for i in row]
    assert start or len(found) >= n, (len(found), n)
    size *= 2
  return found[-n:]


def split_units(wordpiece: Wordpiece, text: str) -> Iterator[str]:
  """Yields the units of a text, which joined are the text."""
  return (match.group() for match in _pattern(wordpiece, "\u03a3" in text).finditer(text) if match.group())


def _ends_sentence(unit: str) -> bool:
  return bool(_SENTENCE_END.search(unit) or _LINE_END.search(unit))


def _pattern(wordpiece: Wordpiece, has_sigma: bool) -> re.Pattern[str]:
  return _unit_pattern(wordpiece.settings.tokenize_chinese_chars, has_sigma)


@functools.cache
def _unit_pattern(has_ideographs: bool, has_sigma: bool) -> re.Pattern[str]:
  """Matches some characters of a word, one behind which a new word begins, and what closes behind that."""
  separators = re.escape(SEPARATORS + ("" if has_sigma else SEPARATORS_WITHOUT_SIGMA)) + "\u2026"
  separators += IDEOGRAPHS if has_ideographs else ""
  closing = _CLOSING if has_sigma else _CLOSERS
  return re.compile(f"[^{separators}]*[{separators}]?[{closing}]*[{_BLANKS}]*")
