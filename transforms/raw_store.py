"""The store of raw vectors: immutable Parquet files that many runs share.

A file holds distinct texts of one digest range and is called `<range>-<run_id>-<content>.parquet`, where the content
is the first 16 digits of its bytes' sha256: a file that was cut or changed no longer agrees with its own name. Whoever
finds such a file marks it by an empty `<name>.damaged` beside it: from then on it counts as not there, and what it held
is encoded anew.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from transforms.digest_column import read_digests
from transforms.digests import DIGEST_BYTES, DigestRange, from_arrow
from transforms.errors import DamagedFileError, StoreError
from transforms.storage import Storage, sha256
from transforms.vector_table import from_vectors, raw_schema, read_parquet, to_parquet

_NAME = re.compile(r"(?P<range>all|[01]{1,16})-(?P<run_id>[0-9A-Za-z]+)-(?P<content>[0-9a-f]{16})\.parquet")
_MARK = ".damaged"


def run_of(name: str) -> str:
  """Returns the run that encoded the raw file `name`."""
  return _match(name)["run_id"]


def range_of(name: str) -> DigestRange:
  """Returns the range that all digests of the raw file `name` lie in."""
  return DigestRange.named(_match(name)["range"])


def content_of(name: str) -> str:
  """Returns what the sha256 of the raw file `name` begins with."""
  return _match(name)["content"]


def _marked(names: Iterable[str]) -> list[str]:
  """Returns the raw files that marks among `names` stand for."""
  marked = (name.removesuffix(_MARK) for name in names if name.endswith(_MARK))
  return [name for name in marked if _NAME.fullmatch(name)]


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
    """Returns the names, sorted, of the raw files that can hold a digest of `wanted` and are not marked as damaged."""
    names = self.storage.names(self.folder)
    damaged = set(_marked(names))
    matches = map(_NAME.fullmatch, names)  # what has another name is not ours
    return [m.string for m in matches if m and wanted.overlaps(m["range"]) and m.string not in damaged]

  def damaged(self, wanted: DigestRange) -> list[str]:
    """Returns the names, sorted, of the raw files that are marked as damaged and can have held a digest of `wanted`."""
    return [name for name in _marked(self.storage.names(self.folder)) if range_of(name).overlaps(wanted.name)]

  def mark_damaged(self, name: str) -> None:
    """Marks a raw file, so that no run counts on it; safe to repeat, and for two at once."""
    self.storage.write(f"{self.folder}/{name}{_MARK}", b"")

  def forget(self, name: str) -> None:
    """Removes a raw file and then its mark, if it has one: so long as any of it is there, no run counts on it."""
    self.storage.remove(f"{self.folder}/{name}")
    self.storage.remove(f"{self.folder}/{name}{_MARK}")

  def write(self, wanted: DigestRange, run_id: str, table: pa.Table) -> str:
    """Writes encoded texts as one immutable file and returns its name, which is no longer marked if it was."""
    data = to_parquet(table, {"run_id": run_id, "encoder_fingerprint": self.fingerprint})
    stored = self.storage.write_content(self.folder, f"{wanted.name}-{run_id}", ".parquet", data, len(table))
    self.storage.remove(f"{stored.path}{_MARK}")
    return stored.path.rpartition("/")[2]

  def read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns a raw file, checked against the content that its name promises.

    Raises:
      DamagedFileError: the file is gone, damaged, or of another schema.
      StoreError: it is of another format version, or the file system does not give it.
    """
    path = f"{self.folder}/{name}"
    try:
      data = self.storage.read(path)
    except FileNotFoundError as error:
      raise DamagedFileError(f"{path}: a raw file is gone; run again to encode what it held") from error
    except OSError as error:
      why = error.strerror or str(error)
      raise StoreError(f"{path}: cannot be read ({why}); mend that and run again") from error
    if not sha256(data).startswith(content_of(name)):
      raise DamagedFileError(
        f"{path}: damaged (its sha256 is not the one in its name); run again to encode what it held"
      )
    table = read_parquet(data, path, self.schema, columns)
    check_finite(table, path)
    return table

  def digests(self, name: str) -> np.ndarray:
    """Returns the text digests [N] (S16) of a raw file."""
    return from_arrow(self.read(name, ["text_digest"])["text_digest"])

  def glance(self, name: str) -> np.ndarray:
    """Returns the text digests [N] (S16) that a raw file seems to hold, reading of it that one column, unchecked.

    A file that is gone or damaged seems to hold nothing; a digest outside of the range in its name does not count.

    Raises:
      StoreError: the file system fails in the middle of it.
    """
    try:
      with self.storage.open(f"{self.folder}/{name}") as file:
        digests = read_digests(file, name)
    except OSError:  # whoever reads it whole finds out what is wrong
      digests = None
    return np.empty(0, f"S{DIGEST_BYTES}") if digests is None else range_of(name).within(digests)

  def select(self, names: Sequence[str], digests: np.ndarray) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Yields what the raw files hold of `digests` [N] (sorted, distinct), each text once: (indices into it, rows).

    A text that stands in two files is taken from the first, so the answer depends on the files' names alone.
    """
    missing = np.ones(len(digests), dtype=bool)
    for name in names:
      try:
        table = self.read(name)
      except DamagedFileError:
        self.mark_damaged(name)  # the next run knows at once
        raise
      indices, rows = locate(digests, from_arrow(table["text_digest"]), missing)
      missing[indices] = False
      yield indices, table.take(rows)
    if missing.any():
      raise StoreError(f"{self.folder}: {missing.sum()} texts of this run have no vector; run again to encode them")


def check_finite(table: pa.Table, path: str) -> None:
  """Raises DamagedFileError if a vector has NaN or infinity: Sorbus writes none, and no moments could be had of it."""
  if "vector" in table.column_names and not np.isfinite(vectors_of(table)).all():
    raise DamagedFileError(f"{path}: damaged (a vector is not finite); run again to encode what it held")


def locate(digests: np.ndarray, held: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns (indices into `digests`, rows of `held`) of what `held` [M] has of the missing ones, each text once.

  Args:
    digests: of texts, [N] (S16), sorted and distinct.
    held: of the rows of a raw file, in any order.
    missing: which of `digests` are still looked for, bool [N].
  """
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
