from dataclasses import replace

import numpy as np
import pytest

from pipeline.fit_whitening import FitWhitening, LastWhitening
from tests.run_parts import encode_by_bucket, make_plan
from transforms.moments import Moments
from transforms.rows import Row
from transforms.settle_ids import SettledBucket
from transforms.whitening import Whitening
from transforms.write_vectors import NoWhitening

H, K = 4, 2
RAW = np.random.default_rng(0).normal(size=(300, H)).astype(np.float32) * [4, 3, 2, 1] + 5
MOMENTS = Moments.from_vectors(RAW)
FITTED = Whitening.fit(MOMENTS, K, "enc")
LAST = LastWhitening("r0", Whitening.fit(Moments.from_vectors(RAW[:200] * [1, 1, 2, 1]), K), "fit", "r0", None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A plan, and 150 texts in four buckets."""
  plan = make_plan(tmp_path_factory.mktemp("ds"), bits=2)
  rows = [Row(i, f"id {i}", f"red {i} tree", ()) for i in range(150)]
  return plan, [SettledBucket(r, np.empty(0, np.int64)) for r in encode_by_bucket(plan, rows)]


def test_the_first_night_fits_and_reads_no_text():
  decision = FitWhitening("enc", K)(MOMENTS, make_plan("/nowhere"), ())
  assert decision.whitening.fingerprint == FITTED.fingerprint
  assert (decision.fitted_by, decision.drift, decision.describe_drift()) == ("r1", None, None)


def test_what_is_given_is_taken_and_its_origin_carried_on(run):
  last = replace(LAST, fitted_by="older")
  decision = FitWhitening("enc", given=LAST.whitening, given_by="older", last=last)(MOMENTS, *run)
  assert decision.whitening is LAST.whitening and decision.fitted_by == "older"
  described = decision.describe_drift()
  assert described.keys() == {"against", "fitted_by", "mean", "covariance", "neighbours", "sample", "reason"}
  assert (described["against"], described["fitted_by"]) == ("r0", "older")
  assert (described["sample"], described["reason"]) == (150, None)
  assert 0 < described["neighbours"] < 1 and described["neighbours"] == round(decision.drift.neighbours, 6)


def test_it_is_fitted_anew_above_the_limit_alone(run):
  options = {"n_components": K, "given": LAST.whitening, "given_by": "r0", "last": LAST}
  share = FitWhitening("enc", **options)(MOMENTS, *run).drift.neighbours
  assert FitWhitening("enc", **options, refit_above=share)(MOMENTS, *run).fitted_by == "r0"
  above = FitWhitening("enc", **options, refit_above=share - 1e-9)(MOMENTS, *run)
  assert above.fitted_by == "r1"
  assert above.whitening.fingerprint == FITTED.aligned_with(LAST.whitening).fingerprint


def test_a_new_fit_takes_its_signs_from_the_last(run):
  turned = LastWhitening("r0", replace(FITTED, kernel=-FITTED.kernel), "fit", "r0", None)
  decision = FitWhitening("enc", K, last=turned)(MOMENTS, *run)
  assert (decision.whitening.kernel == -FITTED.kernel).all() and decision.drift.neighbours == 0


def test_no_fit_is_a_verdict_and_nobody_fitted_it(run):
  decision = FitWhitening("enc", K, last=LAST)(Moments.from_vectors(RAW[:3]), *run)
  assert isinstance(decision.whitening, NoWhitening) and decision.fitted_by is None
  assert decision.drift.neighbours is None and "3 documents are too few" in decision.drift.reason


@pytest.mark.parametrize(("last", "given"), [(Whitening.none(H), FITTED), (FITTED, Whitening.none(H))])
def test_there_is_no_drift_from_no_whitening_nor_to_none(run, last, given):
  fit = FitWhitening("enc", given=given, last=LastWhitening("r0", last, "none", None, None))
  assert not fit.has_drift and fit(MOMENTS, *run).drift is None


# --- ranges of int8 vectors

RANGES = np.float32([0.5, 0.75])
CALIBRATED = replace(LAST, whitening=replace(LAST.whitening, ranges=RANGES))


def test_the_same_map_has_the_published_runs_ranges_and_another_has_none(run):
  """From a file, say, which has none: each night would measure its own, and no vector were unchanged."""
  same = FitWhitening("enc", given=LAST.whitening, last=CALIBRATED)(MOMENTS, *run).whitening
  assert same.ranges.tolist() == RANGES.tolist() and same.fingerprint == LAST.whitening.fingerprint
  assert not FitWhitening("enc", given=FITTED, last=CALIBRATED)(MOMENTS, *run).whitening.ranges.size
  assert not FitWhitening("enc", K, last=CALIBRATED)(MOMENTS, *run).whitening.ranges.size


def test_measured_ranges_are_taken_where_there_are_none():
  decision = FitWhitening("enc", K)(MOMENTS, make_plan("/nowhere"), ())
  calibrated = decision.with_ranges(RANGES)
  assert calibrated.whitening.ranges.tolist() == RANGES.tolist() and calibrated.fitted_by == "r1"
  assert calibrated.with_ranges(2 * RANGES) is calibrated
  assert decision.with_ranges(np.float32(0.25)).whitening.ranges.tolist() == [0.25, 0.25]  # of no document
  refused = replace(decision, whitening=NoWhitening("too few"))
  assert refused.with_ranges(RANGES) is refused
