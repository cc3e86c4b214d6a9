"""Count, mean and scatter of raw vectors: a value that merges exactly, whatever the sharding.

Follows Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979):
every block is centred on its own mean before anything is squared, so a large common mean costs no digits.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from transforms import array_file
from transforms.errors import StoreError

# Raise it when a key, a dtype or the meaning of an array changes; the reader refuses every other number.
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class VectorBlock:
  """Distinct raw vectors and how many documents have each.

  Attributes:
    vectors: float32 or float64 [N, H].
    weights: int64 [N], documents per vector, 0 or more.
  """

  vectors: NDArray[Any]
  weights: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Moments:
  """Second-order state of `count` vectors. `Moments.empty(H)` is neutral; `+` is associative up to rounding.

  Attributes:
    count: vectors seen, each as often as it occurred.
    mean: float64 [H].
    scatter: float64 [H, H], the sum of (x - mean)(x - mean)ᵀ.
  """

  count: int
  mean: NDArray[np.float64]
  scatter: NDArray[np.float64]

  def __post_init__(self) -> None:
    H = self.mean.size
    assert self.count >= 0, self.count
    assert self.mean.shape == (H,) and self.scatter.shape == (H, H), (self.mean.shape, self.scatter.shape)
    assert self.mean.dtype == self.scatter.dtype == np.float64, (self.mean.dtype, self.scatter.dtype)

  @classmethod
  def empty(cls, H: int) -> Self:
    """Returns the moments of no vector of width H."""
    return cls(0, np.zeros(H), np.zeros((H, H)))

  @classmethod
  def from_vectors(cls, vectors: NDArray[Any], weights: NDArray[np.int64] | None = None) -> Self:
    """Returns the moments of float32 or float64 vectors [N, H], each counted `weights` [N] times (default once).

    Raises:
      ValueError: a vector is not finite, a weight is negative, or the lengths differ. One such row would spoil every
        moment it is merged into, and could not be found any more.
    """
    weights = _checked_weights(vectors, weights)
    count = int(weights.sum())
    if count == 0:
      return cls.empty(vectors.shape[1])
    widened = vectors.astype(np.float64)
    mean = weights @ widened / count
    widened -= mean  # in place: new pages for 25 MB cost as much as the arithmetic on them
    if (weights != 1).any():
      # With the root of the weights on both sides BLAS sees AᵀA: half the work, and a scatter symmetric to the bit.
      widened *= np.sqrt(weights)[:, None]
    return cls(count, mean, widened.T @ widened)

  @property
  def hidden_size(self) -> int:
    """H."""
    return self.mean.size

  def merge(self, other: Self) -> Self:
    """Returns the moments of both sets together (Chan, Golub & LeVeque, eq. 2.1, for vectors).

    Raises:
      ValueError: the widths differ.
    """
    if self.hidden_size != other.hidden_size:
      raise ValueError(f"moments of width {self.hidden_size} and {other.hidden_size} cannot be merged")
    if not self.count:  # an empty right side falls out of the formula; two empty ones would divide by 0
      return other
    count = self.count + other.count
    shift = other.mean - self.mean
    mean = self.mean + shift * (other.count / count)
    between = np.outer(shift, shift)
    between *= self.count * (other.count / count)
    scatter = self.scatter + other.scatter
    scatter += between
    return type(self)(count, mean, scatter)

  __add__ = merge

  def covariance(self) -> NDArray[np.float64]:
    """Returns the unbiased covariance (ddof 1), float64 [H, H].

    Raises:
      ValueError: there are fewer than two vectors.
    """
    if self.count < 2:
      raise ValueError(f"a covariance needs 2 vectors, there are {self.count}")
    return self.scatter / (self.count - 1)

  def to_bytes(self) -> bytes:
    """Returns `moments.npz`: the same moments give the same bytes."""
    arrays = {"count": np.int64(self.count), "mean": self.mean, "scatter": self.scatter}
    return array_file.pack(FORMAT_VERSION, arrays)

  @classmethod
  def from_bytes(cls, data: bytes, name: str = "moments.npz") -> Self:
    """Reads what `to_bytes` wrote; `name` is what errors call it.

    Raises:
      StoreError: damaged, of another format, or not the arrays of one set of moments.
    """
    arrays = array_file.unpack(data, name)
    array_file.check_version(arrays, FORMAT_VERSION, name)
    H = arrays["mean"].size if "mean" in arrays else 0
    for key, kind, shape in [("count", "i8", ()), ("mean", "f8", (H,)), ("scatter", "f8", (H, H))]:
      array_file.check_array(arrays, key, kind, shape, name)
    if arrays["count"] < 0:
      raise StoreError(f"{name}: count is {int(arrays['count'])}, expected 0 or more")
    return cls(int(arrays["count"]), arrays["mean"], arrays["scatter"])


def _checked_weights(vectors: NDArray[Any], weights: NDArray[np.int64] | None) -> NDArray[np.int64]:
  if vectors.ndim != 2 or not np.isfinite(vectors).all():
    raise ValueError(f"expected finite vectors [N, H], got shape {vectors.shape}")
  if weights is None:
    return np.ones(len(vectors), np.int64)
  if weights.shape != vectors.shape[:1] or weights.dtype.kind not in "iu" or (weights < 0).any():
    raise ValueError(f"expected {len(vectors)} counts of 0 or more, got {weights.dtype}{list(weights.shape)}")
  return weights
