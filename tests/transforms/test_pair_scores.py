import numpy as np
import pytest
from scipy import stats

from transforms import pair_scores
from transforms.pair_scores import (
  Agreement,
  Threshold,
  area_under_curve,
  best_thresholds,
  correlate,
  cosines_of,
  margin_of_gain,
)


@pytest.fixture
def generator():
  return np.random.default_rng(5)


def test_cosines_by_hand():
  first = np.array([[3.0, 4.0], [1, 0], [0, 0], [1, 1]], np.float32)
  second = np.array([[3.0, 4.0], [0, 2], [1, 1], [-2, -2]], np.float32)
  np.testing.assert_allclose(cosines_of(first, second), [1, 0, 0, -1], atol=1e-15)


def test_correlations_are_scipys_with_ties_too(generator):
  scores = generator.integers(0, 6, 200).astype(float)
  cosines = (scores + generator.normal(0, 2, 200)).round(1)
  found = Agreement.of(cosines, scores)
  assert found.spearman == pytest.approx(stats.spearmanr(cosines, scores)[0], abs=1e-12)
  assert found.pearson == pytest.approx(stats.pearsonr(cosines, scores)[0], abs=1e-12)
  assert found.auc is found.accuracy is found.f1 is None


@pytest.mark.parametrize("resampled", [400, 10_000])  # of more pairs than are drawn, and of all
def test_the_margin_is_what_other_pairs_would_give(monkeypatch, resampled):
  monkeypatch.setattr(pair_scores, "_RESAMPLED", resampled)
  generator, P = np.random.default_rng(1), 1600

  def drawn():
    scores = generator.normal(size=P)
    raw = scores + generator.normal(0, 1.5, P)
    return raw, raw + generator.normal(0, 0.5, P), scores

  def gain(raw, whitened, scores):
    return stats.spearmanr(whitened, scores)[0] - stats.spearmanr(raw, scores)[0]

  expected = 1.96 * np.std([gain(*drawn()) for _ in range(100)])
  pairs = drawn()
  assert margin_of_gain(*pairs) == pytest.approx(expected, rel=0.25)
  assert margin_of_gain(*pairs) == margin_of_gain(*pairs)  # seeded


def test_of_few_pairs_or_of_what_does_not_vary_there_is_no_margin(generator):
  x = generator.random((3, 30))
  assert margin_of_gain(*x) > 0 and margin_of_gain(*x[:, :29]) is None
  assert margin_of_gain(np.ones(30), x[1], x[2]) is None


def test_only_the_order_counts_for_spearman(generator):
  scores, cosines = generator.random(50), generator.random(50)
  assert Agreement.of(cosines, scores).spearman == pytest.approx(Agreement.of(np.exp(9 * cosines), scores).spearman)
  assert Agreement.of(scores, scores) == Agreement(pytest.approx(1), pytest.approx(1))


def test_what_does_not_vary_correlates_with_nothing():
  assert Agreement.of(np.ones(5), np.arange(5.0)) == Agreement(None, None)
  assert Agreement.of(np.arange(5.0), np.ones(5)) == Agreement(None, None)
  assert correlate(np.array([1.0]), np.array([1.0])) is None


def test_the_area_is_the_share_of_pairs_in_order(generator):
  cosines, labels = generator.random(60).round(1), generator.random(60) > 0.6
  pairs = [(a, b) for a in cosines[labels] for b in cosines[~labels]]
  expected = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])
  assert area_under_curve(cosines, labels) == pytest.approx(expected, abs=1e-12)


def test_thresholds_by_hand():
  cosines = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
  labels = np.array([True, False, True, True, False, False])
  accuracy, f1 = best_thresholds(cosines, labels)
  assert (accuracy.at, accuracy.value) == pytest.approx((0.55, 5 / 6))
  assert (f1.at, f1.value) == pytest.approx((0.55, 6 / 7))


def test_equal_cosines_are_not_parted():
  accuracy, f1 = best_thresholds(np.array([0.5, 0.5, 0.1]), np.array([True, False, False]))
  assert (accuracy.value, f1.value) == pytest.approx((2 / 3, 2 / 3)) and f1.at == pytest.approx(0.3)


def test_cosines_that_differ_by_rounding_are_equal(generator):
  noise = generator.integers(-9, 9, 40) * 2.0**-53
  cosines, labels = np.repeat([1.0, 0.25], 20) + noise, np.tile([1.0, 0.0, 1.0, 1.0], 10)
  assert len(set(cosines)) > 20
  found = Agreement.of(cosines, labels, binary=True)
  assert (found.spearman, found.auc) == (pytest.approx(0, abs=1e-12), 0.5)
  assert found.accuracy.value == 0.75 and found.accuracy.at < 0.25  # everything is alike
  nearest = Agreement.of(np.array([1.0, np.nextafter(1.0, 0), 0.5]), np.array([1.0, 1.0, 0.0]), binary=True)
  assert nearest.f1 == Threshold(0.75, 1.0)  # halfway between two that differ, not one of them


def test_no_threshold_beats_the_best_one(generator):
  cosines, labels = generator.random(40).round(1), generator.random(40) > 0.5
  for which, found in enumerate(best_thresholds(cosines, labels)):

    def value(at, which=which):
      taken = cosines >= at
      hits = (taken & labels).sum()
      return (taken == labels).mean() if which == 0 else 2 * hits / (taken.sum() + labels.sum())

    assert value(found.at) == pytest.approx(found.value)
    assert found.value == pytest.approx(max(value(at) for at in np.linspace(-0.05, 1.1, 24)[:-1]))


def test_everything_is_alike_where_that_is_best():
  _, f1 = best_thresholds(np.array([0.1, 0.2, 0.3]), np.array([True, True, False]))
  assert f1.value == pytest.approx(0.8) and f1.at < 0.1


def test_labels_have_all_of_it():
  found = Agreement.of(np.array([0.9, 0.1]), np.array([1.0, 0.0]), binary=True)
  assert found == Agreement(pytest.approx(1), pytest.approx(1), 1.0, Threshold(0.5, 1.0), Threshold(0.5, 1.0))
