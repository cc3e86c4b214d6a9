"""From windows to texts: which windows a text has, and one vector of theirs, whatever batches they were encoded in."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from transforms.tokenizer import N_SPECIAL

Encoded = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Windows:
  """The S windows of N texts, in their order; a text that fits is one window.

  Attributes:
    offsets: int64 [S + 1]; window i has the tokens `offsets[i]` to `offsets[i + 1]`.
    firsts: int64 [N + 1]; text i has the windows `firsts[i]` to `firsts[i + 1]`.
  """

  offsets: np.ndarray
  firsts: np.ndarray

  @classmethod
  def find(cls, input_ids: np.ndarray, offsets: np.ndarray, before: Sequence[int], after: Sequence[int]) -> Self:
    """Finds the windows of texts `input_ids[offsets[i]:offsets[i + 1]]`.

    Args:
      input_ids: int32.
      offsets: int64 [N + 1].
      before: the special ids before the tokens of each window, as in `Tokenizer`.
      after: those behind them.
    """
    ids, first = input_ids[offsets[0] : offsets[-1]], int(offsets[0])
    if before:
      edges = np.append(first + np.flatnonzero(ids == before[0]), offsets[-1])
    else:
      edges = np.append(first, first + np.flatnonzero(ids == after[-1]) + 1)
    found = cls(edges, np.searchsorted(edges, offsets))
    assert (found.offsets[found.firsts] == offsets).all(), "each text begins and ends with a window"
    return found

  @functools.cached_property
  def lengths(self) -> np.ndarray:
    """Tokens of each window, int64 [S]."""
    return np.diff(self.offsets)

  def texts(self, windows: np.ndarray) -> np.ndarray:
    """Returns the text int64 [B] of each of some windows [B]."""
    return np.searchsorted(self.firsts, windows, "right") - 1

  def of(self, texts: np.ndarray) -> np.ndarray:
    """Returns the windows int64 [S] of some texts [B], in their order."""
    n = np.diff(self.firsts)[texts]
    return np.repeat(self.firsts[texts] - (np.cumsum(n) - n), n) + np.arange(n.sum())


class WindowPool:
  """Takes what windows were encoded to, in any order, and gives each text's vector when all of its windows are there.

  The vector is the mean of the windows', each weighed by its tokens without the specials: a token in two windows counts
  in both. It is summed in float64 in the order of the windows, so that it does not depend on batches; that of a
  single window is its own to the bit. A head's probabilities likewise.
  """

  def __init__(self, windows: Windows):
    """Memory holds the vectors of texts of which some windows are there and some are not."""
    self._windows = windows
    self._n = np.diff(windows.firsts)
    self._held: dict[int, dict[int, Encoded]] = {}

  def add(self, rows: np.ndarray, vectors: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, Encoded]:
    """Takes windows [B], vectors float32 [B, W], probabilities float32 [B, n_labels]; returns (texts [M], the same)."""
    texts = self._windows.texts(rows)
    alone = self._n[texts] == 1
    if alone.all():
      return texts, (vectors, probabilities)
    done, found = list(texts[alone]), [(vectors[alone], probabilities[alone])]
    for i in np.flatnonzero(~alone):
      text = int(texts[i])
      held = self._held.setdefault(text, {})
      held[int(rows[i])] = vectors[i].copy(), probabilities[i].copy()  # a view would keep the batch
      if len(held) == self._n[text]:
        done.append(text)
        found.append(self._pooled(self._held.pop(text)))
    vectors, probabilities = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return np.array(done, np.int64), (vectors, probabilities)

  def _pooled(self, held: dict[int, Encoded]) -> Encoded:
    order = sorted(held)
    weights = self._windows.lengths[order] - N_SPECIAL
    vectors, probabilities = zip(*(held[window] for window in order), strict=True)
    return weighted_mean(np.stack(vectors), weights), weighted_mean(np.stack(probabilities), weights)


def weighted_mean(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Returns the mean of float32 rows [S, W] by integer weights [S], as one row [1, W]; of one row that row itself."""
  products = rows.astype(np.float64) * weights[:, None]  # exact
  return np.asarray((np.add.reduce(products, axis=0, keepdims=True) / weights.sum()).astype(np.float32))
