"""Words in context: where in a text its tokens come from, which of them a span has, and the vector that these give.

Cutting a text into tokens lowers, decomposes and drops characters, so a token's place in the text has to be found
again. It can be, character by character: how many characters of the words a character of the text becomes does not
depend on those around it. A capital sigma's form does, but not its length; marks may change places, but only within
what one letter and its marks have become. The tests hold this for every character of Unicode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from transforms.wordpiece import Wordpiece

Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class SpanVectors:
  """What S spans of a text mean in it.

  Attributes:
    vectors: float32 [S, C], the mean of the vectors of each span's tokens.
    similarities: float32 [S], the cosine between each and the vector of the whole text.
  """

  vectors: np.ndarray
  similarities: np.ndarray


@dataclass(frozen=True)
class LocatedTokens:
  """The tokens of one text, cut to `max_seq_length` as ever, and where each comes from.

  Attributes:
    text: as it was given.
    input_ids: int32 [T], with [CLS] and [SEP].
    starts, ends: int64 [T], in characters: token i comes from `text[starts[i]:ends[i]]`, which is empty for [CLS] and
      [SEP].
    n_kept: the tokens that were cut off come from `text[n_kept:]`.
  """

  text: str
  input_ids: np.ndarray
  starts: np.ndarray
  ends: np.ndarray
  n_kept: int


def locate_tokens(wordpiece: Wordpiece, text: str) -> LocatedTokens:
  """Finds the tokens of a text that `Wordpiece.tokenise` gives, and their places.

  Raises:
    ValueError: the text has a lone surrogate.
  """
  room = wordpiece.max_seq_length - 2
  found = list(islice(wordpiece.pieces(text), room + 1))  # one more than fits: what is cut off begins with it
  ids, lengths = np.array(found, np.int64).reshape(-1, 2).T
  stops, origins = np.cumsum(lengths), _origins(wordpiece, text)
  starts, ends = origins[stops - lengths], origins[stops - 1] + 1
  n_kept = int(starts[room]) if len(found) > room else len(text)
  return LocatedTokens(
    text,
    np.array([wordpiece.cls_id, *ids[:room], wordpiece.sep_id], np.int32),
    np.array([0, *starts[:room], len(text)]),
    np.array([0, *ends[:room], len(text)]),
    n_kept,
  )


def tokens_of_spans(tokens: LocatedTokens, spans: Spans) -> np.ndarray:
  """Returns bool [S, T]: which tokens overlap each span (start, end) of the text.

  Raises:
    ValueError: a span is not one of the text, has no token, or has one that was cut off.
  """
  starts, ends = _checked(spans).T[:, :, None]  # int64 [S, 1] each
  members = (tokens.starts < ends) & (starts < tokens.ends)
  for (start, end), has_token in zip(spans, members.any(axis=1), strict=True):
    _check_span(tokens, start, end, has_token)
  return members


def span_vectors(members: np.ndarray, hidden: np.ndarray, text_vector: np.ndarray) -> SpanVectors:
  """Averages the vectors of each span's tokens, and compares with the whole text's.

  Args:
    members: bool [S, T], which tokens a span has; at least one.
    hidden: float32 [T, C], the vectors of tokens.
    text_vector: float32 [C].
  """
  vectors = members @ hidden.astype(np.float64) / members.sum(axis=1, keepdims=True)
  whole = text_vector.astype(np.float64)
  similarities = vectors @ whole / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(whole))
  return SpanVectors(vectors.astype(np.float32), similarities.astype(np.float32))


def _origins(wordpiece: Wordpiece, text: str) -> np.ndarray:
  """Int64, an item for each character of the words: the position in the text of that which it was made from."""
  n_made = {c: sum(map(len, wordpiece.words(c))) for c in set(text)}
  return np.repeat(np.arange(len(text)), np.fromiter((n_made[c] for c in text), np.int64, len(text)))


def _checked(spans: Spans) -> np.ndarray:
  """Returns the spans as int64 [S, 2]."""
  array = np.array(spans) if len(spans) else np.empty((0, 2), np.int64)
  if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind != "i":
    raise ValueError(f"spans: expected integers [(start, end), …], got {spans!r:.80}; one span is [(start, end)]")
  return array


def _check_span(tokens: LocatedTokens, start: int, end: int, has_token: bool) -> None:
  name, length = f"span ({start}, {end})", len(tokens.text)
  if not 0 <= start < end <= length:
    raise ValueError(f"{name}: expected 0 <= start < end <= {length}, the length of the text")
  if end > tokens.n_kept:
    raise ValueError(
      f"{name}: only the first {tokens.n_kept} of {length} characters were kept, as {len(tokens.input_ids)} tokens; "
      "give the paragraph around it as the text, or freeze again with a larger --max-seq-length"
    )
  if not has_token:
    raise ValueError(
      f"{name}: {tokens.text[start:end]!r:.40} has no token; white space and some marks and signs become none: take "
      "the word with it"
    )
