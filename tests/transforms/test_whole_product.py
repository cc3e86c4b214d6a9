import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from transforms.exact_product import exact_product
from transforms.moments import Moments
from transforms.whitening import Whitening, normalise
from transforms.whole_product import WholeProduct

SHAPES = [(768, 256), (384, 383), (64, 17), (3, 2)]


def factors(H, K, N=600):
  """Raw vectors float32 [N, H] off the origin, and a whitening of their length, its columns 10-fold apart."""
  rng = np.random.default_rng(H)
  variance = np.geomspace(10, 0.1, H)
  raw = (rng.normal(size=(N, H)) * np.sqrt(variance) + 3.0).astype(np.float32)
  kernel = rng.normal(size=(H, K)) / np.sqrt(H * variance[:K])  # as long as a whitening's columns; no BLAS, no LAPACK
  return raw, Whitening(np.full(H, 3.0), kernel, variance, N, "")


def published(raw, whitening):
  """Raw vectors [N, H] reduced [N, K], and beside them the float32 that are published: few of these show a last bit."""
  reduced = whitening.reduce(raw)
  return np.concatenate([reduced, normalise(reduced)[0]], axis=1)


@pytest.mark.parametrize(("H", "K"), SHAPES)
def test_a_row_has_the_same_bits_among_any_number_of_rows_at_any_place(H, K):
  raw, whitening = factors(H, K)
  whole = published(raw, whitening)
  for n in [*range(1, 20), 63, 64, 65, 255, 511, 512, 513]:
    for start in (0, 1, 300 - n // 2, 600 - n):
      assert (published(raw[start : start + n], whitening) == whole[start : start + n]).all(), (n, start)


_PRINT_BITS = """
import hashlib
from tests.transforms.test_whole_product import factors, published
for shape in [(768, 256), (384, 383)]:
  raw, whitening = factors(*shape)
  print(hashlib.sha256(published(raw, whitening).tobytes()).hexdigest())
"""


@pytest.mark.parametrize(("threads", "core"), [("1", "Haswell"), ("2", "Haswell"), ("2", "Nehalem")])
def test_the_bits_are_those_of_other_numbers_of_threads_and_other_processors(threads, core):
  """OpenBLAS takes other code for each of these; the input too must be equal, so none of it comes from BLAS."""
  environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OPENBLAS_CORETYPE": core}
  command = [sys.executable, "-c", _PRINT_BITS]
  done = subprocess.run(command, env=environment, cwd=REPOSITORY, check=True, capture_output=True, text=True)
  bits = [published(*factors(*shape)).tobytes() for shape in [(768, 256), (384, 383)]]
  assert done.stdout.split() == [hashlib.sha256(each).hexdigest() for each in bits]


@pytest.mark.parametrize(("H", "K"), SHAPES)
def test_its_error_is_that_of_the_rounding_to_whole_numbers(H, K):
  raw, whitening = factors(H, K)
  centred = raw - whitening.mean
  length = np.sqrt(whitening.explained_variance.sum())
  error = WholeProduct(whitening.kernel, length).of(raw, whitening.mean) - exact_product(centred, whitening.kernel)
  of_columns = np.sqrt((error**2).mean(axis=0))
  assert (of_columns <= 2.0**-26 * length * np.linalg.norm(whitening.kernel, axis=0)).all()
  assert error.any()  # or it was not tried


def test_rows_that_are_long_short_or_not_finite_go_another_way_and_spoil_no_other():
  raw, whitening = factors(64, 17, 9)
  left, zero = raw - whitening.mean, np.zeros(64)
  left[1], left[3], left[5], left[7] = left[1] * 5, left[3] / 20, 0.0, np.nan
  with np.errstate(invalid="ignore"):
    product = WholeProduct(whitening.kernel, np.sqrt(whitening.explained_variance.sum())).of(left, zero)
    for row in (1, 3, 5):
      assert (product[row] == exact_product(left[row : row + 1], whitening.kernel)[0]).all(), row
    assert not product[5].any() and np.isnan(product[7]).all()
  usual = WholeProduct(whitening.kernel, np.sqrt(whitening.explained_variance.sum())).of(raw, whitening.mean)
  assert (product[::2][[0, 1, 3, 4]] == usual[[0, 2, 6, 8]]).all()
  assert (usual != exact_product(raw - whitening.mean, whitening.kernel)).any(axis=1).all()


def test_no_sum_is_rounded_for_the_longest_row_that_fits_along_a_column():
  """The worst case of Cauchy and Schwarz: a row as long as may be, along a column, all entries one sign."""
  H = 768
  right, longest = np.ones((H, 1)), 2.0**1.5 * 0.999999
  # All sums are H times one whole number times another; as Python's integers they cannot be rounded.
  row, column = round(2.0**25 * longest / H**0.5), round(2.0**26 / H**0.5)
  product = WholeProduct(right, 1.0).of(np.full((1, H), longest / H**0.5), np.zeros(H))
  assert H * row * column < 2**53
  assert product[0, 0] == (H * row * column) * (1.0 / (2.0**25 * (2.0**26 / np.sqrt(float(H)))))


def test_a_whitening_takes_it_where_float32_would_do_and_the_exact_product_elsewhere():
  raw, whitening = factors(64, 17)
  steep = Whitening(whitening.mean, whitening.kernel, whitening.explained_variance * np.geomspace(1, 1e-20, 64), 9, "")
  unknown = Whitening(whitening.mean, whitening.kernel, np.empty(0), 0, "")
  expected = exact_product(raw - whitening.mean, whitening.kernel)
  assert (whitening.reduce(raw) != expected).any()
  assert (steep.reduce(raw) == expected).all()
  assert (unknown.reduce(raw) == expected).all()


def test_a_column_of_zeros_gives_zeros():
  raw, whitening = factors(64, 17)
  edited = Whitening(whitening.mean, whitening.kernel * (np.arange(17) > 0), whitening.explained_variance, 9, "")
  reduced = edited.reduce(raw)
  assert not reduced[:, 0].any() and reduced[:, 1:].any(axis=0).all()


def test_a_whitening_from_its_file_reduces_to_the_same_bits():
  raw, _ = factors(64, 17)
  fitted = Whitening.fit(Moments.from_vectors(raw), 17)
  assert (Whitening.from_bytes(fitted.to_bytes()).reduce(raw) == fitted.reduce(raw)).all()
