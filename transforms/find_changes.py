"""Find what changed since the published run: which documents to upsert and which to delete, for a vector database.

An unchanged document has the text that it had, so it lies in the same range of text digests in both runs: shards are
compared range by range, without their vectors. Only what differs crosses a shuffle, as ids: a text that was edited has
moved to another range, and its two sides meet again under their id. Memory holds one range's rows without vectors, or
one part's ids.

With a new whitening every vector is another one. Then nothing is compared, but the ids of both runs are shuffled, to
tell what is gone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.base_run import BaseRun, BaseShard
from transforms.digests import bucket_of, digest_array
from transforms.errors import StoreError
from transforms.progress_file import ProgressFile
from transforms.records import ChangesRecord, ComparedRecord, ShardRecord
from transforms.run_plan import RunPlan
from transforms.storage import Storage, StoredFile
from transforms.vector_table import CHANGES_SCHEMA, from_ipc, to_ipc, to_parquet
from transforms.vector_types import coding
from transforms.whitening import Whitening
from transforms.write_vectors import NoWhitening

UPSERT, DELETE = "upsert", "delete"
_COMPARED = "compared"
_SIDES_SCHEMA = pa.schema([pa.field("doc_id", pa.string()), pa.field("is_new", pa.bool_())])


@dataclass(frozen=True)
class Change:
  """What the ids of one part come to: `table` of CHANGES_SCHEMA, sorted by id, and how many of which kind."""

  table: pa.Table
  new: int
  changed: int
  gone: int


def read_rows(storage: Storage, files: Sequence[StoredFile], ids_only: bool = False) -> pa.Table:
  """Reads the published rows of some shards of one run without their vectors; with `ids_only`, just `doc_id`.

  Raises:
    StoreError: a shard is not there, has not the size or the rows that were recorded, or cannot be read.
  """
  tables = [_read_rows(storage, file, ids_only) for file in files]
  return pa.concat_tables(tables) if tables else pa.table({"doc_id": pa.array([], pa.string())})


def _read_rows(storage: Storage, file: StoredFile, ids_only: bool) -> pa.Table:
  try:
    if storage.size(file.path) != file.bytes:
      raise StoreError(f"{file.path}: missing, or not of the {file.bytes:,} bytes that its manifest names")
    with storage.open(file.path) as source, pq.ParquetFile(source) as parquet:
      table = parquet.read(columns=[n for n in _names(parquet) if n == "doc_id" or not ids_only])
    table.validate(full=True)
    if len(table) != file.rows or "doc_id" not in table.column_names:
      raise StoreError(f"{file.path}: not the rows that its manifest names")
  except (pa.ArrowException, OSError, ValueError) as error:
    raise StoreError(f"{file.path}: cannot be read ({' '.join(str(error).split())[:120]})") from error
  return table


def _names(parquet: pq.ParquetFile) -> list[str]:
  return [name for name in parquet.schema_arrow.names if name != "vector"]


def find_differing(new: pa.Table, base: pa.Table, comparable: bool) -> tuple[pa.Table, int]:
  """Compares the rows of one range of text digests in two runs.

  Args:
    new: rows without vectors, of the new run.
    base: the same of the run before.
    comparable: whether equal rows have equal vectors; if not, only ids are looked at.

  Returns:
    (the ids that have no equal row on the other side, each with its side; how many rows are equal)
  """
  if not comparable or _types(new) != _types(base):
    return _sides(new["doc_id"], base["doc_id"]), 0
  new_ids, base_ids = (digest_array(rows["doc_id"].to_pylist()) for rows in (new, base))
  _, at_new, at_base = np.intersect1d(new_ids, base_ids, return_indices=True)
  same = equal_rows(new.take(at_new), base.select(new.column_names).take(at_base))
  left = (_without(new["doc_id"], at_new[same]), _without(base["doc_id"], at_base[same]))
  return _sides(*left), int(same.sum())


def _types(rows: pa.Table) -> dict[str, pa.DataType]:
  return {field.name: field.type for field in rows.schema}


def _without(ids: pa.ChunkedArray, at: np.ndarray) -> pa.ChunkedArray:
  keep = np.ones(len(ids), dtype=bool)
  keep[at] = False
  return ids.filter(pa.array(keep))


def _sides(new: pa.ChunkedArray, base: pa.ChunkedArray) -> pa.Table:
  is_new = np.arange(len(new) + len(base)) < len(new)
  return pa.table([pa.chunked_array([*new.chunks, *base.chunks], pa.string()), is_new], schema=_SIDES_SCHEMA)


def equal_rows(a: pa.Table, b: pa.Table) -> np.ndarray:
  """Says for each row of two tables [N] of one schema whether all its values are the same: bool [N]."""
  same = np.ones(len(a), dtype=bool)
  for name in a.column_names:
    same &= _equal(a[name].combine_chunks(), b[name].combine_chunks())
  return same


def _equal(a: pa.Array, b: pa.Array) -> np.ndarray:
  if not len(a):  # ranges that share no id are usual, and nothing can be folded into no rows of an unknown width
    return np.ones(0, dtype=bool)
  if pa.types.is_floating(a.type):  # by their bits: NaN is the same as NaN, and 0 is not −0
    a, b = (column.view(f"int{a.type.bit_width}") for column in (a, b))
  if pa.types.is_fixed_size_list(a.type) and a.null_count == b.null_count == 0:
    return np.asarray(_equal(a.flatten(), b.flatten()).reshape(len(a), -1).all(axis=1))
  try:
    equal = pc.fill_null(pc.equal(a, b), False)
  except pa.ArrowNotImplementedError:  # lists and structs
    return np.fromiter((x == y for x, y in zip(a, b, strict=True)), bool, len(a))
  both_null = pc.and_(pc.is_null(a), pc.is_null(b))
  return pc.or_(equal, both_null).to_numpy(zero_copy_only=False)


def decide_changes(sides: pa.Table) -> Change:
  """Returns what to do about ids that differ: on both sides: changed, on the new one only: new, else gone."""
  by_id = sides.group_by("doc_id").aggregate([("is_new", "any"), ("is_new", "all")]).sort_by("doc_id")
  upsert = by_id["is_new_any"].to_numpy()
  new = int(by_id["is_new_all"].to_numpy().sum())
  changes = pa.array(np.where(upsert, UPSERT, DELETE), pa.string())
  table = pa.table([by_id["doc_id"], changes], schema=CHANGES_SCHEMA)
  return Change(table, new, int(upsert.sum()) - new, int((~upsert).sum()))


class _BaseShards(beam.DoFn):
  """Anything → (range, BaseShard) of the base run, where the job runs: `Create` would put them into the graph."""

  def __init__(self, plan: RunPlan, base: BaseRun | None, bits: int):
    super().__init__()
    self._plan, self._base, self._bits = plan, base, bits

  def process(self, _: bytes) -> Iterator[tuple[int, BaseShard]]:
    if self._base is not None and not self._plan.is_finished():  # then they may have been tidied away
      for shard in self._base.shards:
        yield shard.bucket >> (shard.bits - self._bits), shard


class _CompareRange(beam.DoFn):
  """(range, its ShardRecords and BaseShards) → (id part, block of sides), and a ComparedRecord under a tag."""

  def __init__(self, plan: RunPlan, base: BaseRun | None):
    super().__init__()
    self._plan, self._base = plan, base

  def process(self, keyed: tuple[int, Iterable[Any]], whitening: Whitening | NoWhitening) -> Iterator[Any]:
    if isinstance(whitening, NoWhitening):  # nothing was written, so nothing can be told
      return
    ProgressFile.of_worker(self._plan.storage, self._plan.folder).add()  # a sign of life
    bucket, found = keyed[0], list(keyed[1])
    stored_as = coding(self._plan.vector_type, whitening.ranges_fingerprint)
    comparable = self._base is not None and (
      (self._base.encoder_fingerprint, self._base.whitening_fingerprint, self._base.coding)
      == (self._plan.store.fingerprint, whitening.fingerprint, stored_as)
    )
    written = [r.vectors for r in found if isinstance(r, ShardRecord) and r.vectors]
    new = read_rows(self._plan.storage, written, not comparable)
    base, problem = self._read_base([s.file for s in found if isinstance(s, BaseShard)], not comparable)
    sides, unchanged = find_differing(new, base, comparable)
    yield from self._parts(sides)
    yield beam.pvalue.TaggedOutput(_COMPARED, ComparedRecord(bucket, unchanged, problem))

  def _read_base(self, files: Sequence[StoredFile], ids_only: bool) -> tuple[pa.Table, str | None]:
    """Returns the base's rows, and why there are none: a base that cannot be read must not stop tonight's run."""
    try:
      return read_rows(self._plan.storage, files, ids_only), None
    except StoreError as error:
      return read_rows(self._plan.storage, []), str(error)

  def _parts(self, sides: pa.Table) -> Iterator[tuple[int, bytes]]:
    part_of = bucket_of(digest_array(sides["doc_id"].to_pylist()), self._plan.id_bits)
    for part in np.unique(part_of):
      yield int(part), to_ipc(sides.filter(pa.array(part_of == part)))


class _WriteChanges(beam.DoFn):
  """(id part, blocks of sides) → ChangesRecord."""

  def __init__(self, plan: RunPlan, base: BaseRun | None):
    super().__init__()
    self._plan, self._base = plan, base

  def process(self, keyed: tuple[int, Iterable[bytes]]) -> Iterator[ChangesRecord]:
    if self._plan.is_finished():  # by another attempt: who reads the folder by a glob must not find ours in it
      return
    part, blocks = keyed
    change = decide_changes(from_ipc(list(blocks), _SIDES_SCHEMA))
    data = to_parquet(
      change.table, {"run_id": self._plan.run_id, "base_run_id": self._base.run_id if self._base else ""}
    )
    name = f"part-{part:05d}-of-{1 << self._plan.id_bits:05d}"
    folder = f"{self._plan.folder}/changes"
    stored = self._plan.storage.write_content(folder, name, ".parquet", data, len(change.table))
    yield ChangesRecord(part, stored, change.new, change.changed, change.gone)


@dataclass
class FindChanges(beam.PTransform):
  """Shard records → ComparedRecords and ChangesRecords, given the whitening as a PCollection of one.

  Ranges are those of the coarser of both runs, so that each shard of either lies in one of them and is read once; a
  range without a new shard is looked at too, for what is gone.
  """

  plan: RunPlan
  base: BaseRun | None
  whitening: Any

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, shards: beam.PCollection) -> beam.PCollection:
    bits = min(self.plan.bits, self.base.bits) if self.base else self.plan.bits
    new = shards | "ByRange" >> beam.Map(_by_range, self.plan.bits - bits)  # (range, ShardRecord)
    start = shards.pipeline | "Start" >> beam.Impulse()
    base = start | "BaseShards" >> beam.ParDo(_BaseShards(self.plan, self.base, bits))  # (range, BaseShard)
    compared = (
      (new, base)
      | "Both" >> beam.Flatten()
      | "Meet" >> beam.GroupByKey()  # (range, [ShardRecord | BaseShard])
      | "Compare"
      >> beam.ParDo(_CompareRange(self.plan, self.base), beam.pvalue.AsSingleton(self.whitening)).with_outputs(
        _COMPARED, main="sides"
      )
    )
    changes = (
      compared.sides  # (id part, block)
      | "GatherIds" >> beam.GroupByKey()  # (id part, blocks)
      | "WriteChanges" >> beam.ParDo(_WriteChanges(self.plan, self.base))  # ChangesRecord
    )
    return (compared[_COMPARED], changes) | "Records" >> beam.Flatten()


def _by_range(record: ShardRecord, finer_bits: int) -> tuple[int, ShardRecord]:
  return record.bucket >> finer_bits, record
