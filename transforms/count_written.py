"""Count the published rows by input file: sums that hold the files they have met, whatever the number of buckets."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import apache_beam as beam
import numpy as np

from transforms.records import WrittenRecord

# Sums of many buckets have many files each; they go to one worker only once they are few.
_FANOUT = 32


class CountWrittenFn(beam.CombineFn):
  """{number of an input file: rows of one shard that come from it} → int64 [n_files]."""

  def __init__(self, n_files: int):
    super().__init__()
    self._n_files = n_files

  def create_accumulator(self) -> Counter[int]:
    return Counter()  # an array of all files would be 0.8 MB for 100,000, and a cluster may ship one for each bucket

  def add_input(self, accumulator: Counter[int], element: Mapping[int, int]) -> Counter[int]:
    accumulator.update(element)
    return accumulator

  def merge_accumulators(self, accumulators: Iterable[Counter[int]]) -> Counter[int]:
    merged = self.create_accumulator()
    for accumulator in accumulators:
      merged.update(accumulator)
    return merged

  def extract_output(self, accumulator: Counter[int]) -> np.ndarray:
    rows = np.zeros(self._n_files, np.int64)
    rows[list(accumulator.keys())] = list(accumulator.values())
    return rows


@dataclass
class CountWritten(beam.PTransform):
  """{number of an input file: rows} of all shards → one WrittenRecord."""

  n_files: int

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, rows: beam.PCollection) -> beam.PCollection:
    return (
      rows
      | "Sum" >> beam.CombineGlobally(CountWrittenFn(self.n_files)).with_fanout(_FANOUT)  # int64 [n_files]
      | "Record" >> beam.Map(_record)
    )


def _record(rows: np.ndarray) -> WrittenRecord:
  return WrittenRecord(tuple(rows.tolist()))
