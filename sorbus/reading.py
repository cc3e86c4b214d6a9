"""A dataset as a program reads it: a run's rows in pieces of bounded size, its whitening, and a search."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import dataset
from pipeline.published_rows import PublishedRows
from pipeline.search import Hit, Searcher
from transforms.whitening import Whitening


class Dataset(dataset.Dataset):
  """A dataset's folder, to read: `Dataset.open("vectors").run()`."""

  def run(self, run_id: str | None = None) -> "Run":
    """Returns a finished run, the published one by default.

    Raises:
      UsageError: there is no such run, it did not finish, or nothing is published yet.
    """
    return Run(PublishedRows.of(self, run_id))


@dataclass(frozen=True, eq=False)
class Run:
  """A finished run: a document a row, in the order of the shards. It stays as it is, whatever is published later.

  Each shard is held to its sha256 when it is first read.
  """

  rows: PublishedRows

  @property
  def run_id(self) -> str:
    """Its id."""
    return str(self.manifest["run_id"])

  @property
  def manifest(self) -> Mapping[str, Any]:
    """What the run was made of, and what it did (docs/formats.md)."""
    return self.rows.manifest

  @property
  def n_components(self) -> int:
    """K, the width of its vectors."""
    return int(self.manifest["whitening"]["n_components"])

  def __len__(self) -> int:
    """How many documents it has."""
    return sum(file["rows"] for file in self.manifest["files"]["vectors"])

  def batches(self, columns: Sequence[str] | None = None, max_rows: int = 16_384) -> Iterator[pa.RecordBatch]:
    """Yields the rows as Arrow batches.

    Args:
      columns: of those that docs/formats.md lists, and of the kept ones; all by default.
      max_rows: of a batch.

    Raises:
      UsageError: there is no such column.
      StoreError: a shard is missing or damaged.
    """
    for group in self.rows.groups(columns=columns):
      yield from group.to_batches(max_rows)

  def vectors(self) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Yields ids and their vectors, float32 [n, K] of length 1, a row group at a time: n is at most 16,384."""
    for group in self.rows.groups(columns=("doc_id", "vector")):
      yield group["doc_id"].to_pylist(), self.rows.vectors(group)

  def ids(self) -> Iterator[str]:
    """Yields the ids of the documents, in the order of `vectors`."""
    for batch in self.batches(["doc_id"]):
      yield from batch["doc_id"].to_pylist()

  def whitening(self) -> Whitening:
    """Returns the whitening that its vectors went through."""
    return self.rows.dataset.whitening(self.run_id)

  def vector(self, text: str) -> NDArray[np.float32]:
    """Returns the vector float32 [K] that a document with this text has; raises UsageError for one without a token."""
    return self.searcher.vector(text)

  def search(self, text: str, k: int = 10) -> list[Hit]:
    """Returns the `k` documents nearest to a text, best first, by cosine with all of them."""
    return self.searcher.search(text, k)

  @cached_property
  def searcher(self) -> Searcher:
    """The run with its encoder, which is loaded from where it was when the run was made: once, in seconds."""
    return Searcher.of(self.rows)
