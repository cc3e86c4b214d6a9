"""A matrix product whose bits do not depend on how it is computed: on rows beside, threads, BLAS or processor.

BLAS adds in another order for another number of rows, another place in a block, another number of threads; the last
bits differ. Here both factors are cut into slices of few bits, so that every product and every sum of BLAS is a whole
number under 2⁵³ and exact in whatever order. Follows Ozaki, Ogita, Oishi & Rump, "Error-free transformations of matrix
multiplication by using fast routines of matrix multiplication and its applications" (2012).
"""

import numpy as np
from numpy.typing import NDArray

_EXACT_BITS = 53  # of a whole number that a float64 holds
# Rows at a time: three float64 copies of them stay in a processor's cache.
_ROWS = 256


def exact_product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
  """Returns left [N, H] · right [H, K], float64: each row a function of that row and `right` alone, to the bit.

  An entry is right within H · 2⁻⁴⁰ of the largest entry of its row times the largest of its column, for H up to 1,024;
  each fourfold H costs a bit. Rows with NaN or infinity give NaN.
  """
  bits = (_EXACT_BITS - left.shape[1].bit_length()) // 2
  right_high, right_low, right_scale = _slices(right, 0, bits)
  product = np.empty((len(left), right.shape[1]))
  for start in range(0, len(left), _ROWS):
    high, low, scale = _slices(left[start : start + _ROWS], 1, bits)
    # The two small products are below the last bit of the large one's slices; low · low is below what is cut off.
    small = (high @ right_low + low @ right_high) * 0.5 ** (bits + 1)
    product[start : start + _ROWS] = (high @ right_high + small) / scale / right_scale
  return product


def _slices(values: NDArray[np.float64], axis: int, bits: int) -> tuple[NDArray[np.float64], ...]:
  """Returns high, low, scale with values ≈ (high + low · 2^-(bits + 1)) / scale: whole numbers of at most 2^bits.

  The scale is a power of two for each row or column, so that only cutting off rounds, and that the same everywhere.
  """
  largest = np.abs(values).max(axis=axis, keepdims=True, initial=0.0)
  scale = np.ldexp(1.0, bits - np.frexp(largest)[1])
  scaled = values * scale
  high = np.rint(scaled)
  return high, np.rint((scaled - high) * 2.0 ** (bits + 1)), scale
