"""The tokens of texts that may be too long, as an encoder is given them: beginning and end, or windows."""

from collections.abc import Iterable, Sequence

import numpy as np

from transforms.long_texts import HEAD_TAIL, WINDOWS, LongTexts, lay_windows
from transforms.text_units import find_units, last_tokens
from transforms.tokenizer import N_SPECIAL, Tokenizer, Tokens


def tokenise_long(tokenizer: Tokenizer, texts: Sequence[str], long_texts: LongTexts | None) -> Tokens:
  """Returns the tokens of each text; those of texts that fit, and in other modes of all, are `Tokenizer.tokenise`'s.

  Windows follow one another, each with specials of its own, by which they are told apart again (`window_pool.py`): no
  word of a text becomes one of these. A text that came as windows is not truncated.
  """
  tokens = tokenizer.tokenise(texts)
  mode = long_texts.mode if long_texts is not None else None
  if long_texts is None or mode not in (HEAD_TAIL, WINDOWS) or not tokens.truncated.any():
    return tokens
  rows = np.split(tokens.input_ids, tokens.offsets[1:-1])
  n_tokens, n_unknown = tokens.n_tokens.copy(), tokens.n_unknown.copy()
  for i in np.flatnonzero(tokens.truncated).tolist():
    if mode == HEAD_TAIL:
      rows[i] = _head_and_tail(tokenizer, texts[i], rows[i], long_texts)
      kept = rows[i]
    else:
      kept, rows[i] = _windows(tokenizer, texts[i], long_texts)
      n_tokens[i] = len(kept) + N_SPECIAL
    n_unknown[i] = np.count_nonzero(kept == tokenizer.unknown_id)
  offsets = np.append(0, np.cumsum([len(row) for row in rows]))
  truncated = tokens.truncated if mode == HEAD_TAIL else np.zeros(len(texts), dtype=bool)
  return Tokens(np.concatenate(rows), offsets, truncated, n_unknown, n_tokens)


def _head_and_tail(tokenizer: Tokenizer, text: str, first: np.ndarray, long_texts: LongTexts) -> np.ndarray:
  """Returns a row of the same length as `first`, which has the first tokens that fit, and the specials."""
  tail = last_tokens(tokenizer, text, tokenizer.room - long_texts.head)
  head = first[: len(tokenizer.before) + long_texts.head]
  return np.concatenate([head, np.array([*tail, *tokenizer.after], np.int32)])


def _windows(tokenizer: Tokenizer, text: str, long_texts: LongTexts) -> tuple[np.ndarray, np.ndarray]:
  """Returns all tokens of a text, without the specials, and its windows with them, one after the other."""
  assert long_texts.stride is not None, long_texts
  units = find_units(tokenizer, text)
  bounds = np.unique(np.append(units.tokens, list(_within_long_units(units.tokens, tokenizer.room))))
  spans = lay_windows(bounds, units.ends, tokenizer.room, long_texts.stride)
  before, after = np.array(tokenizer.before, np.int32), np.array(tokenizer.after, np.int32)
  parts = [part for start, stop in spans for part in (before, units.input_ids[start:stop], after)]
  return units.input_ids, np.concatenate(parts)


def _within_long_units(tokens: np.ndarray, room: int) -> Iterable[int]:
  """Yields where words are cut that do not fit themselves."""
  for i in np.flatnonzero(np.diff(tokens) > room):
    yield from range(int(tokens[i]) + room, int(tokens[i + 1]), room)
