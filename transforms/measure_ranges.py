"""Measure the ranges that int8 vectors are stored in: a second pass over the raw vectors, once there is a whitening."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np

from transforms import write_vectors
from transforms.digests import from_arrow
from transforms.progress_file import ProgressFile
from transforms.read_raw_blocks import surviving_documents
from transforms.run_plan import RunPlan
from transforms.settle_ids import SettledBucket
from transforms.vector_types import ranges_of, widest
from transforms.whitening import Whitening
from transforms.write_vectors import NoWhitening, reduce_texts


def bucket_ranges(plan: RunPlan, settled: SettledBucket, whitening: Whitening) -> np.ndarray:
  """Returns the ranges float32 [K] of a bucket's vectors, those of its surviving documents, as they will be written."""
  digests = np.unique(from_arrow(surviving_documents(plan, settled)["text_digest"]))
  most = write_vectors.TEXTS_PER_PASS
  passes = (digests[start : start + most] for start in range(0, len(digests), most))
  return widest(
    ranges_of(reduce_texts(plan.store, settled.record.raw_files, some, whitening).vectors) for some in passes
  )


class RangesCombineFn(beam.CombineFn):
  """Ranges float32 [K] → those of all; an adapter, the arithmetic is `widest`'s."""

  def create_accumulator(self) -> np.ndarray:
    return widest([])

  def add_input(self, accumulator: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    return widest([accumulator, ranges])

  def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
    return widest(accumulators)

  def extract_output(self, accumulator: np.ndarray) -> np.ndarray:
    return accumulator


class _MeasureBucket(beam.DoFn):
  """(SettledBucket, whitening as side input) → float32 [K]; nothing where there is nothing to be measured any more."""

  def __init__(self, plan: RunPlan):
    super().__init__()
    self._plan = plan

  def process(self, settled: SettledBucket, whitening: Whitening | NoWhitening) -> Iterator[np.ndarray]:
    if self._plan.is_finished() or isinstance(whitening, NoWhitening) or whitening.ranges.size:
      return
    ProgressFile.of_worker(self._plan.storage, self._plan.folder).add()  # a sign of life
    yield bucket_ranges(self._plan, settled, whitening)


@dataclass
class MeasureRanges(beam.PTransform):
  """Settled buckets → a PCollection of one: the ranges float32 [K] of all, given the whitening as one of one."""

  plan: RunPlan
  whitening: Any

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, settled: beam.PCollection) -> beam.PCollection:
    return (
      settled
      | "Measure" >> beam.ParDo(_MeasureBucket(self.plan), beam.pvalue.AsSingleton(self.whitening))  # float32 [K]
      | "Widest" >> beam.CombineGlobally(RangesCombineFn())
    )
