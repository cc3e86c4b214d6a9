"""How well cosines agree with scores that people gave to pairs of texts.

Spearman's correlation is the one that sentence similarity is judged by (Reimers, Beyer & Gurevych, "Task-Oriented
Intrinsic Evaluation of Semantic Textual Similarity", 2016): it asks for the order only. For labels, duplicate or not,
there are the area under the ROC curve and the best threshold.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# As exactly as float32 vectors say it. Beyond, cosines of equal texts differ by how they were added up, and would be
# ranked by that.
DECIMALS = 7
_RESAMPLES = 400
# A resample ranks so many pairs, and takes a millisecond or two.
_RESAMPLED = 10_000
# Of fewer pairs a resample says too little of what other pairs would give.
_MIN_PAIRS = 30


@dataclass(frozen=True)
class Threshold:
  """A cosine from which on pairs count as alike, and what it gives.

  Attributes:
    at: the cosine, halfway between two that occur.
    value: the accuracy, or F1.
  """

  at: float
  value: float


@dataclass(frozen=True)
class Agreement:
  """Of P cosines with P scores; None is what cannot be told, as all of either are the same.

  Attributes:
    spearman, pearson: correlations.
    auc: the share of (alike, not alike) pairs of pairs in which the first has the larger cosine; labels only.
    accuracy, f1: the best threshold by each; labels only.
  """

  spearman: float | None
  pearson: float | None
  auc: float | None = None
  accuracy: Threshold | None = None
  f1: Threshold | None = None

  @classmethod
  def of(cls, cosines: NDArray[Any], scores: NDArray[Any], *, binary: bool = False) -> Self:
    """Measures the agreement of cosines [P] with scores [P]; `binary` says that these are labels, 0 and 1 both.

    Cosines count to `DECIMALS`: those that are equal so far are ties, and no threshold parts them.
    """
    cosines = cosines.round(DECIMALS)
    spearman, pearson = correlate(_ranks(cosines), _ranks(scores)), correlate(cosines, scores)
    if not binary:
      return cls(spearman, pearson)
    labels = scores > 0.5
    return cls(spearman, pearson, area_under_curve(cosines, labels), *best_thresholds(cosines, labels))


def margin_of_gain(before: NDArray[Any], after: NDArray[Any], scores: NDArray[Any]) -> float | None:
  """Returns half the 95 % interval of the difference between the Spearman correlations of two cosines [P] with scores.

  A paired bootstrap (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993): pairs are drawn anew, and ranked
  anew, 400 times with a seed. Of more than 10,000 pairs so many are drawn, and the deviation scaled by the root of the
  share. None for fewer than 30 pairs, or if nothing varies.
  """
  P, generator = len(scores), np.random.default_rng(0)
  if P < _MIN_PAIRS:
    return None
  columns, n = [before.round(DECIMALS), after.round(DECIMALS), scores], min(P, _RESAMPLED)
  gains = []
  for _ in range(_RESAMPLES):
    drawn = generator.integers(0, P, n)
    one, other, wanted = (_ranks(column[drawn]) for column in columns)
    raw, whitened = correlate(one, wanted), correlate(other, wanted)
    if raw is not None and whitened is not None:
      gains.append(whitened - raw)
  return float(1.96 * np.std(gains) * np.sqrt(n / P)) if len(gains) > _RESAMPLES // 2 else None


def cosines_of(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
  """Returns the cosine float64 [P] of each pair of vectors [P, K]; 0 with a vector of length zero, which has none."""
  one, other = first.astype(np.float64, copy=False), second.astype(np.float64, copy=False)
  products = np.einsum("pk,pk->p", one, other)
  return divide(products, np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))


def divide(products: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
  """Returns products / lengths, 0 where a length is 0."""
  return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def correlate(x: NDArray[Any], y: NDArray[Any]) -> float | None:
  """Returns Pearson's correlation; None where x or y does not vary."""
  if len(x) < 2 or not np.ptp(x) > 0 or not np.ptp(y) > 0:
    return None
  return float(np.corrcoef(x, y)[0, 1])


def area_under_curve(cosines: NDArray[Any], labels: NDArray[np.bool_]) -> float:
  """Returns Mann and Whitney's U as a share; equal cosines count half."""
  alike, others = int(labels.sum()), int((~labels).sum())
  return float((_ranks(cosines)[labels].sum() - alike * (alike + 1) / 2) / (alike * others))


def best_thresholds(cosines: NDArray[Any], labels: NDArray[np.bool_]) -> tuple[Threshold, Threshold]:
  """Returns the thresholds of the best accuracy and of the best F1; of equal ones the highest."""
  order = np.argsort(-cosines, kind="stable")
  descending, hits = cosines[order], np.cumsum(labels[order])
  taken = np.arange(1, len(order) + 1)
  # A threshold cannot part equal cosines; below all of them, everything is alike.
  cuts = np.flatnonzero(np.append(descending[:-1] > descending[1:], True))
  below = np.append(descending[1:], descending[-1] - 1e-6)
  hits, taken, alike = hits[cuts], taken[cuts], int(labels.sum())
  accuracy = (hits + (len(labels) - alike) - (taken - hits)) / len(labels)
  f1 = 2 * hits / (taken + alike)
  places = (descending[cuts] + below[cuts]) / 2
  best, best_f1 = int(accuracy.argmax()), int(f1.argmax())
  return (
    Threshold(float(places[best]), float(accuracy[best])),
    Threshold(float(places[best_f1]), float(f1[best_f1])),
  )


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
  from scipy.stats import rankdata  # takes a moment to import, and only the driver needs it

  return np.asarray(rankdata(values))
