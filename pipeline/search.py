"""Search a published run: encode and whiten a text exactly as the documents were, and compare with every vector.

Brute force over the shards, one row group in memory at a time. No Beam here.
"""

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.dataset import Dataset
from pipeline.published_rows import PublishedRows
from transforms.encoder import Encoder, EncoderSpec, load_encoder, read_spec
from transforms.errors import EncoderError, UsageError
from transforms.long_texts import LongTexts
from transforms.whitening import Whitening, normalise


@dataclass(frozen=True)
class Hit:
  """A document found.

  Attributes:
    score: the cosine with the query.
    doc_id: its id.
    kept: the columns that were kept.
    labels: those that hold for it by the encoder's sigmoid head; None without one.
  """

  score: float
  doc_id: str
  kept: dict[str, Any]
  labels: list[str] | None = None


@dataclass(frozen=True)
class Searcher:
  """A published run, with the encoder and the whitening that its documents went through."""

  rows: PublishedRows
  encoder: Encoder
  whitening: Whitening

  @classmethod
  def open(cls, url: str, encoder: str | None = None, threads: int | None = None) -> "Searcher":
    """Opens the published run of a dataset.

    Args:
      url: the dataset.
      encoder: its encoder's folder; by default where it was when the dataset was made.
      threads: for the encoder; all cores by default.

    Raises:
      UsageError: nothing is published, or the encoder is another one.
      StoreError: a file of the run is missing or damaged.
    """
    return cls.of(PublishedRows.of(Dataset.open(url)), encoder, threads)

  @classmethod
  def of(cls, rows: PublishedRows, encoder: str | None = None, threads: int | None = None) -> "Searcher":
    """Loads what a run's texts went through; takes and raises what `open` does."""
    manifest = rows.manifest
    folder = encoder or manifest["encoder"]["url"]
    wanted = manifest["encoder"]["fingerprint"]
    long_texts = LongTexts.of(manifest)
    spec = _same_spec(folder, _read_spec(folder).with_long_texts(long_texts), wanted)
    loaded = load_encoder(folder, threads, precision=spec.precision, long_texts=long_texts)
    _same_spec(folder, loaded.spec, wanted)  # `sorbus freeze --overwrite` may have come in between
    return cls(rows, loaded, rows.dataset.whitening(manifest["run_id"]))

  @property
  def manifest(self) -> Mapping[str, Any]:
    """The run's manifest."""
    return self.rows.manifest

  @property
  def _columns(self) -> list[str]:
    """The columns that a search reads: vectors, and what a hit has."""
    head = self.manifest["encoder"].get("head")
    named = ("doc_id", *self.manifest["kept_columns"], *(["labels"] if head == "sigmoid" else []), "vector")
    return list(dict.fromkeys(named))

  def vector(self, text: str) -> np.ndarray:
    """Returns the reduced vector float32 [K] of a text, as a document with this text has it.

    Raises:
      UsageError: the text has no token, or its vector no direction.
    """
    try:
      raw = self.encoder.encode_texts([text])
    except ValueError as error:
      raise UsageError(f"the query {text!r} has no token that the encoder knows of; search for words") from error
    unit, usable = normalise(self.whitening.reduce(raw))
    if not usable[0]:
      raise UsageError(f"the query {text!r} has a vector of length zero under this whitening; search for other words")
    return unit[0]

  def search(self, text: str, k: int = 10) -> list[Hit]:
    """Returns the `k` documents nearest to a text, best first; equal scores in the order of their ids."""
    query = self.vector(text)
    best: list[Hit] = []
    for group in self.rows.groups(columns=self._columns):
      scores = self.rows.vectors(group) @ query  # [N]
      hits = _hits(group, scores, k, self.manifest["kept_columns"])
      best = heapq.nsmallest(k, [*best, *hits], key=lambda hit: (-hit.score, hit.doc_id))
    return best


def _read_spec(folder: str) -> EncoderSpec:
  try:
    return read_spec(folder)
  except EncoderError as error:
    raise UsageError(f"{error}; if the encoder was moved, say where to with --encoder") from error


def _same_spec(folder: str, found: EncoderSpec, wanted: str) -> EncoderSpec:
  """Returns a folder's encoder in the run's precision; raises UsageError where the run is of another."""
  if (spec := found.variants().get(wanted)) is None:
    raise UsageError(
      f"{folder}: encoder {found.fingerprint[:16]}, the published run is of {wanted[:16]}; name that with --encoder"
    )
  return spec


def _hits(group: pa.Table, scores: np.ndarray, k: int, kept: Collection[str]) -> Sequence[Hit]:
  """Returns the best `k` rows of a row group, and those that tie with the last of them."""
  worst = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
  rows = np.flatnonzero(scores >= worst)
  names = [name for name in group.column_names if name in kept or name in ("doc_id", "labels")]
  columns = {name: _python_values(group[name].take(rows).combine_chunks()) for name in names}
  doc_ids = columns.pop("doc_id")
  labels = columns.pop("labels") if "labels" in columns and "labels" not in kept else [None] * len(rows)
  return [
    Hit(float(scores[row]), doc_ids[i], {name: values[i] for name, values in columns.items()}, labels[i])
    for i, row in enumerate(rows)
  ]


def _python_values(column: pa.Array) -> list[Any]:
  try:
    return column.to_pylist()
  except (OverflowError, ValueError, KeyError):  # a year after 9999, or a zone that is not known here: as it is stored
    return column.view(pa.int64() if column.type.bit_width == 64 else pa.int32()).to_pylist()
