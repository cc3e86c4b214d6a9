"""The tokens of texts that may be too long, as an encoder is given them: beginning and end, or windows."""

from collections.abc import Iterable, Sequence

import numpy as np

from transforms.long_texts import HEAD_TAIL, WINDOWS, LongTexts, lay_windows
from transforms.text_units import find_units, last_tokens
from transforms.wordpiece import Tokens, Wordpiece


def tokenise_long(wordpiece: Wordpiece, texts: Sequence[str], long_texts: LongTexts | None) -> Tokens:
  """Returns the tokens of each text; those of texts that fit, and in other modes of all, are `Wordpiece.tokenise`'s.

  Windows follow one another, each with [CLS] and [SEP] of its own, by which they are told apart again
  (`window_pool.py`): no word of a text becomes one of these. A text that came as windows is not truncated.
  """
  tokens = wordpiece.tokenise(texts)
  mode = long_texts.mode if long_texts is not None else None
  if long_texts is None or mode not in (HEAD_TAIL, WINDOWS) or not tokens.truncated.any():
    return tokens
  rows = np.split(tokens.input_ids, tokens.offsets[1:-1])
  n_tokens, n_unknown = tokens.n_tokens.copy(), tokens.n_unknown.copy()
  for i in np.flatnonzero(tokens.truncated).tolist():
    if mode == HEAD_TAIL:
      rows[i] = _head_and_tail(wordpiece, texts[i], rows[i], long_texts)
      kept = rows[i]
    else:
      kept, rows[i] = _windows(wordpiece, texts[i], long_texts)
      n_tokens[i] = len(kept) + 2
    n_unknown[i] = np.count_nonzero(kept == wordpiece.unknown_id)
  offsets = np.append(0, np.cumsum([len(row) for row in rows]))
  truncated = tokens.truncated if mode == HEAD_TAIL else np.zeros(len(texts), dtype=bool)
  return Tokens(np.concatenate(rows), offsets, truncated, n_unknown, n_tokens)


def _head_and_tail(wordpiece: Wordpiece, text: str, first: np.ndarray, long_texts: LongTexts) -> np.ndarray:
  """Returns a row of the same length as `first`, which has [CLS], the first tokens that fit, and [SEP]."""
  tail = last_tokens(wordpiece, text, wordpiece.room - long_texts.head)
  return np.concatenate([first[: long_texts.head + 1], np.array([*tail, wordpiece.sep_id], np.int32)])


def _windows(wordpiece: Wordpiece, text: str, long_texts: LongTexts) -> tuple[np.ndarray, np.ndarray]:
  """Returns all tokens of a text, without [CLS] and [SEP], and its windows with them, one after the other."""
  assert long_texts.stride is not None, long_texts
  units = find_units(wordpiece, text)
  bounds = np.unique(np.append(units.tokens, list(_within_long_units(units.tokens, wordpiece.room))))
  spans = lay_windows(bounds, units.ends, wordpiece.room, long_texts.stride)
  cls, sep = (np.array([special], np.int32) for special in (wordpiece.cls_id, wordpiece.sep_id))
  parts = [part for start, stop in spans for part in (cls, units.input_ids[start:stop], sep)]
  return units.input_ids, np.concatenate(parts)


def _within_long_units(tokens: np.ndarray, room: int) -> Iterable[int]:
  """Yields where words are cut that do not fit themselves."""
  for i in np.flatnonzero(np.diff(tokens) > room):
    yield from range(int(tokens[i]) + room, int(tokens[i + 1]), room)
