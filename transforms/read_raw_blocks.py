"""Read the raw vectors of settled buckets as blocks, each distinct text weighed by its surviving documents."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from transforms.digests import from_arrow
from transforms.moments import VectorBlock
from transforms.progress_file import ProgressFile
from transforms.raw_store import vectors_of
from transforms.run_plan import RunPlan
from transforms.settle_ids import SettledBucket, read_documents_file

# Large enough for BLAS to run at full rate, small enough that its float64 copy stays in 25 MB.
BLOCK_ROWS = 4096
# An engine combines within a bundle and ships what it has at its end, and a bundle may be one bucket: 65,536 moments of
# 4.7 MB, all to one key. This is what that key may get; Flink's RocksDB takes 2 GB for one, and its reader's heap less.
_MOMENTS_BYTES = 512 << 20


def surviving_documents(plan: RunPlan, settled: SettledBucket) -> pa.Table:
  """Returns the documents of a bucket that kept their id, in order."""
  documents = read_documents_file(plan, settled.record)
  survives = np.ones(len(documents), dtype=bool)
  survives[settled.dropped] = False
  return documents.filter(pa.array(survives))


def read_sample(plan: RunPlan, settled: Iterable[SettledBucket], most: int) -> np.ndarray:
  """Returns the raw vectors float32 [≤ most, H] of the distinct texts with the lowest digests, in their order.

  Digests are uniform, so this is a fair sample, and the same each night as far as the texts are. Only the buckets that
  it lies in are read.
  """
  blocks, wanted = [np.empty((0, plan.store.hidden_size), np.float32)], most
  for bucket in sorted(settled, key=lambda bucket: bucket.record.bucket):
    if not wanted:
      break
    digests = np.unique(from_arrow(surviving_documents(plan, bucket)["text_digest"]))[:wanted]
    blocks.append(_vectors_of(plan, bucket.record.raw_files, digests))
    wanted -= len(digests)
  return np.concatenate(blocks)


def _vectors_of(plan: RunPlan, raw_files: Sequence[str], digests: np.ndarray) -> np.ndarray:
  """Reads the raw vectors of sorted, distinct digests [N], and no file more once all are found."""
  vectors, missing = np.empty((len(digests), plan.store.hidden_size), np.float32), len(digests)
  found = plan.store.select(raw_files, digests)
  while missing:
    indices, rows = next(found)
    vectors[indices] = vectors_of(rows)
    missing -= len(indices)
  return vectors


def group_bits(bits: int, hidden_size: int) -> int:
  """Returns how many bits of a digest choose the group in which 2**bits buckets are read.

  A group is read in one go, so that it ends in one accumulator of hidden_size² float64 at the most.
  """
  most = max(_MOMENTS_BYTES // (8 * hidden_size**2), 1)
  return min(bits, most.bit_length() - 1)


class _ReadRawBlocks(beam.DoFn):
  """(group, its SettledBuckets) → VectorBlock [≤ 4096, H]."""

  def __init__(self, plan: RunPlan):
    super().__init__()
    self._plan = plan

  def process(self, keyed: tuple[int, Iterable[SettledBucket]]) -> Iterator[VectorBlock]:
    for settled in sorted(keyed[1], key=lambda settled: settled.record.bucket):
      yield from self._read(settled)

  def _read(self, settled: SettledBucket) -> Iterator[VectorBlock]:
    progress = ProgressFile.of_worker(self._plan.storage, self._plan.folder)
    documents = surviving_documents(self._plan, settled)
    distinct, counts = np.unique(from_arrow(documents["text_digest"]), return_counts=True)
    for indices, rows in self._plan.store.select(settled.record.raw_files, distinct):
      progress.add()  # a large store takes long to read, and who is silent for long loses the dataset's lock
      vectors = vectors_of(rows)
      for start in range(0, len(vectors), BLOCK_ROWS):
        stop = start + BLOCK_ROWS
        yield VectorBlock(vectors[start:stop], counts[indices[start:stop]])


@dataclass
class ReadRawBlocks(beam.PTransform):
  """Settled buckets → raw blocks, to be fused with the combining of their moments: by groups, to make few of these."""

  plan: RunPlan

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, settled: beam.PCollection) -> beam.PCollection:
    finer_bits = self.plan.bits - group_bits(self.plan.bits, self.plan.store.hidden_size)
    return (
      settled
      | "ByGroup" >> beam.Map(_by_group, finer_bits)  # (group, SettledBucket)
      | "GatherGroups" >> beam.GroupByKey()  # (group, [SettledBucket])
      | "Read" >> beam.ParDo(_ReadRawBlocks(self.plan))
    )


def _by_group(settled: SettledBucket, finer_bits: int) -> tuple[int, SettledBucket]:
  return settled.record.bucket >> finer_bits, settled
