"""Write reduced vectors: one Parquet shard a bucket, rows sorted by (text digest, doc_id)."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from transforms import rejected
from transforms.digests import DigestRange, from_arrow
from transforms.progress_file import ProgressFile
from transforms.raw_store import vectors_of
from transforms.read_raw_blocks import BLOCK_ROWS, surviving_documents
from transforms.records import ShardRecord
from transforms.rejected import RejectedDocument
from transforms.rejected_files import RejectedFiles
from transforms.run_plan import RunPlan
from transforms.settle_ids import SettledBucket, read_documents_file
from transforms.storage import StoredFile
from transforms.vector_table import to_parquet, to_vectors, vectors_schema
from transforms.whitening import Whitening, normalise


@dataclass(frozen=True)
class NoWhitening:
  """Why no whitening could be fitted: a verdict that travels, since raising would make the engine run it all again."""

  reason: str


class ShardWriter:
  """Reduces and writes one bucket at a time."""

  def __init__(self, plan: RunPlan, whitening: Whitening | NoWhitening):
    self._plan, self._whitening = plan, whitening

  def write(self, settled: SettledBucket) -> ShardRecord:
    """Writes the shard of a settled bucket and its late rejects; without a whitening only the rejects."""
    started, plan = time.monotonic(), self._plan
    name = DigestRange(settled.record.bucket, plan.bits).name
    rejects = RejectedFiles(plan.storage, plan.folder, f"write-{name}")
    self._reject_dropped(settled, rejects)
    table = self._shard(settled, rejects) if isinstance(self._whitening, Whitening) else None
    stored = None if table is None else self._store(settled.record.bucket, table)
    total = _Totals.of(table)
    counts, files = dict(rejects.counts), rejects.close()
    seconds = time.monotonic() - started
    fingerprint = self._whitening.fingerprint if isinstance(self._whitening, Whitening) else ""
    return ShardRecord(
      bucket=settled.record.bucket,
      vectors=stored,
      whitening_fingerprint=fingerprint,
      truncated=total.truncated,
      n_unknown=total.n_unknown,
      n_tokens=total.n_tokens,
      rejected=counts,
      files=files,
      seconds=seconds,
    )

  def _reject_dropped(self, settled: SettledBucket, rejects: RejectedFiles) -> None:
    if len(settled.dropped):
      documents = read_documents_file(self._plan, settled.record)
      detail = "an earlier document, by file name and position, has this id"
      self._reject(documents.take(settled.dropped), rejected.DUPLICATE_ID, detail, rejects)

  def _shard(self, settled: SettledBucket, rejects: RejectedFiles) -> pa.Table:
    documents = surviving_documents(self._plan, settled)
    distinct, text_of = np.unique(from_arrow(documents["text_digest"]), return_inverse=True)
    texts, vectors, usable = self._reduce(settled, distinct)
    is_good = usable[text_of]
    detail = "its reduced vector has length zero: the raw vector is the mean of all, or close to it"
    self._reject(documents.filter(pa.array(~is_good)), rejected.ZERO_VECTOR, detail, rejects)
    documents, text_of = documents.filter(pa.array(is_good)), text_of[is_good]
    columns = [documents["doc_id"], to_vectors(vectors[text_of])]
    columns += [texts[name].take(text_of) for name in ("n_tokens", "truncated", "n_unknown")]
    columns += [documents[field.name] for field in self._plan.kept]
    return pa.table(columns, schema=vectors_schema(vectors.shape[1], self._plan.kept))

  def _reduce(self, settled: SettledBucket, distinct: np.ndarray) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Returns, for each distinct digest [N], its row of counts, its vector float32 [N, K], and whether it has one."""
    assert isinstance(self._whitening, Whitening)
    vectors = np.zeros((len(distinct), self._whitening.n_components), np.float32)
    usable = np.zeros(len(distinct), dtype=bool)
    rows, order = [], []
    for indices, table in self._plan.store.select(settled.record.raw_files, distinct):
      raw = vectors_of(table)
      for start in range(0, len(raw), BLOCK_ROWS):
        at = indices[start : start + BLOCK_ROWS]
        unit, usable[at] = normalise(self._whitening.reduce(raw[start : start + BLOCK_ROWS]))
        vectors[at[usable[at]]] = unit
      rows.append(table.drop_columns(["vector"]))
      order.append(indices)
    # `distinct` is covered exactly once, so sorting the indices puts every row in its place.
    texts = pa.concat_tables(rows).take(np.argsort(np.concatenate(order))) if rows else None
    return texts if texts is not None else self._no_texts(), vectors, usable

  def _no_texts(self) -> pa.Table:
    fields = [("n_tokens", pa.int32()), ("truncated", pa.bool_()), ("n_unknown", pa.int32())]
    return pa.schema(fields).empty_table()

  def _reject(self, documents: pa.Table, reason: str, detail: str, rejects: RejectedFiles) -> None:
    for row in documents.select(["doc_id", "source_file", "source_position"]).to_pylist():
      name = self._plan.files[row["source_file"]].name
      rejects.add(RejectedDocument(row["doc_id"], name, row["source_position"], reason, detail, None))

  def _store(self, bucket: int, table: pa.Table) -> StoredFile | None:
    if not len(table):
      return None
    assert isinstance(self._whitening, Whitening)
    metadata = {
      "run_id": self._plan.run_id,
      "encoder_fingerprint": self._plan.store.fingerprint,
      "whitening_fingerprint": self._whitening.fingerprint,
    }
    name = f"part-{bucket:05d}-of-{1 << self._plan.bits:05d}"
    data = to_parquet(table, metadata)
    return self._plan.storage.write_content(f"{self._plan.folder}/vectors", name, ".parquet", data, len(table))


@dataclass(frozen=True)
class _Totals:
  """What a shard's rows add up to."""

  truncated: int = 0
  n_unknown: int = 0
  n_tokens: int = 0

  @classmethod
  def of(cls, table: pa.Table | None) -> "_Totals":
    if table is None:
      return cls()
    return cls(*(int(table[name].to_numpy().sum()) for name in ("truncated", "n_unknown", "n_tokens")))


class _WriteShard(beam.DoFn):
  """(SettledBucket, whitening as side input) → ShardRecord."""

  def __init__(self, plan: RunPlan):
    super().__init__()
    self._plan = plan

  def process(self, settled: SettledBucket, whitening: Whitening | NoWhitening) -> Iterator[ShardRecord]:
    record = ShardWriter(self._plan, whitening).write(settled)
    rows = record.vectors.rows if record.vectors else 0
    ProgressFile.of_worker(self._plan.storage, self._plan.folder).add(rows_written=rows)
    yield record


@dataclass
class WriteVectors(beam.PTransform):
  """Settled buckets → shard records, given the whitening as a PCollection of one."""

  plan: RunPlan
  whitening: Any

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, settled: beam.PCollection) -> beam.PCollection:
    return settled | "Write" >> beam.ParDo(_WriteShard(self.plan), beam.pvalue.AsSingleton(self.whitening))
