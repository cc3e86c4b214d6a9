"""What the steps of one run share: decided before it starts, the same on every worker."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from transforms.input_files import InputFile, ReadOptions
from transforms.long_texts import CHUNKS, TRUNCATED, LongTexts
from transforms.predictions import NO_PREDICTIONS, Predictions
from transforms.raw_store import RawStore
from transforms.storage import Storage
from transforms.text_chunks import CHUNK_COLUMNS, PARENT_ID
from transforms.vector_types import FLOAT32

DEFAULT_TOKEN_BUDGET = 2048
DEFAULT_FLUSH_SECONDS = 60.0
_ID_BITS = 6


@dataclass(frozen=True, kw_only=True)
class RunPlan:
  """One run as planned.

  Attributes:
    run_id: of letters and digits, sortable by time.
    files: the input as listed, sorted by name; documents name their file by its number here. Once the run has started
      a `PlannedList`: each step has its own copy of the plan.
    options: how to read it.
    kept: columns that travel from the input to the published rows; behind them those of chunks, if it makes any.
    bits: of a text's digest that choose its bucket; there are 2**bits.
    store: raw vectors, in the dataset's storage.
    token_budget: rows × longest of a batch.
    flush_seconds: of encoding that a crash may cost.
    predictions: what the encoder's head adds to the published rows.
    vector_type: of the published vectors, see `vector_types.py`.
    long_texts: what becomes of texts that have more tokens than fit.
  """

  run_id: str
  files: Sequence[InputFile]
  options: ReadOptions
  kept: pa.Schema
  bits: int
  store: RawStore
  token_budget: int = DEFAULT_TOKEN_BUDGET
  flush_seconds: float = DEFAULT_FLUSH_SECONDS
  predictions: Predictions = NO_PREDICTIONS
  vector_type: str = FLOAT32
  long_texts: LongTexts = TRUNCATED

  @property
  def storage(self) -> Storage:
    """The dataset's storage."""
    return self.store.storage

  @property
  def folder(self) -> str:
    """The run's folder, relative to the dataset."""
    return f"runs/{self.run_id}"

  @property
  def makes_chunks(self) -> bool:
    """Whether a document may become several rows."""
    return self.long_texts.mode == CHUNKS

  @property
  def input_kept(self) -> pa.Schema:
    """Those of the kept columns that are the input's."""
    return pa.schema(list(self.kept)[: -len(CHUNK_COLUMNS)]) if self.makes_chunks else self.kept

  @property
  def owner_column(self) -> str:
    """By which column documents are told apart: chunks stay together whatever becomes of their document."""
    return PARENT_ID if self.makes_chunks else "doc_id"

  @property
  def id_bits(self) -> int:
    """How many bits of an id's digest choose the part in which ids are gathered, one part in the memory of one thread.

    64 parts, fewer with fewer buckets, as each bucket sends a block to each; more where a part would otherwise hold
    more ids than 64 buckets have rows.
    """
    return min(self.bits, max(_ID_BITS, self.bits - _ID_BITS))

  def is_finished(self) -> bool:
    """Says whether an attempt at this run has come to its end, of whose manifest a later one is to change nothing."""
    return self.storage.exists(f"{self.folder}/manifest.json")
