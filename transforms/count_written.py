"""Count the published rows by input file: sums of small arrays, whatever the number of buckets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import apache_beam as beam
import numpy as np

from transforms.records import WrittenRecord


class CountWrittenFn(beam.CombineFn):
  """{number of an input file: rows of one shard that come from it} → int64 [n_files]."""

  def __init__(self, n_files: int):
    super().__init__()
    self._n_files = n_files

  def create_accumulator(self) -> np.ndarray:
    return np.zeros(self._n_files, np.int64)

  def add_input(self, accumulator: np.ndarray, element: Mapping[int, int]) -> np.ndarray:
    for file, rows in element.items():
      accumulator[file] += rows
    return accumulator

  def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
    return np.sum([self.create_accumulator(), *accumulators], axis=0)

  def extract_output(self, accumulator: np.ndarray) -> np.ndarray:
    return accumulator


@dataclass
class CountWritten(beam.PTransform):
  """{number of an input file: rows} of all shards → one WrittenRecord."""

  n_files: int

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, rows: beam.PCollection) -> beam.PCollection:
    return (
      rows
      | "Sum" >> beam.CombineGlobally(CountWrittenFn(self.n_files))  # int64 [n_files]
      | "Record" >> beam.Map(_record)
    )


def _record(rows: np.ndarray) -> WrittenRecord:
  return WrittenRecord(tuple(rows.tolist()))
