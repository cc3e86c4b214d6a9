"""Read slices of input files into token blocks, one per bucket: the text itself goes no further.

A text that the store has already is not even tokenised: its row travels without tokens.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.utils.shared import Shared

from transforms import rejected
from transforms.digests import bucket_of, digest_array, from_arrow, to_arrow
from transforms.errors import InputFileError
from transforms.input_files import Slice
from transforms.input_slices import piece_bytes
from transforms.known_texts import KnownTexts
from transforms.long_tokens import tokenise_long
from transforms.metrics import StepReport
from transforms.progress_file import ProgressFile
from transforms.records import SliceRecord
from transforms.rejected import RejectedDocument
from transforms.rejected_files import RejectedFiles
from transforms.rows import Row, read_slice
from transforms.run_plan import RunPlan
from transforms.text_chunks import cut_rows
from transforms.tokenizer import Tokenizer, Tokens
from transforms.vector_table import block_schema, to_ipc

RECORDS = "records"
_CHUNK_ROWS = 1024
_CHUNK_CHARACTERS = 4 << 20
# Blocks of this size keep a thousand buckets' blocks well above the size of their Arrow headers.
_BUFFER_BYTES = 32 << 20


@dataclass(frozen=True)
class Wave:
  """A range of buckets that one pipeline takes through encoding; a cluster takes all of them in one wave.

  Attributes:
    known: file of the texts that need not be tokenised, None for none (`known_texts.py`).
  """

  number: int
  first: int
  stop: int
  known: str | None = None

  def holds(self, buckets: np.ndarray) -> np.ndarray:
    """Says for each bucket [N] whether it belongs to this wave: bool [N]."""
    return (buckets >= self.first) & (buckets < self.stop)

  @property
  def records_rejects(self) -> bool:
    """Lines that give no document are met in every wave and recorded in the first only."""
    return self.number == 0


def chunks(rows: Iterator[Row | RejectedDocument]) -> Iterator[list[Row | RejectedDocument]]:
  """Cuts a stream into lists of bounded number and text, so that a few huge texts do not pile up.

  What was read before a file turns out to be bad comes out before the error: whether it counts is the caller's affair.
  """
  chunk: list[Row | RejectedDocument] = []
  characters = 0
  try:
    for row in rows:
      chunk.append(row)
      characters += len(row.text or "")
      if len(chunk) == _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
        yield chunk
        chunk, characters = [], 0
  except InputFileError:
    if chunk:
      yield chunk
    raise
  if chunk:
    yield chunk


def token_table(rows: Sequence[Row], digests: np.ndarray, tokens: Tokens, file: int, kept: pa.Schema) -> pa.Table:
  """Returns rows [N], their digests [N] and tokens [N] as one table of `block_schema`."""
  columns: list[Any] = [
    pa.array([row.doc_id for row in rows], pa.string()),
    to_arrow(digests),
    pa.array(np.full(len(rows), file, np.int32)),
    pa.array([row.position for row in rows], pa.int64()),
    pa.array(tokens.truncated),
    pa.array(tokens.n_unknown),
    pa.array(tokens.n_tokens),
    pa.ListArray.from_arrays(pa.array(tokens.offsets, pa.int32()), pa.array(tokens.input_ids)),
  ]
  columns += [pa.array([row.kept[i] for row in rows], kept.field(i).type) for i in range(len(kept))]
  return pa.table(columns, schema=block_schema(kept))


def spread(tokens: Tokens, wanted: np.ndarray) -> Tokens:
  """Returns the tokens of N texts, given those of the wanted ones (bool [N]); the others have none at all."""
  lengths = np.zeros(len(wanted), np.int64)
  truncated, n_unknown = np.zeros(len(wanted), dtype=bool), np.zeros(len(wanted), np.int32)
  n_tokens = np.zeros(len(wanted), np.int32)
  lengths[wanted], truncated[wanted], n_unknown[wanted] = tokens.lengths, tokens.truncated, tokens.n_unknown
  n_tokens[wanted] = tokens.n_tokens
  return Tokens(tokens.input_ids, np.append(0, np.cumsum(lengths)), truncated, n_unknown, n_tokens)


def partition(tables: Sequence[pa.Table], bits: int) -> Iterator[tuple[int, pa.Table]]:
  """Yields (bucket, its rows) for every bucket that the tables have, in order."""
  table = pa.concat_tables(tables)
  buckets = bucket_of(from_arrow(table["text_digest"]), bits)
  order = np.argsort(buckets, kind="stable")
  table, buckets = table.take(order), buckets[order]
  starts = np.flatnonzero(np.diff(buckets, prepend=-1))
  for start, stop in zip(starts, [*starts[1:], len(buckets)], strict=True):
    yield int(buckets[start]), table.slice(start, stop - start)


class SliceReader:
  """Reads one slice in one wave: `blocks()` first, then `record()`."""

  def __init__(
    self,
    plan: RunPlan,
    wave: Wave,
    slice_: Slice,
    tokenizer: Tokenizer,
    rejects: RejectedFiles,
    known: KnownTexts | None = None,
  ):
    self._plan, self._wave, self._slice, self._tokenizer = plan, wave, slice_, tokenizer
    self._known = known if known is not None else KnownTexts.open(plan.storage, wave.known)
    self._file = plan.files[slice_.file]
    self._rejects = rejects
    self._documents = self._long = self._chunks_of_long = 0
    self._bad_file: str | None = None
    self._started = time.monotonic()
    self._size, self._at = piece_bytes(self._file, slice_), 0

  def blocks(self, report: StepReport) -> Iterator[tuple[int, bytes]]:
    """Yields (bucket, block of tokenised documents); raises InputFileError unless bad files are allowed."""
    buffer: list[pa.Table] = []
    for chunk in self._chunks():
      table = self._tokenise(chunk)
      report.add(rows_read=len(chunk), documents_kept=len(table), bytes_read=self._advance(chunk[-1].position))
      buffer.append(table)
      if sum(held.nbytes for held in buffer) >= _BUFFER_BYTES:
        yield from self._flush(buffer)
        buffer = []
    yield from self._flush(buffer)
    report.add(bytes_read=self._size - self._at)

  def record(self) -> SliceRecord:
    """Returns what was read, once all blocks are out."""
    files = self._rejects.close()
    seconds = time.monotonic() - self._started
    slice_, counts = self._slice, dict(self._rejects.counts)
    return SliceRecord(
      *(slice_.file, slice_.begin, self._wave.number, self._documents, counts, files, self._bad_file, seconds),
      long=self._long,
      chunks=self._chunks_of_long,
    )

  def _chunks(self) -> Iterator[list[Row | RejectedDocument]]:
    rows = read_slice(self._file, self._slice.file, self._slice, self._plan.options, self._plan.input_kept)
    try:
      yield from chunks(rows)
    except InputFileError as error:
      if not self._plan.options.allow_bad_files:
        raise
      self._bad_file = str(error)

  def _advance(self, position: int) -> int:
    """Returns the bytes since the last call; a slice of row groups, whose positions are rows, counts at its end."""
    before, self._at = self._at, max(self._at, min(position - self._slice.begin, self._size))
    return self._at - before

  def _tokenise(self, chunk: Sequence[Row | RejectedDocument]) -> pa.Table:
    """Keeps the wave's rows of a chunk, tokenises those that are not known, and rejects those without a token."""
    rows = [row for row in chunk if isinstance(row, Row)]
    if self._wave.records_rejects:
      for document in chunk:
        if isinstance(document, RejectedDocument):
          self._rejects.add(document)
    if self._plan.makes_chunks:
      rows = self._cut(rows)
    digests = digest_array(row.text for row in rows)
    mine = np.flatnonzero(self._wave.holds(bucket_of(digests, self._plan.bits)))
    rows, digests = [rows[i] for i in mine], digests[mine]
    known = self._known.holds(digests)
    new = [rows[i].text for i in np.flatnonzero(~known)]
    tokens = spread(tokenise_long(self._tokenizer, new, self._plan.long_texts), ~known)
    table = token_table(rows, digests, tokens, self._slice.file, self._plan.kept)
    has_tokens = known | (tokens.lengths > 2)  # more than the specials; what the store has had them too
    for i in np.flatnonzero(~has_tokens):
      self._reject_empty(rows[i])
    self._documents += int(has_tokens.sum())
    return table.filter(pa.array(has_tokens))

  def _cut(self, rows: Sequence[Row]) -> list[Row]:
    """Returns the chunks of some documents, counting those that were too long in the first wave: each meets them."""
    cut = cut_rows(rows, self._tokenizer, self._plan.long_texts)
    if self._wave.records_rejects:
      numbers = [len(found) for found in cut if len(found) > 1]
      self._long, self._chunks_of_long = self._long + len(numbers), self._chunks_of_long + sum(numbers)
    return [chunk for found in cut for chunk in found]

  def _reject_empty(self, row: Row) -> None:
    detail = "the tokeniser finds nothing in this text but white space and characters that it drops"
    name = self._file.name
    self._rejects.add(RejectedDocument(row.doc_id, name, row.position, rejected.NO_TOKENS, detail, row.text))

  def _flush(self, buffer: Sequence[pa.Table]) -> Iterator[tuple[int, bytes]]:
    if any(len(table) for table in buffer):
      for bucket, table in partition(buffer, self._plan.bits):
        yield bucket, to_ipc(table)


class _ReadSlice(beam.DoFn):
  """Slice → (bucket, block), and a SliceRecord under the tag `records`."""

  def __init__(self, plan: RunPlan, wave: Wave, load: Callable[[], Tokenizer]):
    super().__init__()
    self._plan, self._wave, self._load = plan, wave, load
    self._shared, self._shared_known = Shared(), Shared()

  def setup(self) -> None:
    self._tokenizer = self._shared.acquire(self._load)
    self._known = self._shared_known.acquire(lambda: KnownTexts.open(self._plan.storage, self._wave.known))
    self._report = StepReport(ProgressFile.of_worker(self._plan.storage, self._plan.folder))

  def process(self, slice_: Slice) -> Iterator[Any]:
    if self._plan.is_finished():  # an engine tries again what had come to its end: there is nothing left to do
      return
    name = f"read-{slice_.file:05d}-{slice_.begin}-wave-{self._wave.number:03d}"
    rejects = RejectedFiles(self._plan.storage, self._plan.folder, name)
    reader = SliceReader(self._plan, self._wave, slice_, self._tokenizer, rejects, self._known)
    yield from reader.blocks(self._report)
    record = reader.record()
    self._report.add(rejected_reading=sum(record.rejected.values()))
    self._report.observe(slice_msec=1000 * record.seconds)
    yield beam.pvalue.TaggedOutput(RECORDS, record)


@dataclass
class ReadDocuments(beam.PTransform):
  """Slices → blocks keyed by bucket, and records. `load` makes the tokeniser, once per worker process."""

  plan: RunPlan
  wave: Wave
  load: Callable[[], Tokenizer]

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, slices: beam.PCollection) -> Any:
    read = _ReadSlice(self.plan, self.wave, self.load)
    return (
      slices
      | "Spread" >> beam.Reshuffle()  # without it one subtask gets all slices (apache/beam#21222)
      | "Read" >> beam.ParDo(read).with_outputs(RECORDS, main="blocks")
    )
