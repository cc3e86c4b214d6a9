"""What a tokenizer is to everything else, and what every one of them does alike: `wordpiece.py`, `sentence_piece.py`.

A third has to do what `Tokenizer` says, and to be told from the others by its settings (`encoder_spec.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np

# A text is tokenised as far as needed. English has 4 to 5 characters a token, so that this many suffice at once; what
# takes more bytes a character has fewer characters a token, ideographs hardly more than one.
_CHARACTERS_PER_TOKEN, _FEWEST_PER_TOKEN = 5.5, 1.5
# The special tokens around a text: [CLS] and [SEP], or <sep> and <cls>.
N_SPECIAL = 2


@dataclass(frozen=True)
class Tokens:
  """The tokens of N texts, one after the other, each with the 2 specials: a text with no token of its own has 2.

  Attributes:
    input_ids: int32 [sum of the lengths].
    offsets: int64 [N + 1]; text i has `input_ids[offsets[i]:offsets[i + 1]]`.
    truncated: bool [N], more tokens than fit.
    n_unknown: int32 [N], how many of the tokens that fit are the unknown one.
    n_tokens: int32 [N], how many tokens there are, the specials once; less than the length where a text came as
      windows, which overlap (`long_texts.py`).
  """

  input_ids: np.ndarray
  offsets: np.ndarray
  truncated: np.ndarray
  n_unknown: np.ndarray
  n_tokens: np.ndarray

  @property
  def lengths(self) -> np.ndarray:
    """Int64 [N], with the specials."""
    return np.diff(self.offsets)


class Tokenizer(Protocol):
  """Cuts texts into the tokens of one encoder. Safe to share between threads.

  Attributes:
    vocab_size: how many ids there are.
    unknown_id: stands for what the vocabulary does not have.
    max_seq_length: tokens of a text that fit, with the specials.
    room: the same without them.
    before, after: the special ids around a text, 2 in all. By the first one before, or if there is none by the last one
      after, windows are told apart (`window_pool.py`): no text may have it as a token of its own.
    extra: how many tokens more than in the text a piece of it may have that begins with a unit.
  """

  vocab_size: int
  unknown_id: int
  max_seq_length: int
  room: int
  before: tuple[int, ...]
  after: tuple[int, ...]
  extra: int

  def tokenise(self, texts: Sequence[str]) -> Tokens:
    """Returns the first tokens of each text, as many as fit; of a long one no more is looked at than is needed.

    Raises:
      TypeError: a text has a lone surrogate.
    """

  def units(self, text: str, start: int = 0) -> Iterator[tuple[str, Sequence[int]]]:
    """Yields pieces of a text between which it may be cut, with the ids of their tokens, without the specials.

    Joined they are the text, or with a `start` the text from the first place behind that where a unit surely begins. No
    more than some thousand units are in memory.
    """

  def locate(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the tokens of a text that fit, and one more if there is one, without the specials.

    Returns:
      ids, starts, ends: int64 [n]; token i comes from `text[starts[i]:ends[i]]`.

    Raises:
      ValueError: the text has a lone surrogate.
    """


def likely_size(text: str, max_seq_length: int) -> int:
  """Returns how many characters are likely to have all tokens that fit and one more, judging by the script."""
  fewest = int(max_seq_length * _FEWEST_PER_TOKEN)
  if len(text) <= fewest:
    return fewest
  start = text[:max_seq_length]
  # A lone surrogate has no bytes; who tokenises says so.
  width = len(start.encode(errors="replace")) / len(start) if not start.isascii() else 1.0
  return max(int(max_seq_length * _CHARACTERS_PER_TOKEN / width**2), fewest)


def first_rows(
  texts: Sequence[str], max_seq_length: int, tokenise: Callable[[list[tuple[str, int]]], Iterable[Sequence[int]]]
) -> list[Sequence[int]]:
  """Returns the first ids of each text: more than fit, or all.

  Args:
    texts: N of them.
    max_seq_length: tokens that fit, with the specials.
    tokenise: takes texts, each with how many of its characters to look at, at most; gives the ids of each without the
      specials, as many as surely are the text's own first.
  """
  room, rows = max_seq_length - N_SPECIAL, list[Sequence[int]]([()] * len(texts))
  waiting = {i: likely_size(text, max_seq_length) for i, text in enumerate(texts)}
  while waiting:
    for i, row in zip(waiting, tokenise([(texts[i], size) for i, size in waiting.items()]), strict=True):
      rows[i] = row
    waiting = {i: 2 * n for i, n in waiting.items() if len(rows[i]) <= room and len(texts[i]) > n}
  return rows


def pack(rows: Sequence[Sequence[int]], tokenizer: Tokenizer) -> Tokens:
  """Returns the tokens of N texts, given the ids of each, of a text that does not fit one more than fit or all."""
  room = tokenizer.room
  found = np.fromiter(map(len, rows), np.int64, len(rows))
  kept = np.minimum(found, room)
  offsets = np.concatenate([[0], np.cumsum(kept + N_SPECIAL)])
  flat = chain.from_iterable(chain(tokenizer.before, row[:room], tokenizer.after) for row in rows)
  input_ids = np.fromiter(flat, np.int32, int(offsets[-1]))
  unknown = np.concatenate([[0], np.cumsum(input_ids == tokenizer.unknown_id)])
  n_unknown = np.diff(unknown[offsets]).astype(np.int32)
  return Tokens(input_ids, offsets, found > room, n_unknown, (kept + N_SPECIAL).astype(np.int32))
