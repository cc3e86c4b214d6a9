"""Write reduced vectors: one Parquet shard a bucket, rows sorted by (text digest, doc_id)."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, BinaryIO

import apache_beam as beam
import numpy as np
import pyarrow as pa

from transforms import rejected
from transforms.digests import DigestRange, from_arrow
from transforms.metrics import StepReport
from transforms.progress_file import ProgressFile
from transforms.raw_store import RawStore, probabilities_of, vectors_of
from transforms.read_raw_blocks import BLOCK_ROWS, surviving_documents
from transforms.records import ShardRecord
from transforms.rejected import RejectedDocument
from transforms.rejected_files import RejectedFiles
from transforms.run_plan import RunPlan
from transforms.settle_ids import SettledBucket, read_documents_file
from transforms.storage import StoredFile
from transforms.vector_table import ROW_GROUP_ROWS, parquet_writer, to_vectors, vectors_schema
from transforms.vector_types import to_stored
from transforms.whitening import Whitening, normalise

# Short texts make large buckets: their vectors are reduced so many at a time, 32 MB of them at K = 256.
TEXTS_PER_PASS = 1 << 15
_COUNTS = ["n_tokens", "truncated", "n_unknown"]
BY_FILE = "by-file"


@dataclass(frozen=True)
class NoWhitening:
  """Why no whitening could be fitted: a verdict that travels, since raising would make the engine run it all again."""

  reason: str


@dataclass(frozen=True)
class ReducedTexts:
  """Distinct texts [N] in the order of their digests, reduced.

  Attributes:
    digests: S16 [N], sorted.
    vectors: float32 [N, K], length 1, or that as it is stored; zeros where `usable` is false.
    usable: bool [N], whether the reduced vector has a direction.
    counts: table [N] of n_tokens, truncated, n_unknown.
    probabilities: float32 [N, n_labels].
  """

  digests: np.ndarray
  vectors: np.ndarray
  usable: np.ndarray
  counts: pa.Table
  probabilities: np.ndarray


def reduce_texts(store: RawStore, raw_files: Sequence[str], digests: np.ndarray, whitening: Whitening) -> ReducedTexts:
  """Reads the raw vectors of sorted, distinct digests [N] (S16) and reduces them."""
  vectors = np.zeros((len(digests), whitening.n_components), np.float32)
  usable = np.zeros(len(digests), dtype=bool)
  probabilities = np.zeros((len(digests), store.n_labels), np.float32)
  counts, order = [], []
  for indices, table in store.select(raw_files, digests):
    raw = vectors_of(table)
    for start in range(0, len(raw), BLOCK_ROWS):
      at = indices[start : start + BLOCK_ROWS]
      unit, usable[at] = normalise(whitening.reduce(raw[start : start + BLOCK_ROWS]))
      vectors[at[usable[at]]] = unit
    probabilities[indices] = probabilities_of(table)
    counts.append(table.select(_COUNTS))
    order.append(indices)
  # The digests are covered exactly once, so sorting the indices puts every row in its place.
  in_order = pa.concat_tables(counts).take(np.argsort(np.concatenate(order)))
  return ReducedTexts(digests, vectors, usable, in_order, probabilities)


class ShardWriter:
  """Reduces and writes one bucket at a time; memory holds its documents, and the vectors of one pass."""

  def __init__(self, plan: RunPlan, whitening: Whitening | NoWhitening):
    self._plan, self._whitening = plan, whitening

  def write(self, settled: SettledBucket, by_file: Counter[int] | None = None) -> ShardRecord:
    """Writes the shard of a settled bucket and its late rejects; without a whitening only the rejects.

    Args:
      settled: the bucket.
      by_file: is given the number of rows that come from each input file.
    """
    started, plan, whitening = time.monotonic(), self._plan, self._whitening
    by_file = Counter() if by_file is None else by_file
    name = DigestRange(settled.record.bucket, plan.bits).name
    rejects = RejectedFiles(plan.storage, plan.folder, f"write-{name}")
    totals: Counter[str] = Counter()
    self._reject_dropped(settled, rejects)
    stored = None
    if isinstance(whitening, Whitening):
      stored = self._write_shard(settled, whitening, rejects, totals, by_file)
    return ShardRecord(
      bucket=settled.record.bucket,
      vectors=stored,
      whitening_fingerprint=whitening.fingerprint if isinstance(whitening, Whitening) else "",
      truncated=totals["truncated"],
      n_unknown=totals["n_unknown"],
      n_tokens=totals["n_tokens"],
      rejected=dict(rejects.counts),
      files=rejects.close(),
      seconds=time.monotonic() - started,
      rejected_by_file=dict(rejects.by_file),
      clipped=totals["clipped"],
      long=totals["long"],
    )

  def _write_shard(
    self,
    settled: SettledBucket,
    whitening: Whitening,
    rejects: RejectedFiles,
    totals: Counter[str],
    by_file: Counter[int],
  ) -> StoredFile | None:
    metadata = {
      "run_id": self._plan.run_id,
      "encoder_fingerprint": self._plan.store.fingerprint,
      "whitening_fingerprint": whitening.fingerprint,
      **self._plan.predictions.metadata,
    }

    def write(file: BinaryIO) -> int:
      rows = 0
      with parquet_writer(file, self._schema(whitening.n_components), metadata) as writer:
        for table in self._row_groups(settled, whitening, rejects, totals, by_file):
          writer.write_table(table)
          rows += len(table)
          totals.update({name: int(table[name].to_numpy().sum()) for name in _COUNTS})
          totals["long"] += self._plan.long_texts.count_long(table)
      return rows

    name = f"part-{settled.record.bucket:05d}-of-{1 << self._plan.bits:05d}"
    return self._plan.storage.write_stream(f"{self._plan.folder}/vectors", name, ".parquet", write)

  def _row_groups(
    self,
    settled: SettledBucket,
    whitening: Whitening,
    rejects: RejectedFiles,
    totals: Counter[str],
    by_file: Counter[int],
  ) -> Iterator[pa.Table]:
    """Yields the bucket's rows in order, in passes over its raw files of a bounded number of texts each."""
    documents = surviving_documents(self._plan, settled)
    distinct, first = np.unique(from_arrow(documents["text_digest"]), return_index=True)
    edges = [*first[::TEXTS_PER_PASS], len(documents)]  # rows are sorted by digest
    for number, (start, stop) in enumerate(pairwise(edges)):
      digests = distinct[number * TEXTS_PER_PASS : (number + 1) * TEXTS_PER_PASS]
      texts = reduce_texts(self._plan.store, settled.record.raw_files, digests, whitening)
      stored, clipped = to_stored(texts.vectors, self._plan.vector_type, whitening.ranges)
      texts, totals["clipped"] = replace(texts, vectors=stored), totals["clipped"] + clipped
      for row in range(start, stop, ROW_GROUP_ROWS):
        yield self._rows(documents.slice(row, min(ROW_GROUP_ROWS, stop - row)), texts, rejects, by_file)

  def _rows(self, documents: pa.Table, texts: ReducedTexts, rejects: RejectedFiles, by_file: Counter[int]) -> pa.Table:
    """Returns the published rows of some documents; rejects those whose vector has no direction."""
    text_of = np.searchsorted(texts.digests, from_arrow(documents["text_digest"]))
    is_good = texts.usable[text_of]
    detail = "its reduced vector has length zero: the raw vector is the mean of all, or close to it"
    self._reject(documents.filter(pa.array(~is_good)), rejected.ZERO_VECTOR, detail, rejects)
    documents, text_of = documents.filter(pa.array(is_good)), text_of[is_good]
    by_file.update(documents["source_file"].to_pylist())
    columns = [documents["doc_id"], to_vectors(texts.vectors[text_of], self._plan.vector_type)]
    columns += [*texts.counts.take(text_of).columns, documents["text_digest"]]
    columns += self._plan.predictions.columns(texts.probabilities[text_of])
    columns += [documents[field.name] for field in self._plan.kept]
    return pa.table(columns, schema=self._schema(texts.vectors.shape[1]))

  def _schema(self, n_components: int) -> pa.Schema:
    return vectors_schema(n_components, self._plan.kept, self._plan.predictions.fields, self._plan.vector_type)

  def _reject_dropped(self, settled: SettledBucket, rejects: RejectedFiles) -> None:
    if len(settled.dropped):
      documents = read_documents_file(self._plan, settled.record)
      detail = "an earlier document, by file name and position, has this id"
      self._reject(documents.take(settled.dropped), rejected.DUPLICATE_ID, detail, rejects)

  def _reject(self, documents: pa.Table, reason: str, detail: str, rejects: RejectedFiles) -> None:
    for row in documents.select(["doc_id", "source_file", "source_position"]).to_pylist():
      name = self._plan.files[row["source_file"]].name
      rejects.add(RejectedDocument(row["doc_id"], name, row["source_position"], reason, detail, None))


class _WriteShard(beam.DoFn):
  """(SettledBucket, whitening as side input) → ShardRecord, and {input file: rows} under the tag `by-file`."""

  def __init__(self, plan: RunPlan):
    super().__init__()
    self._plan = plan

  def process(self, settled: SettledBucket, whitening: Whitening | NoWhitening) -> Iterator[Any]:
    if self._plan.is_finished():  # by another attempt: who reads the folder by a glob must not find ours in it
      return
    by_file: Counter[int] = Counter()
    record = ShardWriter(self._plan, whitening).write(settled, by_file)
    rows = record.vectors.rows if record.vectors else 0
    report = StepReport(ProgressFile.of_worker(self._plan.storage, self._plan.folder))
    report.add(rows_written=rows, rejected_writing=sum(record.rejected.values()))
    report.observe(shard_msec=1000 * record.seconds)
    yield record
    yield beam.pvalue.TaggedOutput(BY_FILE, dict(by_file))


@dataclass
class WriteVectors(beam.PTransform):
  """Settled buckets → shard records, and their rows by input file; the whitening is a PCollection of one."""

  plan: RunPlan
  whitening: Any

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, settled: beam.PCollection) -> Any:
    write = beam.ParDo(_WriteShard(self.plan), beam.pvalue.AsSingleton(self.whitening))
    return settled | "Write" >> write.with_outputs(BY_FILE, main="shards")
