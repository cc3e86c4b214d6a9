"""The rows of a finished run, for whoever takes its vectors: search and export. No Beam here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import Dataset
from transforms.base_run import vector_type_of
from transforms.errors import StoreError, UsageError
from transforms.storage import sha256_of_file
from transforms.vector_table import from_vectors
from transforms.vector_types import INT8, to_unit


@dataclass(frozen=True, eq=False)  # a manifest has no hash
class PublishedRows:
  """The rows of the run of a manifest, one row group in memory at a time."""

  dataset: Dataset
  manifest: Mapping[str, Any]
  _checked: set[str] = field(default_factory=set)  # shards whose sha256 was found right

  @classmethod
  def of(cls, dataset: Dataset, run_id: str | None = None) -> "PublishedRows":
    """Returns the rows of a finished run, by default the published one; raises UsageError where there is none."""
    published = dataset.published() if run_id is None else None
    run_id = published.run_id if published else run_id
    if run_id is None:
      where = dataset.storage.root
      raise UsageError(f"{where}: nothing is published yet; `sorbus show {where}` says which runs there are")
    return cls(dataset, dataset.manifest(run_id))

  @property
  def bytes(self) -> int:
    """How many bytes `groups` reads."""
    return sum(file["bytes"] for file in self.manifest["files"]["vectors"])

  def groups(
    self, advance: Callable[[int], None] = lambda _: None, columns: Sequence[str] | None = None
  ) -> Iterator[pa.Table]:
    """Yields the rows in pieces of bounded size, in the order of the shards.

    Args:
      advance: is told the bytes that are done.
      columns: to read; all by default.

    Raises:
      UsageError: there is no such column.
      StoreError: a shard is missing, or not the one that the manifest names.
    """
    for file in self.manifest["files"]["vectors"]:
      path = file["path"]
      try:
        self._check(path, file["sha256"])
        with self.dataset.storage.open(path) as opened, pq.ParquetFile(opened) as parquet:
          names = parquet.schema_arrow.names
          if missing := sorted(set(columns or ()) - set(names)):  # Arrow would leave it out
            raise UsageError(f"run {self.manifest['run_id']} has no column {missing[0]!r}; it has {', '.join(names)}")
          for i in range(parquet.num_row_groups):
            # In threads of its own Arrow may still let go of what it read while Python ends: that aborts the process.
            wanted = None if columns is None else list(columns)
            group = parquet.read_row_group(i, columns=wanted, use_threads=False)
            yield group if columns is None else group.select(columns)
      except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{self._where(path)}: missing or damaged ({error}); embed again with --again") from error
      advance(file["bytes"])

  def vectors(self, group: pa.Table) -> np.ndarray:
    """Returns the vectors of a row group, float32 [N, K] of length 1, in whatever type they are stored."""
    return to_unit(from_vectors(group["vector"]), self.ranges)

  @cached_property
  def ranges(self) -> np.ndarray:
    """Of the components of int8 vectors, float32 [K]; of other types, which need none, empty."""
    if vector_type_of(self.manifest) != INT8:
      return np.empty(0, np.float32)
    return self.dataset.whitening(self.manifest["run_id"]).ranges

  def _check(self, path: str, expected: str) -> None:
    """Hashes a shard the first time that it is read: a flipped bit in a vector shows nowhere else."""
    if path not in self._checked:
      with self.dataset.storage.open(path) as file:
        if sha256_of_file(file) != expected:
          raise StoreError(
            f"{self._where(path)}: damaged (its sha256 is not the one in the manifest); embed again with --again"
          )
      self._checked.add(path)

  def _where(self, path: str) -> str:
    return f"{self.dataset.storage.root}/{path}"
