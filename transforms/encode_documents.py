"""Encode buckets: what the store has is kept, the rest is encoded and flushed as immutable raw files."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.utils.shared import Shared

from transforms import rejected
from transforms.batching import pad_batch, token_budget_batches
from transforms.digests import DigestRange, from_arrow
from transforms.encoder import Encoder
from transforms.errors import DamagedFileError, EncoderError, KnownTextsLostError
from transforms.metrics import StepReport
from transforms.progress_file import ProgressFile
from transforms.raw_store import RawStore, run_of
from transforms.records import BucketRecord
from transforms.rejected import RejectedDocument
from transforms.rejected_files import RejectedFiles
from transforms.run_plan import RunPlan
from transforms.storage import StoredFile
from transforms.vector_table import block_schema, documents_schema, from_ipc, to_parquet, to_vectors
from transforms.window_pool import WindowPool, Windows

_FLUSH_BYTES = 64 << 20
# What a text's raw row is made of; the rest of a document, its id and kept columns, is not copied for each batch.
_FACTS = ["text_digest", "n_tokens", "truncated", "n_unknown"]
_OF_TEXTS = [*_FACTS, "input_ids"]
# (windows [B], their raw vectors [B, W] and probabilities [B, n_labels]), or (window [1], why it could not be encoded).
_Encoded = tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | EncoderError]


@dataclass
class Encoding:
  """Distinct texts of a bucket on their way through the encoder, and what became of them."""

  names: list[str] = field(default_factory=list)  # raw files flushed
  rejected: dict[bytes, tuple[str, str]] = field(default_factory=dict)  # digest → (reason, detail)
  tokens: int = 0
  computed_tokens: int = 0


def holdings(store: RawStore, wanted: DigestRange, distinct: np.ndarray) -> tuple[dict[str, int], np.ndarray]:
  """Returns what the store has of sorted digests [N]: (raw file → how many are first found there, known bool [N]).

  A file that is damaged or gone is marked, and what it held is not known.
  """
  known = np.zeros(len(distinct), dtype=bool)
  found: dict[str, int] = {}
  for name in store.find(wanted):
    try:
      held = np.isin(distinct, store.digests(name)) & ~known
    except DamagedFileError:
      store.mark_damaged(name)
      continue
    if held.any():
      found[name] = int(held.sum())
      known |= held
  return found, known


def check_tokens(store: RawStore, wanted: DigestRange, texts: pa.Table) -> None:
  """Raises KnownTextsLostError if of texts to be encoded some come without tokens: reading took them for known."""
  lost = np.count_nonzero(pc.list_value_length(texts["input_ids"]).to_numpy() == 0)
  if lost:
    files = ", ".join(store.damaged(wanted)) or "a file is gone"
    raise KnownTextsLostError(
      f"{store.folder}: {lost:,} known texts of bucket {wanted.name} are in no whole raw file any more ({files}); run "
      "again to encode them anew"
    )


class BucketEncoder:
  """Encodes buckets with one encoder; memory is bounded by one bucket and what one flush holds."""

  def __init__(self, plan: RunPlan, encoder: Encoder, report: StepReport, clock: Callable[[], float]):
    self._plan, self._encoder, self._report, self._clock = plan, encoder, report, clock

  def encode(self, bucket: int, blocks: Iterable[bytes]) -> BucketRecord:
    """Encodes the documents of one bucket and returns the record that names its files; raises KnownTextsLostError."""
    plan, started = self._plan, self._clock()
    wanted = DigestRange(bucket, plan.bits)
    documents = from_ipc(list(blocks), block_schema(plan.kept))
    digests = from_arrow(documents["text_digest"])
    distinct, first = np.unique(digests, return_index=True)
    found, known = holdings(plan.store, wanted, distinct)
    self._report.add(texts_seen=len(distinct), texts_known=int(known.sum()))
    new = documents.select(_OF_TEXTS).take(first[~known]).combine_chunks()
    check_tokens(plan.store, wanted, new)
    encoding = self._encode_new(wanted, new)
    rejects = RejectedFiles(plan.storage, plan.folder, f"encode-{wanted.name}")
    kept = self._reject(documents, digests, encoding, rejects)
    reused = sum(n for name, n in found.items() if run_of(name) != plan.run_id)
    n_distinct = len(distinct) - len(encoding.rejected)
    return BucketRecord(
      bucket=bucket,
      documents=self._write_documents(wanted, kept),
      raw_files=tuple(sorted([*found, *encoding.names])),
      received=len(documents),
      distinct=n_distinct,
      encoded=n_distinct - reused,
      reused=reused,
      tokens=encoding.tokens,
      computed_tokens=encoding.computed_tokens,
      rejected=dict(rejects.counts),
      files=rejects.close(),
      seconds=self._clock() - started,
      rejected_by_file=dict(rejects.by_file),
    )

  def _encode_new(self, wanted: DigestRange, texts: pa.Table) -> Encoding:
    """Encodes distinct texts shortest first, flushing about every `flush_seconds`: what a crash can cost."""
    encoding, waiting, waiting_bytes, flushed = Encoding(), [], 0, self._clock()
    facts = texts.select(_FACTS)
    for rows, vectors, probabilities in self._batches(texts, encoding):
      waiting.append(self._raw_rows(facts.take(rows), vectors, probabilities, encoding))
      waiting_bytes += waiting[-1].nbytes
      if self._clock() - flushed >= self._plan.flush_seconds or waiting_bytes >= _FLUSH_BYTES:
        self._flush(wanted, waiting, encoding)
        waiting, waiting_bytes, flushed = [], 0, self._clock()
    self._flush(wanted, waiting, encoding)
    return encoding

  def _batches(self, texts: pa.Table, encoding: Encoding) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (rows [M], raw vectors [M, H], probabilities [M, n_labels]), encoded in batches by token budget.

    Batches are of windows, of several texts; a text that has several comes out with the last of them.
    """
    if not len(texts):
      return
    column = texts["input_ids"].combine_chunks()
    values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
    tokenizer = self._encoder.tokenizer
    windows = Windows.find(values, offsets, tokenizer.before, tokenizer.after)
    pool = WindowPool(windows)
    for batch in token_budget_batches(windows.lengths, self._plan.token_budget):
      for some, encoded in self._encode_halving(values, windows.offsets, batch):
        if isinstance(encoded, EncoderError):
          digest = texts["text_digest"][int(windows.texts(some)[0])].as_py()
          encoding.rejected[digest] = rejected.ENCODER_FAILED, str(encoded)
          continue
        lengths = windows.lengths[some]
        encoding.tokens += int(lengths.sum())
        encoding.computed_tokens += len(some) * int(lengths.max())
        rows, (vectors, probabilities) = pool.add(some, *encoded)
        self._report.add(texts_encoded=len(rows), tokens_encoded=int(lengths.sum()))
        if len(rows):
          yield rows, vectors, probabilities

  def _encode_halving(self, values: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> Iterator[_Encoded]:
    """Encodes rows as one batch; one that fails is halved until what fails stands alone.

    That serves both for a batch that does not fit the memory and for a text that no graph can compute.
    """
    started = self._clock()
    try:
      encoded = self._encoder.encode_and_predict(*pad_batch(values, offsets, rows))
    except EncoderError as error:
      if len(rows) == 1:
        yield rows, error
      else:
        for half in np.array_split(rows, 2):
          yield from self._encode_halving(values, offsets, half)
      return
    self._report.observe(batch_rows=len(rows), batch_msec=1000 * (self._clock() - started))
    yield rows, encoded

  def _raw_rows(self, facts: pa.Table, vectors: np.ndarray, probabilities: np.ndarray, encoding: Encoding) -> pa.Table:
    """Returns the rows of `raw_schema` whose numbers are finite and vector not zero; others are noted as rejected."""
    finite, predicted = np.isfinite(vectors).all(axis=1), np.isfinite(probabilities).all(axis=1)
    good = finite & predicted & vectors.any(axis=1)
    for i in np.flatnonzero(~good):
      encoding.rejected[facts["text_digest"][int(i)].as_py()] = _why_rejected(finite[i], predicted[i])
    columns = [*facts.columns, to_vectors(vectors)]
    columns += [to_vectors(probabilities)] if self._plan.store.n_labels else []
    return pa.table(columns, schema=self._plan.store.schema).filter(pa.array(good))

  def _flush(self, wanted: DigestRange, waiting: Sequence[pa.Table], encoding: Encoding) -> None:
    if any(len(table) for table in waiting):
      table = pa.concat_tables(waiting)
      encoding.names.append(self._plan.store.write(wanted, self._plan.run_id, table))

  def _reject(self, documents: pa.Table, digests: np.ndarray, encoding: Encoding, rejects: RejectedFiles) -> pa.Table:
    """Returns the documents whose text has a vector; writes down the others."""
    lost = np.array([list(encoding.rejected)], dtype=digests.dtype).reshape(-1)
    is_lost = np.isin(digests, lost)
    for row in documents.filter(pa.array(is_lost)).select(documents_schema(pa.schema([])).names).to_pylist():
      name = self._plan.files[row["source_file"]].name
      reason, detail = encoding.rejected[row["text_digest"]]
      rejects.add(RejectedDocument(row["doc_id"], name, row["source_position"], reason, detail, None))
    return documents.filter(pa.array(~is_lost))

  def _write_documents(self, wanted: DigestRange, documents: pa.Table) -> StoredFile:
    """Writes the bucket's documents in the one order that does not depend on who read them."""
    order = [
      ("text_digest", "ascending"),
      ("doc_id", "ascending"),
      ("source_file", "ascending"),
      ("source_position", "ascending"),
    ]
    table = documents.select(documents_schema(self._plan.kept).names).sort_by(order)
    data = to_parquet(table, {"run_id": self._plan.run_id})
    return self._plan.storage.write_content(f"{self._plan.folder}/documents", wanted.name, ".parquet", data, len(table))


def _why_rejected(finite: bool, predicted: bool) -> tuple[str, str]:
  """Returns (reason, detail) for a text whose vector or probabilities are not finite, or whose vector is zero."""
  if not finite:
    return rejected.VECTOR_NOT_FINITE, "the encoder gave a vector with NaN or infinity"
  if not predicted:
    return rejected.VECTOR_NOT_FINITE, "the encoder's head gave a probability that is NaN or infinity"
  return rejected.ZERO_VECTOR, "the encoder gave a vector of zeros"


class _EncodeBucket(beam.DoFn):
  """(bucket, blocks) → BucketRecord, with one encoder for all threads of a worker process."""

  def __init__(self, plan: RunPlan, load: Callable[[], Encoder], clock: Callable[[], float] = time.monotonic):
    super().__init__()
    self._plan, self._load, self._clock = plan, load, clock
    self._shared = Shared()

  def setup(self) -> None:
    self._report = StepReport(ProgressFile.of_worker(self._plan.storage, self._plan.folder))
    # Never closed in `teardown`: an idle DoFn is torn down after 60 s while its siblings still use the encoder.
    self._encoder = BucketEncoder(self._plan, self._shared.acquire(self._load), self._report, self._clock)

  def process(self, keyed: tuple[int, Iterable[bytes]]) -> Iterator[BucketRecord]:
    if self._plan.is_finished():  # by another attempt: its folders are read by now, and nothing of ours would count
      return
    record = self._encoder.encode(*keyed)
    self._report.add(rejected_encoding=sum(record.rejected.values()))
    self._report.observe(bucket_msec=1000 * record.seconds)
    yield record


@dataclass
class EncodeDocuments(beam.PTransform):
  """Blocks keyed by bucket → bucket records. `load` makes the encoder, once per worker process."""

  plan: RunPlan
  load: Callable[[], Encoder]

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, blocks: beam.PCollection) -> beam.PCollection:
    return (
      blocks  # (bucket, block of documents)
      | "GatherBuckets" >> beam.GroupByKey()  # (bucket, blocks)
      | "Encode" >> beam.ParDo(_EncodeBucket(self.plan, self.load))  # BucketRecord
    )
