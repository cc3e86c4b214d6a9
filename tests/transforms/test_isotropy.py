import numpy as np
import pytest

from transforms.isotropy import Isotropy, effective_rank, mean_cosine


def test_the_mean_cosine_is_that_of_all_pairs():
  vectors = np.random.default_rng(0).normal(0.4, 1, (30, 5)).astype(np.float32)
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  cosines = (unit @ unit.T)[np.triu_indices(30, 1)]
  assert mean_cosine(vectors) == pytest.approx(cosines.mean(), abs=1e-6)


def test_effective_rank_counts_equal_variances_and_none_of_zero():
  assert effective_rank(np.array([2.0, 2, 2, 0])) == pytest.approx(3)
  assert effective_rank(np.array([5.0, 0, 0])) == pytest.approx(1)
  # Two variances of 3/4 and 1/4: exp of their entropy.
  assert effective_rank(np.array([3.0, 1])) == pytest.approx(1.7547653)


def test_of_vectors_whose_variances_are_known():
  # Along each axis the same two points: variances 2·9/5, 2·4/5, 2·1/5 and none.
  vectors = np.zeros((6, 4))
  for axis, size in enumerate((3, 2, 1)):
    vectors[2 * axis, axis], vectors[2 * axis + 1, axis] = size, -size
  found = Isotropy.of(vectors + np.array([0, 0, 0, 1.0]))
  np.testing.assert_allclose(found.spectrum, [3.6, 1.6, 0.4, 0], atol=1e-15)
  assert (found.rank, found.condition_number) == (3, pytest.approx(9))
  assert found.effective_rank == pytest.approx(effective_rank(np.array([3.6, 1.6, 0.4])))


def test_nothing_that_varies_has_no_condition():
  found = Isotropy.of(np.ones((4, 3)))
  assert found == Isotropy(pytest.approx(1), None, 0, None, (0.0, 0.0, 0.0))
