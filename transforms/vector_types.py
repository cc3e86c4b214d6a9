"""The numbers that published vectors are stored in: float32, float16, or int8 in ranges found over the corpus.

In int8 component k of a unit vector y becomes the whole number nearest to 127 · y_k / ranges_k, ranges_k being the
largest |y_k| of the corpus (symmetric linear quantisation, a range for each component). Ranges belong to the whitening
and are kept with it: a later night that reuses it stores equal vectors as equal numbers, and clips what lies beyond.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.whitening import normalise

FLOAT32, FLOAT16, INT8 = VECTOR_TYPES = ("float32", "float16", "int8")
_LARGEST = 127
# The neutral element of `widest`: where a component is always 0 nothing is divided by its range.
LEAST_RANGE = np.float32(2.0**-20)
# What rounding to float32, or each component to float16's eleven bits, may take from a length.
_LENGTH_ERRORS = {FLOAT32: 1e-4, FLOAT16: 1e-3}


def ranges_of(unit: NDArray[np.float32]) -> NDArray[np.float32]:
  """Returns the ranges of unit vectors [N, K]: float32 [K], the largest size of each component."""
  return widest([np.abs(unit).max(axis=0, initial=0)])


def widest(parts: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
  """Returns the ranges of all vectors, given those of some: float32 [K], of no part one number, which is neutral.

  A maximum rounds nothing, so it is the same to the bit however the corpus is cut.
  """
  return reduce(np.maximum, parts, np.asarray(LEAST_RANGE))


def to_stored(unit: NDArray[np.float32], kind: str, ranges: NDArray[np.float32]) -> tuple[NDArray[Any], int]:
  """Returns unit vectors [N, K] as they are stored, and how many of their components lie beyond their range.

  Args:
    unit: float32 of length 1.
    kind: of VECTOR_TYPES.
    ranges: float32 [K], for int8 alone.
  """
  if kind != INT8:
    return unit.astype(kind, copy=False), 0
  whole = np.rint(unit / _steps(ranges))
  clipped = int((np.abs(whole) > _LARGEST).sum())
  return np.clip(whole, -_LARGEST, _LARGEST, out=whole).astype(np.int8), clipped


def widen(stored: NDArray[Any], ranges: NDArray[np.float32]) -> NDArray[np.float32]:
  """Returns stored vectors [N, K] as float32: what `to_stored` was given, but for its rounding; float32 as they are."""
  wide = stored.astype(np.float32, copy=False)
  return wide * _steps(ranges) if stored.dtype == np.int8 else wide


def to_unit(stored: NDArray[Any], ranges: NDArray[np.float32]) -> NDArray[np.float32]:
  """Returns stored vectors [N, K] as float32 of length 1, so that products are cosines; float32 as they are."""
  wide = widen(stored, ranges)
  if stored.dtype == np.float32:
    return wide
  unit = np.zeros_like(wide)
  some, usable = normalise(wide.astype(np.float64))
  unit[usable] = some
  return unit


def wrong_lengths(stored: NDArray[Any], ranges: NDArray[np.float32]) -> NDArray[np.int64]:
  """Returns which stored vectors [N, K] cannot be of a vector of length 1."""
  allowed = _LENGTH_ERRORS.get(str(stored.dtype)) or 1e-4 + float(np.linalg.norm(_steps(ranges))) / 2
  off = np.linalg.norm(widen(stored, ranges).astype(np.float64), axis=1) - 1
  # What was clipped is shorter, nobody knows by how much.
  clipped = (np.abs(stored) == _LARGEST).any(axis=1) if stored.dtype == np.int8 else np.zeros(len(stored), bool)
  return np.flatnonzero(~((off <= allowed) & ((off >= -allowed) | clipped)))  # so that NaN fails


def coding(kind: str, ranges_fingerprint: str) -> str:
  """Returns what two runs have to share for equal unit vectors to be stored as equal numbers."""
  return f"{kind} {ranges_fingerprint}" if kind == INT8 else kind


def _steps(ranges: NDArray[np.float32]) -> NDArray[np.float32]:
  return ranges / np.float32(_LARGEST)
