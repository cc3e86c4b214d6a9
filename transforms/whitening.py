"""Whitening: y = (x - mean) · kernel, then L2. Fitted from moments, kept in a file, applied to raw vectors.

Follows Su et al., "Whitening Sentence Representations for Better Semantics and Faster Retrieval" (2021), with what the
formula leaves open settled here: the sign of each component, and which directions are rounding and not information.
"""

import hashlib
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from transforms import array_file
from transforms.errors import SorbusError, StoreError, UsageError
from transforms.exact_product import exact_product
from transforms.moments import Moments
from transforms.whole_product import WholeProduct

# Raise it when a key, a dtype or the meaning of an array changes; the reader refuses every other number.
FORMAT_VERSION = 1

# At most H - 1 are taken unasked: what a layer normalisation gives lies in a plane of H - 1 dimensions.
DEFAULT_COMPONENTS = 256
RELATIVE_FLOOR = 1e-10  # of the largest variance: 1e-5 in standard deviations, what float32 inference resolves
# A cosine that is nothing but the rounding of an eigen-decomposition: it must not choose a sign.
_RIGHT_ANGLE = 1e-6
# How many deviations of the last component a vector may be long for one product to do: its rounding, 2⁻²⁶ of that, is
# then 2e-6 of a deviation at the most, a float32's and not the encoder's.
_LONG = 128.0
_OTHER_WAYS = "--whitening none or --whitening PATH"


class WhiteningError(SorbusError):
  """The documents of a run do not determine the whitening that was asked for."""


@dataclass(frozen=True, eq=False)
class Whitening:
  """An affine map of raw vectors [H] to reduced vectors [K].

  Attributes:
    mean: float64 [H].
    kernel: float64 [H, K].
    explained_variance: float64 [H], all eigenvalues of the covariance, descending; empty where none were computed.
    count: documents it was fitted on, 0 where it was not fitted here.
    encoder_fingerprint: of the encoder whose raw vectors it was fitted on; empty if that is not known.
    ranges: float32 [K], of the reduced vectors' components in int8 (`vector_types.py`); empty until they were measured.
  """

  mean: NDArray[np.float64]
  kernel: NDArray[np.float64]
  explained_variance: NDArray[np.float64]
  count: int
  encoder_fingerprint: str
  ranges: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

  def __post_init__(self) -> None:
    H = self.mean.size
    assert self.mean.shape == (H,) and self.kernel.shape[:1] == (H,), (self.mean.shape, self.kernel.shape)
    assert 1 <= self.n_components <= H, self.kernel.shape
    assert self.explained_variance.shape in [(0,), (H,)], self.explained_variance.shape
    assert self.ranges.shape in [(0,), (self.n_components,)], self.ranges.shape

  @classmethod
  def fit(cls, moments: Moments, n_components: int | float | None = None, encoder_fingerprint: str = "") -> Self:
    """Fits the whitening of the documents counted in `moments`.

    Args:
      moments: of raw vectors [H], float32 by origin.
      n_components: K; or a share of the variance in (0, 1), for the smallest K that keeps it; or the default if None.
      encoder_fingerprint: recorded in the result.

    Raises:
      UsageError: `n_components` is no possible choice for width H.
      WhiteningError: too few documents, or too few directions in which they vary, with what to choose instead.
    """
    check_n_components(n_components, moments.hidden_size)
    if moments.count < 3:
      raise WhiteningError(f"{moments.count} documents are too few to fit a whitening; choose {_OTHER_WAYS}")
    variance, directions = _principal_directions(moments.covariance())
    rank = _rank(variance, directions, moments.mean)
    if rank == 0:
      raise WhiteningError(f"all {moments.count} raw vectors are the same, nothing to whiten; choose {_OTHER_WAYS}")
    K = _resolve_n_components(n_components, variance)
    _check_enough(K, moments.count, rank)
    # C order, as a file gives it back: BLAS then takes the same path and search repeats embed's bits.
    kernel = np.ascontiguousarray(directions[:, :K] / np.sqrt(variance[:K]))
    return cls(moments.mean, kernel, variance, moments.count, encoder_fingerprint)

  @classmethod
  def none(cls, H: int, encoder_fingerprint: str = "") -> Self:
    """Returns the whitening that changes nothing: mean 0, kernel the identity. It keeps one code path for all."""
    return cls(np.zeros(H), np.eye(H), np.empty(0), 0, encoder_fingerprint)

  @classmethod
  def load(cls, path: str | Path) -> "Whitening":
    """Reads a local whitening file, a run's or one with the blog's kernel and bias; raises UsageError if it is none."""
    try:
      return read_whitening(Path(path).read_bytes(), str(path))
    except OSError as error:
      raise UsageError(f"{path}: cannot be read ({error.strerror}); name a whitening-*.npz") from error

  @property
  def bias(self) -> NDArray[np.float64]:
    """-mean, float64 [H]: the blog's name, y = (x + bias) · kernel."""
    return -self.mean

  @property
  def hidden_size(self) -> int:
    """H."""
    return self.mean.size

  @property
  def n_components(self) -> int:
    """K."""
    return self.kernel.shape[1]

  @property
  def is_none(self) -> bool:
    """Says whether it changes nothing, as `Whitening.none` does."""
    return (
      self.n_components == self.hidden_size
      and not self.mean.any()
      and bool((self.kernel == np.eye(self.hidden_size)).all())
    )

  @property
  def kept_variance(self) -> float | None:
    """The share of the raw vectors' variance in the first K components; None where it is not known."""
    if not self.explained_variance.size:
      return None
    return float(self.explained_variance[: self.n_components].sum() / self.explained_variance.sum())

  @property
  def fingerprint(self) -> str:
    """sha256 of the map itself (mean and kernel): equal maps are equal, wherever they were fitted or stored."""
    digest = hashlib.sha256(f"whitening {self.kernel.shape}".encode())
    digest.update(self.mean.astype("<f8").tobytes())
    digest.update(self.kernel.astype("<f8").tobytes())
    return digest.hexdigest()

  @property
  def ranges_fingerprint(self) -> str:
    """sha256 of the ranges, empty where there are none; they are no part of the map, nor of its fingerprint."""
    return hashlib.sha256(self.ranges.astype("<f4").tobytes()).hexdigest() if self.ranges.size else ""

  def reduce(self, raw: NDArray[Any]) -> NDArray[np.float64]:
    """Returns (raw - mean) · kernel for raw vectors float32 [N, H]: float64 [N, K], before L2.

    To the bit each row depends on that raw vector and the whitening alone: not on the rows beside it, which differ from
    night to night, nor on threads or processor (`whole_product.py`, `exact_product.py`).
    """
    if self._whole_product is not None:
      return self._whole_product.of(raw, self.mean)
    centred = raw.astype(np.float64) - self.mean
    return centred if self.is_none else exact_product(centred, self.kernel)

  def apply(self, raw: NDArray[Any]) -> NDArray[np.float32]:
    """Returns what a run publishes of raw vectors float32 [N, H]: reduced and of length 1, float32 [N, K].

    Raises:
      ValueError: the width is another one, or a row has no direction: it is the mean itself, or not finite.
    """
    if raw.ndim != 2 or raw.shape[1] != self.hidden_size:
      raise ValueError(f"raw vectors {list(raw.shape)}: expected [N, {self.hidden_size}]")
    unit, usable = normalise(self.reduce(raw))
    if not usable.all():
      raise ValueError(f"raw vector {np.flatnonzero(~usable)[0]} has no direction under this whitening; leave it out")
    return unit

  @cached_property
  def _whole_product(self) -> WholeProduct | None:
    """The quick product, where the variances are known and it is as good as float32."""
    if not self.explained_variance.size or not self.kernel.any(axis=0).all():
      return None
    length = math.sqrt(math.fsum(self.explained_variance))  # root mean square; fsum: the same on every processor
    last = math.sqrt(self.explained_variance[self.n_components - 1])
    return WholeProduct(self.kernel, length) if 0 < length <= _LONG * last else None

  def aligned_with(self, previous: "Whitening") -> Self:
    """Returns the same whitening with its signs turned towards a previous one's, as far as that determines them.

    A component takes the sign under which its direction has a positive cosine with the previous direction that it is
    most like, whatever place that had. One at right angles to all of them, as a component that is new, keeps its sign.

    Raises:
      ValueError: the widths differ.
    """
    if self.hidden_size != previous.hidden_size:
      raise ValueError(f"whitenings of width {self.hidden_size} and {previous.hidden_size} cannot be aligned")
    cosines = _directions(self.kernel).T @ _directions(previous.kernel)  # [K, previous K]
    most_like = cosines[np.arange(self.n_components), np.abs(cosines).argmax(axis=1)]
    return replace(self, kernel=self.kernel * np.where(most_like < -_RIGHT_ANGLE, -1.0, 1.0))

  def first(self, n_components: int | float | None) -> Self:
    """Returns the whitening to the first K components only (a count, a share of the variance, or None for all).

    Raises:
      UsageError: it has not as many, or its variances are not known.
    """
    if n_components is None:
      return self
    check_n_components(n_components, self.hidden_size)
    if isinstance(n_components, float) and not self.explained_variance.size:
      raise UsageError(f"--n-components {n_components}: the whitening file holds no variances; give a whole number")
    K = _resolve_n_components(n_components, self.explained_variance)
    if self.n_components < K:
      raise UsageError(f"--n-components {n_components} needs {K} components, the whitening has {self.n_components}")
    # Without the others vectors of length 1 have larger components, and the ranges are no more theirs.
    ranges = self.ranges if self.n_components == K else np.empty(0, np.float32)
    return replace(self, kernel=np.ascontiguousarray(self.kernel[:, :K]), ranges=ranges)

  def to_bytes(self) -> bytes:
    """Returns `whitening.npz`: the same whitening gives the same bytes."""
    arrays = {"mean": self.mean, "bias": self.bias, "kernel": self.kernel, "count": np.int64(self.count)}
    arrays |= {"explained_variance": self.explained_variance, "encoder_fingerprint": np.str_(self.encoder_fingerprint)}
    arrays |= {"ranges": self.ranges} if self.ranges.size else {}
    return array_file.pack(FORMAT_VERSION, arrays)

  @classmethod
  def from_bytes(cls, data: bytes, name: str = "whitening.npz") -> Self:
    """Reads what `to_bytes` wrote; `name` is what errors call it.

    Raises:
      StoreError: damaged, of another format, or not the arrays of one whitening.
    """
    arrays = array_file.unpack(data, name)
    array_file.check_version(arrays, FORMAT_VERSION, name)
    _check_own_arrays(arrays, name)
    count, encoder_fingerprint = int(arrays["count"]), str(arrays["encoder_fingerprint"])
    ranges = arrays.get("ranges", np.empty(0, np.float32))
    return cls(arrays["mean"], arrays["kernel"], arrays["explained_variance"], count, encoder_fingerprint, ranges)

  @classmethod
  def from_foreign(cls, data: bytes, name: str) -> Self:
    """Reads an `.npz` with the BERT-whitening code's `kernel` [H, K] and `bias` [H] or [1, H], y = (x + bias) · kernel.

    Raises:
      StoreError: damaged, not these two arrays, or numbers that no float64 holds.
    """
    arrays = array_file.unpack(data, name)
    missing = [key for key in ("kernel", "bias") if key not in arrays or arrays[key].dtype.kind != "f"]
    if missing:
      raise StoreError(f"{name} has no float array {missing[0]!r}: expected kernel [H, K] and bias [H] of a whitening")
    with np.errstate(over="ignore"):
      kernel, bias = arrays["kernel"].astype(np.float64), arrays["bias"].astype(np.float64)
    array_file.check_finite({"kernel": kernel, "bias": bias}, name)  # a longdouble can be too large for a float64
    H = bias.size
    if bias.shape not in [(H,), (1, H)] or kernel.ndim != 2 or len(kernel) != H or not 1 <= kernel.shape[1] <= H:
      raise StoreError(f"{name}: kernel {list(kernel.shape)} and bias {list(bias.shape)} are not [H, K] and [H]")
    return cls(-bias.reshape(H), kernel, np.empty(0), 0, "")


def load_whitening(
  data: bytes, name: str, *, hidden_size: int, encoder_fingerprint: str, n_components: int | float | None = None
) -> Whitening:
  """Reads the file of `--whitening PATH`, Sorbus's own or a foreign one, for one encoder.

  Raises:
    UsageError: it is no whitening file, is for another width or encoder, or has fewer components than asked.
  """
  whitening = read_whitening(data, name)
  if whitening.hidden_size != hidden_size:
    raise UsageError(f"{name} is for vectors of width {whitening.hidden_size}, the encoder's have {hidden_size}")
  if whitening.encoder_fingerprint not in ("", encoder_fingerprint):
    raise UsageError(f"{name} was fitted on another encoder's vectors; use that encoder, or --whitening fit")
  return whitening.first(n_components)


def read_whitening(data: bytes, name: str) -> Whitening:
  """Reads a whitening that a person names, Sorbus's own or a foreign one; raises UsageError if it is neither."""
  try:
    ours = "format_version" in array_file.unpack(data, name)
    return Whitening.from_bytes(data, name) if ours else Whitening.from_foreign(data, name)
  except StoreError as error:
    raise UsageError(str(error)) from error


def check_n_components(n_components: int | float | None, H: int) -> None:
  """Refuses what can be no number of components for vectors of width H, before any work.

  Raises:
    UsageError: a count outside 1 to H, or a share outside (0, 1).
  """
  if isinstance(n_components, float) and not 0 < n_components < 1:
    raise UsageError(f"--n-components {n_components}: a share of the variance lies between 0 and 1")
  if isinstance(n_components, int) and not 1 <= n_components <= H:
    raise UsageError(f"--n-components {n_components}: the encoder's vectors have {H}; choose 1 to {H}")


def normalise(reduced: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
  """Scales reduced vectors [N, K] to length 1.

  Returns:
    unit, float32 [M, K], and usable, bool [N], with M = usable.sum(): rows of length zero, NaN or infinity have no
    direction and are left out, so that a caller who forgets them gets a wrong length and not a zero vector on disk.
  """
  with np.errstate(over="ignore", invalid="ignore"):
    norms = np.linalg.norm(reduced, axis=1)
  usable = np.isfinite(norms) & (norms > 0)
  rows = reduced if usable.all() else reduced[usable]
  unit = np.empty(rows.shape, np.float32)
  np.divide(rows, norms[usable, None], out=unit, casting="same_kind")  # in float64, rounded once
  return unit, usable


def _principal_directions(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
  """Returns all eigenvalues [H], descending and not negative, and their eigenvectors as columns [H, H]."""
  ascending, vectors = np.linalg.eigh(covariance)
  return np.maximum(ascending[::-1], 0.0), _with_fixed_signs(vectors[:, ::-1])


def _with_fixed_signs(columns: NDArray[np.float64]) -> NDArray[np.float64]:
  """Turns each column so that its entry of largest size is positive, as scikit-learn's `svd_flip` does.

  An eigenvector is determined up to its sign; without a rule two nights could disagree about every component.
  """
  largest = np.abs(columns).argmax(axis=0)
  return columns * np.sign(columns[largest, np.arange(columns.shape[1])])


def _directions(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
  """Returns the columns of a kernel [H, K], each of length 1; a foreign one may have a column of zeros, which stays."""
  lengths = np.linalg.norm(kernel, axis=0)
  return kernel / np.where(lengths > 0, lengths, 1.0)


def _rank(variance: NDArray[np.float64], directions: NDArray[np.float64], mean: NDArray[np.float64]) -> int:
  """Counts the directions whose variance is more than rounding: a smaller one is never divided by.

  Two floors: a share of the largest variance, and the squared float32 resolution of the mean along the direction,
  without which one repeated text would be its own rounding error blown up to unit variance.
  """
  resolution = (np.finfo(np.float32).eps * mean) ** 2 @ directions**2
  return int((variance > np.maximum(RELATIVE_FLOOR * variance[0], resolution)).sum())


def _resolve_n_components(n_components: int | float | None, variance: NDArray[np.float64]) -> int:
  if n_components is None:
    return min(DEFAULT_COMPONENTS, max(variance.size - 1, 1))
  if isinstance(n_components, int):
    return n_components
  cumulative = np.cumsum(variance)
  # Not divided by variance.sum(), which rounds differently: the last share has to be 1, above every request.
  return int(np.searchsorted(cumulative / cumulative[-1], n_components)) + 1


def _check_enough(K: int, count: int, rank: int) -> None:
  # 'count - 2' is the largest K that leaves N > K + 1; at N = K + 1 every text is equally far from every other.
  possible = f"choose --n-components {min(count - 2, rank)} or less, {_OTHER_WAYS}"
  if count <= K + 1:
    raise WhiteningError(f"{count} documents are too few for {K} components ({K + 2} are needed); {possible}")
  if rank < K:
    raise WhiteningError(f"the raw vectors vary in {rank} directions, {K} components were asked for; {possible}")


def _check_own_arrays(arrays: dict[str, NDArray[Any]], name: str) -> None:
  H = arrays["mean"].size if "mean" in arrays else 0
  K = arrays["kernel"].shape[-1] if "kernel" in arrays and arrays["kernel"].ndim else 0
  fitted = arrays["explained_variance"].size if "explained_variance" in arrays else 0
  shapes = {"mean": (H,), "bias": (H,), "kernel": (H, K), "explained_variance": (H if fitted else 0,)}
  for key, shape in shapes.items():
    array_file.check_array(arrays, key, "f8", shape, name)
  array_file.check_array(arrays, "count", "i8", (), name)
  array_file.check_array(arrays, "encoder_fingerprint", "U", (), name)
  if not 1 <= K <= H or (arrays["bias"] != -arrays["mean"]).any():
    raise StoreError(f"{name} is not a whitening: kernel {[H, K]}, or bias is not -mean; fit it again")
  if (arrays["explained_variance"] < 0).any():
    raise StoreError(f"{name} is not a whitening: a variance is below 0; fit it again")
  if "ranges" in arrays:
    array_file.check_array(arrays, "ranges", "f4", (K,), name)
    if (arrays["ranges"] <= 0).any():
      raise StoreError(f"{name} is not a whitening: a range is not above 0; fit it again")
