"""Settle ids: of two documents with one id the lowest (file, position) stays, the others are rejected.

Only 32 bytes of a document cross the shuffle: its id's digest, its bucket and row there, and where it stood.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa

from transforms.digests import DIGEST_TYPE, bucket_of, digest_array, from_arrow, to_arrow
from transforms.errors import StoreError
from transforms.progress_file import ProgressFile
from transforms.records import BucketRecord
from transforms.run_plan import RunPlan
from transforms.storage import sha256
from transforms.vector_table import documents_schema, from_ipc, read_parquet, to_ipc

ID_SCHEMA = pa.schema(
  [
    pa.field("id_digest", DIGEST_TYPE),
    pa.field("bucket", pa.int32()),
    pa.field("row", pa.int32()),
    pa.field("source_file", pa.int32()),
    pa.field("source_position", pa.int64()),
  ]
)


@dataclass(frozen=True)
class SettledBucket:
  """A bucket whose ids are settled: `dropped` int64 [D] are the rows of its documents' file that have lost theirs."""

  record: BucketRecord
  dropped: np.ndarray


def read_documents_file(plan: RunPlan, record: BucketRecord) -> pa.Table:
  """Returns the documents of a bucket in their settled order; raises StoreError for a missing or damaged file."""
  path = record.documents.path
  try:
    data = plan.storage.read(path)
  except FileNotFoundError as error:
    raise StoreError(f"{path}: a file that this run wrote is gone; run again") from error
  if sha256(data) != record.documents.sha256:
    raise StoreError(f"{path}: damaged (its sha256 is not the one that was recorded); run again")
  return read_parquet(data, path, documents_schema(plan.kept))


def id_table(documents: pa.Table, bucket: int, id_column: str = "doc_id") -> pa.Table:
  """Returns one row of `ID_SCHEMA` for each document of a bucket; a chunk goes by the id of its document."""
  columns = [
    to_arrow(digest_array(documents[id_column].to_pylist())),
    pa.array(np.full(len(documents), bucket, np.int32)),
    pa.array(np.arange(len(documents), dtype=np.int32)),
    documents["source_file"],
    documents["source_position"],
  ]
  return pa.table(columns, schema=ID_SCHEMA)


def find_losers(ids: pa.Table) -> pa.Table:
  """Returns (bucket, row) of every document of `ID_SCHEMA` whose id an earlier one has; input order does not matter.

  Rows that stood in the same place are chunks of one document, and share its fate.
  """
  order = [("id_digest", "ascending"), ("source_file", "ascending"), ("source_position", "ascending")]
  ids = ids.sort_by(order)
  digests = from_arrow(ids["id_digest"])
  is_first = np.append(True, digests[1:] != digests[:-1])[: len(ids)]
  winner = np.maximum.accumulate(np.where(is_first, np.arange(len(ids)), 0))
  files, positions = ids["source_file"].to_numpy(), ids["source_position"].to_numpy()
  again = (files != files[winner]) | (positions != positions[winner])
  return ids.filter(pa.array(again)).select(["bucket", "row"])


class _IdBlocks(beam.DoFn):
  """BucketRecord → (id part, block of ids)."""

  def __init__(self, plan: RunPlan):
    super().__init__()
    self._plan = plan

  def process(self, record: BucketRecord) -> Iterator[tuple[int, bytes]]:
    ProgressFile.of_worker(self._plan.storage, self._plan.folder).add()  # a sign of life
    table = id_table(read_documents_file(self._plan, record), record.bucket, self._plan.owner_column)
    part_of = bucket_of(from_arrow(table["id_digest"]), self._plan.id_bits)
    for part in np.unique(part_of):
      yield int(part), to_ipc(table.filter(pa.array(part_of == part)))


def _losers_by_bucket(keyed: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, np.ndarray]]:
  """(id part, blocks) → (bucket, rows that lost their id)."""
  losers = find_losers(from_ipc(list(keyed[1]), ID_SCHEMA))
  buckets, rows = losers["bucket"].to_numpy(), losers["row"].to_numpy()
  for bucket in np.unique(buckets):
    yield int(bucket), rows[buckets == bucket]


def _settle(keyed: tuple[int, tuple[Iterable[BucketRecord], Iterable[np.ndarray]]]) -> SettledBucket:
  """(bucket, (its one record, arrays of lost rows)) → SettledBucket."""
  records, dropped = list(keyed[1][0]), list(keyed[1][1])
  assert len(records) == 1, (keyed[0], len(records))
  return SettledBucket(records[0], np.sort(np.concatenate([np.empty(0, np.int64), *dropped])))


@dataclass
class SettleIds(beam.PTransform):
  """Bucket records → settled buckets. Ids made from file and position are unique: then nothing is shuffled."""

  plan: RunPlan

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, records: beam.PCollection) -> beam.PCollection:
    if self.plan.options.id_column is None:
      return records | "AsTheyAre" >> beam.Map(lambda record: SettledBucket(record, np.empty(0, np.int64)))
    losers = (
      records
      | "ReadIds" >> beam.ParDo(_IdBlocks(self.plan))  # (id part, block)
      | "GatherIds" >> beam.GroupByKey()  # (id part, blocks)
      | "FindLosers" >> beam.FlatMap(_losers_by_bucket)  # (bucket, rows)
    )
    keyed = records | "KeyByBucket" >> beam.Map(lambda record: (record.bucket, record))
    return (keyed, losers) | "JoinLosers" >> beam.CoGroupByKey() | "Settle" >> beam.Map(_settle)
