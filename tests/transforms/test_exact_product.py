import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from transforms.exact_product import exact_product
from transforms.whitening import Whitening, normalise

# With 383 columns NumPy's own product differs for almost every number of rows, with 256 for 1 to 5.
SHAPES = [(768, 256), (384, 383), (64, 17), (3, 2), (1, 1)]


def factors(H, K, N=300):
  rng = np.random.default_rng(H)
  scale = np.geomspace(30, 0.01, H)
  return rng.normal(0.5, 1, (N, H)) * scale, rng.normal(size=(H, K)) / scale[:, None]


def published(raw, kernel):
  """Raw vectors [N, H] reduced [N, K], and beside them the float32 that are published: few of these show a last bit."""
  whitening = Whitening(np.full(len(kernel), 0.37), kernel, np.empty(0), 0, "")
  reduced = whitening.reduce(raw.astype(np.float32))
  return np.concatenate([reduced, normalise(reduced)[0]], axis=1)


@pytest.mark.parametrize(("H", "K"), SHAPES)
def test_a_row_has_the_same_bits_among_any_number_of_rows_at_any_place(H, K):
  left, kernel = factors(H, K)
  whole = published(left, kernel)
  for n in [*range(1, 20), 48, 63, 64, 65, 255, 256, 257, 299]:
    for start in (0, 1, 150 - n // 2, 300 - n):
      if 0 <= start <= 300 - n:
        assert (published(left[start : start + n], kernel) == whole[start : start + n]).all(), (n, start)


def test_one_row_has_the_same_bits_at_each_of_300_places():
  left, kernel = factors(384, 383)
  alone = published(left[:1], kernel)
  assert (published(np.repeat(left[:1], 300, axis=0), kernel) == alone).all()
  for place in range(0, 300, 7):
    rolled = np.roll(left, place, axis=0)
    assert (published(rolled, kernel)[place] == alone[0]).all(), place


_PRINT_BITS = """
import hashlib
from tests.transforms.test_exact_product import factors, published
for shape in [(768, 256), (384, 383)]:
  print(hashlib.sha256(published(*factors(*shape)).tobytes()).hexdigest())
"""


@pytest.mark.parametrize(("threads", "core"), [("1", "Haswell"), ("2", "Haswell"), ("2", "Nehalem")])
def test_the_bits_are_those_of_other_numbers_of_threads_and_other_processors(threads, core):
  """OpenBLAS takes other code for each of these; where it is not the BLAS the variables do nothing."""
  environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OPENBLAS_CORETYPE": core}
  command = [sys.executable, "-c", _PRINT_BITS]
  done = subprocess.run(command, env=environment, cwd=REPOSITORY, check=True, capture_output=True, text=True)
  ours = [hashlib.sha256(published(*factors(*shape)).tobytes()).hexdigest() for shape in [(768, 256), (384, 383)]]
  assert done.stdout.split() == ours


@pytest.mark.parametrize(("H", "K"), SHAPES)
def test_it_is_the_product(H, K):
  left, right = factors(H, K)
  bound = H * 2.0**-40 * np.abs(left).max(axis=1)[:, None] * np.abs(right).max(axis=0)
  assert (np.abs(exact_product(left, right) - left @ right) <= bound).all()


def test_small_whole_numbers_are_exact_and_nothing_is_divided_by_zero():
  left, right = np.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]]), np.array([[4.0, 0.0], [5.0, 0.0], [1e-300, 0.0]])
  with np.errstate(all="raise", under="ignore"):
    assert exact_product(left, right).tolist() == [[-6.0, 0.0], [0.0, 0.0]]
  assert exact_product(np.empty((0, 3)), right).shape == (0, 2)


def test_a_row_that_is_not_finite_stays_so_and_spoils_no_other():
  left, right = factors(8, 3, 3)
  left[1, 2] = np.nan
  product = exact_product(left, right)
  assert np.isnan(product[1]).all()
  assert (product[[0, 2]] == exact_product(left[[0, 2]], right)).all()
