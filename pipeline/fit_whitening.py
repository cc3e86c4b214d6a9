"""How a run comes by its whitening once its moments are known: taken as given, fitted, or fitted anew for drift."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from transforms.drift import SAMPLE_TEXTS, Drift
from transforms.moments import Moments
from transforms.read_raw_blocks import read_sample
from transforms.run_plan import RunPlan
from transforms.settle_ids import SettledBucket
from transforms.whitening import Whitening, WhiteningError
from transforms.write_vectors import NoWhitening


@dataclass(frozen=True)
class LastWhitening:
  """The whitening of the published run.

  Attributes:
    run_id: of that run.
    whitening: what its vectors went through.
    asked: how it came by it: fit, none, reuse or a path.
    fitted_by: the run in which it was first fitted; None where it was not fitted by a run of this dataset.
    n_components: as that run's options have it.
  """

  run_id: str
  whitening: Whitening
  asked: str
  fitted_by: str | None
  n_components: int | float | None


@dataclass(frozen=True)
class WhiteningDecision:
  """The whitening of a run, where it was fitted, and how far the corpus has drifted from the last one."""

  whitening: Whitening | NoWhitening
  fitted_by: str | None
  last: LastWhitening | None = None  # what the drift is of
  drift: Drift | None = None

  def with_ranges(self, ranges: np.ndarray) -> "WhiteningDecision":
    """Returns the decision with the ranges float32 [K] that were measured; those that a whitening has, it keeps."""
    if isinstance(self.whitening, NoWhitening) or self.whitening.ranges.size:
      return self
    of_all = np.broadcast_to(ranges, self.whitening.n_components).astype(np.float32)  # of no document: one number
    return replace(self, whitening=replace(self.whitening, ranges=of_all))

  def describe_drift(self) -> dict[str, Any] | None:
    """Returns the manifest's `drift`: its numbers, `against` which run, whose whitening was `fitted_by` which.

    None where there is none.
    """
    if self.drift is None or self.last is None:
      return None
    return {"against": self.last.run_id, "fitted_by": self.last.fitted_by, **_rounded(asdict(self.drift))}


@dataclass(frozen=True)
class FitWhitening:
  """How a run comes by its whitening.

  Attributes:
    encoder_fingerprint: of the raw vectors.
    n_components: of a fit, see `Whitening.fit`.
    given: taken as it is; None to fit.
    given_by: the run that fitted it, None if no run of the dataset did.
    last: of the published run: what drift is measured against, and what a new fit takes its signs from.
    refit_above: the share of neighbours above which it is fitted although one is given.
  """

  encoder_fingerprint: str
  n_components: int | float | None = None
  given: Whitening | None = None
  given_by: str | None = None
  last: LastWhitening | None = None
  refit_above: float | None = None

  @property
  def has_drift(self) -> bool:
    """Says whether there is drift to measure: none from no whitening, nor to none."""
    given_none = self.given is not None and self.given.is_none
    return self.last is not None and not self.last.whitening.is_none and not given_none

  def __call__(self, moments: Moments, run: RunPlan, settled: Iterable[SettledBucket]) -> WhiteningDecision:
    """Returns the whitening, or the verdict that none can be fitted: raising would make the engine run it all again.

    Args:
      moments: of all documents.
      run: the run.
      settled: its buckets; those with the lowest digests are read for the drift.
    """
    last = self.last if self.has_drift else None
    drift = Drift.of(last.whitening, moments, read_sample(run, settled, SAMPLE_TEXTS)) if last else None
    is_above = drift is not None and self.refit_above is not None and drift.is_above(self.refit_above)
    if self.given is not None and not is_above:
      return WhiteningDecision(self._with_last_ranges(self.given), self.given_by, last, drift)
    fitted = self._fit(moments)
    return WhiteningDecision(fitted, run.run_id if isinstance(fitted, Whitening) else None, last, drift)

  def _with_last_ranges(self, given: Whitening) -> Whitening:
    """Returns what is given, with the published run's ranges where it is the same map: no night measures its own."""
    last = self.last.whitening if self.last else None
    if last is None or not last.ranges.size or given.ranges.size or last.fingerprint != given.fingerprint:
      return given
    return replace(given, ranges=last.ranges)

  def _fit(self, moments: Moments) -> Whitening | NoWhitening:
    try:
      whitening = Whitening.fit(moments, self.n_components, self.encoder_fingerprint)
    except WhiteningError as error:
      return NoWhitening(str(error))
    return whitening.aligned_with(self.last.whitening) if self.last else whitening


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
  return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}
