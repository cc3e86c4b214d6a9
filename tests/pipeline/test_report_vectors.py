import numpy as np
import pytest

from pipeline.report_vectors import N_PAIRS, nearest, plane, random_cosines, spectrum


def vectors(n, k, seed=0):
  return np.random.default_rng(seed).normal(size=(n, k)).astype(np.float32)


def test_a_spectrum_of_known_variances():
  found = spectrum(np.diag([1.0, 4.0, 3.0, 2.0]), 2)
  np.testing.assert_allclose(found.variances, [4, 3, 2, 1])
  np.testing.assert_allclose(found.cumulative, [0.4, 0.7, 0.9, 1.0])
  assert found.kept == pytest.approx(0.7)
  assert [found.components_for(share) for share in (0.4, 0.41, 0.9, 1.0)] == [1, 2, 3, 4]


def test_a_spectrum_of_one_text_repeated_divides_by_nothing():
  found = spectrum(np.zeros((3, 3)), 1)
  assert found.kept == 0 and not found.cumulative.any()


def test_cosines_are_of_the_same_pairs_and_never_of_a_text_with_itself():
  raw = vectors(50, 8)
  found = random_cosines(raw, 2 * raw[:, ::-1])  # a rotation and a length change no cosine
  assert found.before.shape == (N_PAIRS,)
  np.testing.assert_allclose(found.before, found.after, atol=1e-12)
  # Any two rows of the identity are at right angles: a 1 would be a text beside itself.
  assert not random_cosines(np.eye(20, dtype=np.float32), np.eye(20, dtype=np.float32)).before.any()
  with pytest.raises(ValueError, match="of 1 texts"):
    random_cosines(raw[:1], raw[:1])


def test_a_common_direction_shows_in_the_cosines():
  raw = vectors(200, 16)
  found = random_cosines(raw + 2, raw)
  assert found.before.mean() > 0.7 and abs(found.after.mean()) < 0.02


def test_a_map_shows_the_directions_of_most_variance_with_signs_that_are_fixed():
  points = vectors(300, 5) * np.float32([0.1, 9, 0.1, 4, 0.1])
  found = plane(points)
  assert found.share > 0.99
  for axis, column in enumerate((1, 3)):
    assert np.corrcoef(found.points[:, axis], points[:, column])[0, 1] > 0.99
  np.testing.assert_array_equal(plane(points).points, found.points)
  with pytest.raises(ValueError, match="of 2 documents"):
    plane(points[:2])


def test_a_map_of_vectors_in_a_line_or_a_point():
  line = np.arange(5, dtype=np.float32)[:, None]
  np.testing.assert_allclose(plane(line).points, np.stack([np.arange(-2.0, 3.0), np.zeros(5)], axis=1))
  assert plane(np.ones((4, 3), np.float32)).share == 0


def test_neighbours_are_other_texts_each_once_best_first():
  unit = np.float32([[1, 0], [0.8, 0.6], [1, 0], [0.8, 0.6], [0, 1]])
  digests = np.array([b"a", b"b", b"a", b"b", b"c"])
  assert nearest(unit, digests, [0, 4], 5) == [
    [(pytest.approx(0.8), 1), (0.0, 4)],
    [(pytest.approx(0.6), 1), (0.0, 0)],
  ]
  assert [len(best) for best in nearest(unit, digests, [0], 1)] == [1]
