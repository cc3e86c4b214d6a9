"""What a report says of vectors: spectrum, cosines of random pairs, a map, neighbours. Pure functions of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_PAIRS = 20_000
SEED = 7


@dataclass(frozen=True)
class Spectrum:
  """How the variance of a run's raw vectors is spread.

  Attributes:
    variances: of the principal components, float64 [H], descending.
    n_components: K, how many the run keeps.
  """

  variances: NDArray[np.float64]
  n_components: int

  @property
  def cumulative(self) -> NDArray[np.float64]:
    """Share of the variance in the first 1, 2, … H components, float64 [H]."""
    total = self.variances.sum()
    return np.cumsum(self.variances) / (total if total > 0 else 1.0)

  @property
  def kept(self) -> float:
    """Share of the variance in the first K."""
    return float(self.cumulative[self.n_components - 1])

  def components_for(self, share: float) -> int:
    """Returns how many components hold this share of the variance."""
    return int(np.searchsorted(self.cumulative, share - 1e-12)) + 1


@dataclass(frozen=True)
class Cosines:
  """Of the same random pairs of different texts: float64 [P], by raw and by reduced vectors."""

  before: NDArray[np.float64]
  after: NDArray[np.float64]


@dataclass(frozen=True)
class Map:
  """Documents in the plane of most variance.

  Attributes:
    points: float64 [N, 2].
    share: of the sample's variance that the plane shows.
  """

  points: NDArray[np.float64]
  share: float


def spectrum(covariance: NDArray[np.float64], n_components: int) -> Spectrum:
  """Returns the spectrum of a covariance [H, H] of which `n_components` are kept."""
  return Spectrum(np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0.0), n_components)


def random_cosines(raw: NDArray[np.float32], reduced: NDArray[np.float32]) -> Cosines:
  """Returns the cosines of N_PAIRS random pairs, of raw vectors [N, H] and reduced ones [N, K] of the same N texts.

  Raises:
    ValueError: fewer than two texts.
  """
  if len(raw) < 2:
    raise ValueError(f"random pairs of {len(raw)} texts")
  generator = np.random.default_rng(SEED)
  one = generator.integers(0, len(raw), N_PAIRS)
  other = (one + generator.integers(1, len(raw), N_PAIRS)) % len(raw)  # never itself
  return Cosines(_cosines(raw, one, other), _cosines(reduced, one, other))


def _cosines(vectors: NDArray[np.float32], one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
  unit = _unit(vectors)
  return np.einsum("pk,pk->p", unit[one], unit[other])


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
  wide = vectors.astype(np.float64)
  lengths = np.linalg.norm(wide, axis=1, keepdims=True)
  return wide / np.where(lengths > 0, lengths, 1.0)


def plane(vectors: NDArray[np.float32]) -> Map:
  """Returns vectors [N, K] projected on their two principal directions, signs fixed as the whitening's are.

  Raises:
    ValueError: fewer than three vectors, which have no plane.
  """
  if len(vectors) < 3:
    raise ValueError(f"a map of {len(vectors)} documents")
  centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
  _, deviations, directions = np.linalg.svd(centred, full_matrices=False)
  first = directions[:2]
  first = first * np.sign(first[np.arange(len(first)), np.abs(first).argmax(axis=1)])[:, None]
  points = np.zeros((len(vectors), 2))
  points[:, : len(first)] = centred @ first.T
  total = float((deviations**2).sum())
  return Map(points, float((deviations[:2] ** 2).sum()) / total if total > 0 else 0.0)


def nearest(
  vectors: NDArray[np.float32], digests: NDArray[np.bytes_], queries: Sequence[int], k: int
) -> list[list[tuple[float, int]]]:
  """Returns for each query, a row of unit vectors [N, K], the k nearest rows with another text: (cosine, row)."""
  found = []
  for query in queries:
    cosines = (vectors @ vectors[query]).round(5)  # so that equal vectors tie, whatever BLAS does in the last bit
    seen, best = {digests[query]}, []
    for row in np.argsort(-cosines, kind="stable"):
      if digests[row] not in seen:
        seen.add(digests[row])  # a text that stands in many documents is one neighbour
        best.append((float(cosines[row]), int(row)))
      if len(best) == k:
        break
    found.append(best)
  return found
