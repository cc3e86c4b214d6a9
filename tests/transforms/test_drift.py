import tracemalloc

import numpy as np
import pytest

from transforms import drift as drift_module
from transforms.drift import MIN_SAMPLE_TEXTS, Drift, changed_neighbours, covariance_distance, mean_distance
from transforms.moments import Moments
from transforms.whitening import Whitening

H, K = 12, 5
_rng = np.random.default_rng(3)
RAW = (_rng.normal(size=(600, H)) * np.geomspace(3, 0.05, H) @ _rng.normal(size=(H, H)) + 7.0).astype(np.float32)
MOMENTS = Moments.from_vectors(RAW)
OLD = Whitening.fit(MOMENTS, K)


def unit(vectors):
  return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_corpus_does_not_drift_from_its_own_fit():
  drift = Drift.of(OLD, MOMENTS, RAW[:200])
  assert drift.mean == 0 and drift.covariance < 1e-9
  assert (drift.neighbours, drift.sample, drift.reason) == (0.0, 200, None)


def test_the_same_documents_in_another_order_change_no_neighbour():
  shuffled = Moments.from_vectors(RAW[::-1][:100]) + Moments.from_vectors(RAW[::-1][100:])
  drift = Drift.of(OLD, shuffled, RAW[:200])
  assert drift.mean < 1e-9 and drift.covariance < 1e-9 and drift.neighbours == 0


def test_distances_are_those_of_the_formulas():
  # Variances 4 and 1 along the axes, K = 2, so that a kernel halves the first and keeps the second.
  old = Whitening(np.array([1.0, 1.0]), np.diag([0.5, 1.0]), np.array([4.0, 1.0]), 10, "")
  points = np.array([[4.0, 1.0], [-4.0, 1.0], [0.0, 1.0]])  # mean (0, 1), variances 16 and 0
  moments = Moments.from_vectors(points)
  assert mean_distance(old, moments) == pytest.approx(0.5 / np.sqrt(2))  # one to the left is half a deviation
  assert covariance_distance(old, moments) == pytest.approx(np.sqrt(3**2 + 1**2) / np.sqrt(2))  # 4 and 0, not 1 and 1


def test_every_component_shifted_by_its_deviation_is_a_distance_of_1():
  variance, directions = np.linalg.eigh(MOMENTS.covariance())
  one_deviation = directions[:, ::-1][:, :K] @ np.sqrt(variance[::-1][:K])
  shifted = Moments(MOMENTS.count, MOMENTS.mean + one_deviation, MOMENTS.scatter)
  assert mean_distance(OLD, shifted) == pytest.approx(1.0)
  twice = Moments(MOMENTS.count, MOMENTS.mean, MOMENTS.scatter * 2)
  assert covariance_distance(OLD, twice) == pytest.approx(1.0)


def ring(n):
  """Unit vectors around a circle, each nearer to its neighbours than the one before: no two cosines are alike."""
  angle = np.cumsum(np.linspace(1, 2, n)) * 0.01
  return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def test_the_share_of_neighbours_that_differ():
  points = ring(100)
  assert changed_neighbours(points, points) == 0
  turned = points @ np.array([[0, 1], [-1, 0]], np.float32)
  assert changed_neighbours(points, turned) == 0  # cosines are what counts
  moved = points.copy()
  moved[0] = -points[0]  # far from all: its ten change, and so does one of each text that had it among its ten
  changed = changed_neighbours(points, moved)
  had_it = sum(0 in np.argsort(-(points @ p))[1:11] for p in points[1:])
  assert changed == pytest.approx((10 + had_it) / 1000)


def test_two_groups_that_mix_change_every_neighbour():
  near, far = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
  rng = np.random.default_rng(0)
  jitter = rng.normal(size=(22, 2)) * 1e-3
  one = unit(np.concatenate([np.repeat(near, 11, 0), np.repeat(far, 11, 0)]) + jitter)
  other = unit(np.stack([near[0], far[0]] * 11) + jitter)
  # Groups 0–10 and 11–21 against even and odd: of its ten, a text keeps the 5 of its group with its parity, or 4 + 1.
  assert changed_neighbours(one, other) == pytest.approx(1 - np.mean([5] * 6 + [4] * 5 + [4] * 5 + [5] * 6) / 10)


def test_texts_with_one_vector_are_no_change():
  points = np.repeat(ring(12), 25, axis=0)
  up = np.random.default_rng(0).integers(0, 2, points.shape).astype(bool)
  noise = np.where(up, np.nextafter(points, np.float32(2)), np.nextafter(points, np.float32(-2)))
  assert changed_neighbours(points, noise) == 0


@pytest.mark.parametrize("block", [1, 7 * 137, 1 << 22])  # a row, seven, all at once
def test_neighbours_are_those_of_a_full_sort_in_blocks_too(monkeypatch, block):
  monkeypatch.setattr(drift_module, "_BLOCK", block)
  rng = np.random.default_rng(1)
  # Whole numbers from −1 to 1, of which many cosines are equal: the first of them counts.
  one, other = (unit(rng.integers(-1, 2, (137, 4)) + np.array([2, 0, 0, 0])) for _ in range(2))

  def nearest(points):
    cosines = (points @ points.T).round(5)
    np.fill_diagonal(cosines, -np.inf)
    return [set(row[:10]) for row in np.argsort(-cosines, axis=1, kind="stable")]

  common = sum(len(a & b) for a, b in zip(nearest(one), nearest(other), strict=True))
  assert changed_neighbours(one, other) == 1 - common / 1370


def test_memory_does_not_grow_with_the_square_of_the_texts():
  points = unit(np.random.default_rng(0).normal(size=(6000, 8)))
  tracemalloc.start()
  changed_neighbours(points, points)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 100e6  # all cosines alone are 144 MB


def test_too_few_texts():
  with pytest.raises(ValueError, match="10 neighbours of 10 texts"):
    changed_neighbours(ring(10), ring(10))
  assert changed_neighbours(ring(11), -ring(11)) == 0
  drift = Drift.of(OLD, MOMENTS, RAW[: MIN_SAMPLE_TEXTS - 1])
  assert drift.neighbours is None and drift.reason == "99 texts are too few to compare neighbours, 100 are needed"
  assert drift.mean == 0 and not drift.is_above(0)
  assert Drift.of(OLD, MOMENTS, RAW[:MIN_SAMPLE_TEXTS]).neighbours == 0


@pytest.mark.parametrize(("count", "known"), [(0, (False, False)), (1, (True, False)), (6, (True, True))])
def test_too_few_documents_for_a_new_fit(count, known):
  drift = Drift.of(OLD, Moments.from_vectors(RAW[:count]), RAW[:count])
  assert drift.neighbours is None and drift.reason.startswith(f"no new fit is possible: {count} documents are too few")
  assert (drift.mean is not None, drift.covariance is not None) == known


def test_drift_grows_with_what_is_new():
  other = (RAW * np.geomspace(1, 3, H) + 1).astype(np.float32)[::-1]
  drifts = [Drift.of(OLD, Moments.from_vectors(np.concatenate([RAW[n:], other[:n]])), RAW[-200:]) for n in (0, 60, 400)]
  for key in ("mean", "covariance", "neighbours"):
    values = [getattr(drift, key) for drift in drifts]
    assert values[0] < values[1] < values[2] and values[0] < 1e-9, key
  assert drifts[2].is_above(drifts[1].neighbours) and not drifts[1].is_above(drifts[1].neighbours)
