"""Words in context: which tokens a span of a text has, and the vector that these give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transforms.tokenizer import Tokenizer

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
    input_ids: int32 [T], with the specials.
    starts, ends: int64 [T], in characters: token i comes from `text[starts[i]:ends[i]]`, which for a special is empty.
    n_kept: the tokens that were cut off come from `text[n_kept:]`.
  """

  text: str
  input_ids: np.ndarray
  starts: np.ndarray
  ends: np.ndarray
  n_kept: int


def locate_tokens(tokenizer: Tokenizer, text: str) -> LocatedTokens:
  """Finds the tokens of a text that `Tokenizer.tokenise` gives, and their places.

  Raises:
    ValueError: the text has a lone surrogate.
  """
  room, before, after = tokenizer.room, tokenizer.before, tokenizer.after
  ids, starts, ends = tokenizer.locate(text)  # one more than fits: what is cut off begins with it
  n_kept = int(starts[room]) if len(ids) > room else len(text)
  begin, end = [0] * len(before), [len(text)] * len(after)
  return LocatedTokens(
    text,
    np.array([*before, *ids[:room], *after], np.int32),
    np.array([*begin, *starts[:room], *end]),
    np.array([*begin, *ends[:room], *end]),
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
