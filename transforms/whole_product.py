"""One matrix product whose bits do not depend on how it is computed, to about eight decimal digits.

`exact_product` cuts both factors in two and multiplies three times, for thirteen. Here each factor is rounded to whole
numbers once. By Cauchy and Schwarz every sum of some products of a row and a column is at most the product of their
lengths, so if that is under 2⁵³ BLAS rounds nothing, in whatever order it adds. Bounding by lengths, and not by H times
the largest entries, leaves each factor five bits more.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.exact_product import exact_product

# Lengths in whole numbers: 2^26.5 times 2^26 stays within 2⁵³, also where rounding lengthens a column a little.
_ROW, _COLUMN = 2.0**25, 2.0**26
_LONGEST_SQUARED, _SHORTEST_SQUARED = 2.0**53, 2.0**44  # 2.8 times as long as expected, and an eighth
# Rows at a time: they and their product stay in a processor's cache.
_ROWS = 512


class WholeProduct:
  """Multiplies rows of about one length by a matrix [H, K]; each result is a function of its row and both alone.

  An entry's rounding error has a deviation of 2⁻²⁶ times `length` times that of its column. Rows more than 2.8 times as
  long, or less than an eighth, go through `exact_product`: also those with NaN or infinity, and zeros.
  """

  def __init__(self, right: NDArray[np.float64], length: float):
    self._right = right
    # An accumulated sum is added in order, whatever the processor: its last bit may not vary either.
    lengths = np.sqrt(np.cumsum(right**2, axis=0)[-1])
    assert length > 0 and (lengths > 0).all(), (length, lengths.min())
    self._row_scale, column_scale = _ROW / length, _COLUMN / lengths
    self._whole = np.rint(right * column_scale)
    self._unit = 1.0 / (self._row_scale * column_scale)

  def of(self, left: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns (left [N, H] - mean [H]) · right, float64 [N, K]."""
    product = np.empty((len(left), self._whole.shape[1]))
    for start in range(0, len(left), _ROWS):
      rows = slice(start, start + _ROWS)
      self._multiply(left[rows] - mean, product[rows])
    return product

  def _multiply(self, left: NDArray[np.float64], product: NDArray[np.float64]) -> None:
    whole = np.rint(left * self._row_scale)
    np.matmul(whole, self._whole, out=product)
    product *= self._unit
    # A sum of squares under 2⁵³ is exact, and one above it nobody's rounding brings under it: all agree which rows fit.
    squared = np.einsum("ij,ij->i", whole, whole)
    others = ~((squared >= _SHORTEST_SQUARED) & (squared < _LONGEST_SQUARED))
    if others.any():
      product[others] = exact_product(left[others], self._right)
