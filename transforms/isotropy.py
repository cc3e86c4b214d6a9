"""How evenly vectors fill their space: what can be said of an encoder without any labels.

Vectors that all point the same way (anisotropy, Ethayarajh, "How Contextual are Contextualized Word Representations?",
2019) have large cosines whatever their texts say; that is what whitening mends.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from transforms.moments import Moments
from transforms.whitening import RELATIVE_FLOOR


@dataclass(frozen=True)
class Isotropy:
  """Of N vectors of width H.

  Attributes:
    mean_cosine: of two different vectors, over all pairs: 0 where directions are even, 1 where all are the same.
    effective_rank: exp of the entropy of the variances as shares of their sum (Roy & Vetterli, "The Effective Rank",
      2007, of the covariance): H where they are equal, 1 where one has everything. None where nothing varies.
    rank: how many variances are above rounding, `RELATIVE_FLOOR` of the largest.
    condition_number: the largest of these divided by the smallest. None where nothing varies.
    spectrum: the variances [H], descending: the eigenvalues of the covariance.
  """

  mean_cosine: float
  effective_rank: float | None
  rank: int
  condition_number: float | None
  spectrum: tuple[float, ...]

  @classmethod
  def of(cls, vectors: NDArray[Any]) -> Self:
    """Measures vectors [N, H], N at least 2."""
    spectrum = np.maximum(np.linalg.eigvalsh(Moments.from_vectors(vectors).covariance())[::-1], 0.0)
    rank = int((spectrum > RELATIVE_FLOOR * spectrum[0]).sum())
    return cls(
      mean_cosine=mean_cosine(vectors),
      effective_rank=effective_rank(spectrum) if rank else None,
      rank=rank,
      condition_number=float(spectrum[0] / spectrum[rank - 1]) if rank else None,
      spectrum=tuple(spectrum.tolist()),
    )

  def share(self, components: int) -> float:
    """Returns the share of the variance in the first components."""
    return sum(self.spectrum[:components]) / (sum(self.spectrum) or 1.0)


def mean_cosine(vectors: NDArray[Any]) -> float:
  """Returns the mean cosine of all pairs of two different rows of vectors [N, H], each of some length."""
  rows = vectors.astype(np.float64)
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  n = len(rows)
  # Of all N² products those of a row with itself are 1 each: no matrix of N² is needed.
  return float((np.square(rows.sum(axis=0)).sum() - n) / (n * (n - 1)))


def effective_rank(spectrum: NDArray[np.float64]) -> float:
  """Returns exp(−Σ p ln p) for variances [H], not all 0, as shares p of their sum."""
  shares = spectrum[spectrum > 0] / spectrum.sum()
  return float(np.exp(-(shares * np.log(shares)).sum()))
