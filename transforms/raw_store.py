"""The store of raw vectors: immutable Parquet files that many runs share.

A file holds distinct texts of one digest range and is called `<range>-<run_id>-<content>.parquet`, where the content
is the first 16 digits of its bytes' sha256: a file that was cut or changed no longer agrees with its own name.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from transforms.digests import DigestRange, from_arrow
from transforms.errors import StoreError
from transforms.storage import Storage, sha256
from transforms.vector_table import from_vectors, raw_schema, read_parquet, to_parquet

_NAME = re.compile(r"(?P<range>all|[01]{1,16})-(?P<run_id>[0-9A-Za-z]+)-(?P<content>[0-9a-f]{16})\.parquet")


def run_of(name: str) -> str:
  """Returns the run that encoded the raw file `name`."""
  return _match(name)["run_id"]


def content_of(name: str) -> str:
  """Returns what the sha256 of the raw file `name` begins with."""
  return _match(name)["content"]


def _match(name: str) -> re.Match[str]:
  match = _NAME.fullmatch(name)
  if match is None:
    raise StoreError(f"raw file {name!r}: not a name that Sorbus gives; remove it from the store")
  return match


@dataclass(frozen=True)
class RawStore:
  """The raw vectors of one encoder in one dataset; `hidden_size` is H, and `n_labels` those of the encoder's head."""

  storage: Storage
  fingerprint: str
  hidden_size: int
  n_labels: int = 0

  @property
  def schema(self) -> pa.Schema:
    """The columns of its files."""
    return raw_schema(self.hidden_size, self.n_labels)

  @property
  def folder(self) -> str:
    """The folder of this encoder's raw files, relative to the dataset."""
    return f"raw/{self.fingerprint}"

  def find(self, wanted: DigestRange) -> list[str]:
    """Returns the names, sorted, of the raw files that can hold a digest of `wanted`."""
    matches = map(_NAME.fullmatch, self.storage.names(self.folder))  # what has another name is not ours
    return [match.string for match in matches if match and wanted.overlaps(match["range"])]

  def write(self, wanted: DigestRange, run_id: str, table: pa.Table) -> str:
    """Writes encoded texts as one immutable file and returns its name."""
    data = to_parquet(table, {"run_id": run_id, "encoder_fingerprint": self.fingerprint})
    stored = self.storage.write_content(self.folder, f"{wanted.name}-{run_id}", ".parquet", data, len(table))
    return stored.path.rpartition("/")[2]

  def read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns a raw file, checked against the content that its name promises.

    Raises:
      StoreError: the file is missing, damaged, or of another schema.
    """
    path = f"{self.folder}/{name}"
    try:
      data = self.storage.read(path)
    except FileNotFoundError as error:
      raise StoreError(f"{path}: a raw file that this run needs is gone; run again to encode its texts anew") from error
    if not sha256(data).startswith(content_of(name)):
      raise StoreError(f"{path}: damaged (its sha256 is not the one in its name); remove it and run again")
    return read_parquet(data, path, self.schema, columns)

  def digests(self, name: str) -> np.ndarray:
    """Returns the text digests [N] (S16) of a raw file."""
    return from_arrow(self.read(name, ["text_digest"])["text_digest"])

  def select(self, names: Sequence[str], digests: np.ndarray) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Yields what the raw files hold of `digests` [N] (sorted, distinct), each text once: (indices into it, rows).

    A text that stands in two files is taken from the first, so the answer depends on the files' names alone.
    """
    missing = np.ones(len(digests), dtype=bool)
    for name in names:
      table = self.read(name)
      indices, rows = _locate(digests, from_arrow(table["text_digest"]), missing)
      missing[indices] = False
      yield indices, table.take(rows)
    if missing.any():
      raise StoreError(f"{self.folder}: {missing.sum()} texts of this run have no vector; run again to encode them")


def _locate(digests: np.ndarray, held: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns (indices into `digests`, rows of `held`) of the missing digests that `held` has, each once."""
  if not len(digests):
    return np.empty(0, np.int64), np.empty(0, np.int64)
  at = np.minimum(np.searchsorted(digests, held), len(digests) - 1)
  rows = np.flatnonzero((digests[at] == held) & missing[at])
  indices, first = np.unique(at[rows], return_index=True)
  return indices, rows[first]


def vectors_of(table: pa.Table) -> np.ndarray:
  """Returns the raw vectors float32 [N, H] of a table of raw files."""
  return from_vectors(table["vector"])


def probabilities_of(table: pa.Table) -> np.ndarray:
  """Returns the probabilities float32 [N, n_labels] of a table of raw files, [N, 0] where no head gave any."""
  if "probabilities" not in table.column_names:
    return np.empty((len(table), 0), np.float32)
  return from_vectors(table["probabilities"])
