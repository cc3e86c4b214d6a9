"""From what a sample took to what a corpus will: arithmetic alone, nothing is measured here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transforms.batching import token_budget_batches

# Half of the width of a 95 % interval, in standard errors.
_SIGMAS = 1.96
# Buckets of one corpus have the same lengths but for chance: a few tell the padding of all.
_MAX_LOTS = 8


@dataclass(frozen=True)
class Count:
  """How many there are, give or take `margin` (95 %); exact where that is 0."""

  number: int
  margin: int


@dataclass(frozen=True)
class Work:
  """What a run has to do.

  Attributes:
    documents: to read, shuffle and write.
    computed_tokens: to encode, padding counted.
    text_bytes: as listed; each wave reads all of them.
    waves: how many.
  """

  documents: float
  computed_tokens: float
  text_bytes: float
  waves: int


@dataclass(frozen=True)
class Costs:
  """Seconds that one machine takes.

  Attributes:
    loading: until the encoder is ready, whatever the corpus.
    wave: to make and start the pipeline of a wave.
    finish: the same of the last one, and to write the report.
    per_document: of everything but encoding.
    per_text_byte: of reading it once more, in a further wave.
    per_token: of encoding, padding counted, while all threads encode.
  """

  loading: float
  wave: float
  finish: float
  per_document: float
  per_text_byte: float
  per_token: float


@dataclass(frozen=True)
class Seconds:
  """What a run takes, by what it is spent on."""

  loading: float
  encoding: float
  rest: float

  @property
  def total(self) -> float:
    """All of it."""
    return self.loading + self.encoding + self.rest


def count_documents(counts: np.ndarray, sizes: np.ndarray, total: float, *, is_whole: bool) -> Count:
  """Returns how many documents a corpus has, from the pieces of it that were read.

  The ratio estimator of sampling theory: documents a byte, and how far the pieces lie from it (Cochran, Sampling
  Techniques, 1977, 6.4).

  Args:
    counts: int [P], documents of each piece.
    sizes: float [P], its bytes.
    total: bytes of the corpus.
    is_whole: the pieces are the corpus.
  """
  found, read = int(counts.sum()), float(sizes.sum())
  if is_whole or not read:
    return Count(found, 0)
  ratio, n = found / read, len(counts)
  if n < 2:
    return Count(round(ratio * total), round(ratio * total))
  unread = max(0.0, 1 - read / total)
  error = math.sqrt(unread * float(((counts - ratio * sizes) ** 2).sum()) / (n * (n - 1))) / (read / n)
  return Count(round(ratio * total), round(_SIGMAS * error * total))


def cut_lots(n_sampled: int, n_texts: int, n_buckets: int, buckets: np.ndarray | None = None) -> list[np.ndarray]:
  """Returns sampled texts dealt into lots as a run deals texts into buckets, for each the rows int64 [B].

  Args:
    n_sampled: texts in the sample.
    n_texts: texts in the corpus.
    n_buckets: of the run.
    buckets: int [n_sampled], that of each sampled text, where the sample is the whole corpus; else lots as large as a
      bucket will be are drawn at random, seeded.
  """
  if buckets is not None:
    return [rows for bucket in range(n_buckets) if len(rows := np.flatnonzero(buckets == bucket))]
  generator, each = np.random.default_rng(0), max(1, round(n_texts / n_buckets))
  return [generator.integers(n_sampled, size=each) for _ in range(min(n_buckets, _MAX_LOTS)) if n_sampled]


def cut_batches(lengths: np.ndarray, lots: Sequence[np.ndarray], token_budget: int) -> list[np.ndarray]:
  """Returns the batches of all lots, int64 [B] each, those with the shortest texts first.

  Args:
    lengths: int [N], tokens of each sampled text.
    lots: rows of each lot.
    token_budget: of a batch.
  """
  batches = [lot[batch] for lot in lots for batch in token_budget_batches(lengths[lot], token_budget)]
  return sorted(batches, key=lambda rows: int(lengths[rows].max()))


def padding_share(lengths: np.ndarray, batches: Sequence[np.ndarray]) -> float:
  """Returns what part of the computed tokens is padding."""
  computed = sum(len(rows) * int(lengths[rows].max()) for rows in batches)
  return 1 - sum(int(lengths[rows].sum()) for rows in batches) / computed if computed else 0.0


def fit_line(few: tuple[int, float], many: tuple[int, float]) -> tuple[float, float]:
  """Returns (seconds whatever the number, seconds for each) of two trials, each (how many, seconds); none below 0."""
  (n0, s0), (n1, s1) = few, many
  slope = max(0.0, (s1 - s0) / (n1 - n0)) if n1 > n0 else 0.0
  return max(0.0, s0 - slope * n0), slope


def forecast(work: Work, costs: Costs, workers: int = 1) -> Seconds:
  """Returns what a run takes on so many machines, if they share the work evenly and cost nothing by being several."""
  again = costs.per_text_byte * work.text_bytes * (work.waves - 1)
  fixed = costs.wave * work.waves + costs.finish
  return Seconds(
    loading=costs.loading,
    encoding=costs.per_token * work.computed_tokens / workers,
    rest=fixed + (costs.per_document * work.documents + again) / workers,
  )
