"""Drift: how far a corpus has moved from the whitening that its vectors go through; docs/numerics.md defines it."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from transforms.moments import Moments
from transforms.whitening import Whitening, WhiteningError, normalise

NEIGHBOURS = 10
# The texts whose neighbours are compared: those with the lowest digests, so that they are a uniform sample, and the
# same from night to night as far as the texts are.
SAMPLE_TEXTS = 1000
# Cosines that are held at once: 16 MB of them, however many texts there are.
_BLOCK = 1 << 22
# Among fewer texts ten are so large a part that any two lists of them share some by chance.
MIN_SAMPLE_TEXTS = 100
# Share of neighbours above which a person is told. Real texts reach it when about half of them are new, or a fifth of
# them of another domain; halving a corpus, which changes nothing but chance, stays below (docs/numerics.md).
NEIGHBOURS_WARNING = 0.3


@dataclass(frozen=True)
class Drift:
  """Of new moments under an old whitening.

  Attributes:
    mean: distance of the mean from the old one, in standard deviations a component; None for no document.
    covariance: distance of the covariance from the identity, a component; None for fewer than two documents.
    neighbours: share of the sample's ten nearest neighbours that a new fit with the same K would change; None where
      it cannot be said.
    sample: texts compared.
    reason: why `neighbours` is not known; None if it is.
  """

  mean: float | None
  covariance: float | None
  neighbours: float | None
  sample: int
  reason: str | None = None

  @classmethod
  def of(cls, old: Whitening, moments: Moments, sample: NDArray[Any]) -> Self:
    """Measures the drift of `moments` under `old`, with raw vectors [S, H] of distinct texts as the sample."""
    neighbours, reason = _changed_by_a_new_fit(old, moments, sample)
    mean = mean_distance(old, moments) if moments.count else None
    covariance = covariance_distance(old, moments) if moments.count > 1 else None
    return cls(mean, covariance, neighbours, len(sample), reason)

  def is_above(self, share: float) -> bool:
    """Says whether a larger share of neighbours than this would change; what is not known is not above."""
    return self.neighbours is not None and self.neighbours > share


def mean_distance(old: Whitening, moments: Moments) -> float:
  """Returns ‖(mean − old mean) · kernel‖ / √K."""
  return float(np.linalg.norm((moments.mean - old.mean) @ old.kernel) / np.sqrt(old.n_components))


def covariance_distance(old: Whitening, moments: Moments) -> float:
  """Returns ‖kernelᵀ · C · kernel − I‖ / √K (Frobenius), C the new covariance."""
  covariance = old.kernel.T @ moments.covariance() @ old.kernel
  return float(np.linalg.norm(covariance - np.eye(old.n_components)) / np.sqrt(old.n_components))


def changed_neighbours(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
  """Returns the share of the ten nearest by cosine that differ, of texts with unit vectors [S, K] and [S, other K].

  Raises:
    ValueError: there are not more texts than neighbours.
  """
  if len(one) <= NEIGHBOURS:
    raise ValueError(f"{NEIGHBOURS} neighbours of {len(one)} texts")
  step = max(1, _BLOCK // len(one))
  blocks = [slice(start, start + step) for start in range(0, len(one), step)]
  common = sum(int((_nearest(one, rows) & _nearest(other, rows)).sum()) for rows in blocks)
  return float(1 - common / (NEIGHBOURS * len(one)))


def _nearest(unit: NDArray[np.float32], rows: slice) -> NDArray[np.bool_]:
  """Returns which are the ten nearest of B texts, bool [B, S]; of equal cosines the first counts."""
  # Rounded, so that texts with one and the same vector tie, rather than differ in the last bit that BLAS chose.
  cosines = unit[rows] @ unit.T
  cosines.round(5, out=cosines)
  np.fill_diagonal(cosines[:, rows], -np.inf)
  tenth = np.partition(cosines, -NEIGHBOURS, axis=1)[:, [-NEIGHBOURS]]
  nearer, level = cosines > tenth, cosines == tenth
  places = NEIGHBOURS - nearer.sum(axis=1, keepdims=True)
  return nearer | (level & (level.cumsum(axis=1, dtype=np.int32) <= places))


def _changed_by_a_new_fit(old: Whitening, moments: Moments, sample: NDArray[Any]) -> tuple[float | None, str | None]:
  try:
    new = Whitening.fit(moments, old.n_components)
  except WhiteningError as error:
    return None, f"no new fit is possible: {error}"
  before, after = old.reduce(sample), new.reduce(sample)
  directed = normalise(before)[1] & normalise(after)[1]
  if directed.sum() < MIN_SAMPLE_TEXTS:
    return None, f"{directed.sum()} texts are too few to compare neighbours, {MIN_SAMPLE_TEXTS} are needed"
  return changed_neighbours(normalise(before[directed])[0], normalise(after[directed])[0]), None
