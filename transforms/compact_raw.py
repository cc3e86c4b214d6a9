"""Merge the live rows of raw files into fewer new ones. New files are written here; removing the old is the caller's.

Memory holds the live rows of one digest range twice, and one raw file.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa

from transforms.digests import DigestRange, from_arrow
from transforms.errors import StoreError
from transforms.raw_store import RawStore, check_finite, content_of
from transforms.storage import sha256
from transforms.vector_table import read_parquet

# As much as a run flushes at a time.
TARGET_BYTES = 64 << 20


@dataclass
class Compaction:
  """What has become of some raw files.

  Attributes:
    written: names of the new files.
    rows: in these.
    damaged: why a file was left as it is, by name.
  """

  written: list[str] = field(default_factory=list)
  rows: int = 0
  damaged: dict[str, str] = field(default_factory=dict)


def compact_range(
  store: RawStore,
  names: Sequence[str],
  wanted: DigestRange,
  live: np.ndarray,
  run_id: str,
  done: Compaction,
  advance: Callable[[str], None] = lambda _: None,
) -> None:
  """Writes what some raw files hold of the live texts of one range as new files of that range, sorted by digest.

  Args:
    store: of the files.
    names: of the files, sorted: a text that stands in several is taken from the first that is whole.
    wanted: the range.
    live: digests [N] (S16) of its texts, sorted, distinct.
    run_id: for the names of the new files.
    done: is added to; what it says is damaged is not read again.
    advance: is told each file that was read.
  """
  for table in _cut(_merge(list(_live_rows(store, names, live, done, advance)))):
    done.written.append(store.write(wanted, run_id, table))
    done.rows += len(table)


def _live_rows(
  store: RawStore, names: Sequence[str], live: np.ndarray, done: Compaction, advance: Callable[[str], None]
) -> Iterator[pa.Table]:
  missing = np.ones(len(live), dtype=bool)
  for name in names:
    if name in done.damaged:
      continue
    try:
      table = store.read(name)
    except StoreError as error:
      if not _is_damaged(store, name):
        raise
      done.damaged[name] = str(error)
      continue
    at, rows = _first_rows(from_arrow(table["text_digest"]), live, missing)
    missing[at] = False
    advance(name)
    if len(rows):
      yield table.take(rows)


def _is_damaged(store: RawStore, name: str) -> bool:
  """Says whether a file that was refused will always be: one that the file system fails to give still counts.

  Repairing what is damaged is for who can encode.
  """
  path = f"{store.folder}/{name}"
  try:
    data = store.storage.read(path)
    if sha256(data).startswith(content_of(name)):
      check_finite(read_parquet(data, path, store.schema), path)
  except (FileNotFoundError, StoreError):
    return True
  except OSError:
    return False
  return not sha256(data).startswith(content_of(name))


def _first_rows(held: np.ndarray, live: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns (indices into `live`, rows of `held`) of the missing texts that `held` has, each once."""
  if not len(live):
    return np.empty(0, np.int64), np.empty(0, np.int64)
  at = np.minimum(np.searchsorted(live, held), len(live) - 1)
  rows = np.flatnonzero((live[at] == held) & missing[at])
  texts, first = np.unique(at[rows], return_index=True)
  return texts, rows[first]


def _merge(tables: Sequence[pa.Table]) -> pa.Table | None:
  """Returns all rows in the order of their digests; None for none."""
  if not tables:
    return None
  table = pa.concat_tables(tables)
  return table.take(np.argsort(from_arrow(table["text_digest"]), kind="stable"))


def _cut(table: pa.Table | None) -> Iterator[pa.Table]:
  """Yields a table in equal parts of at most TARGET_BYTES: none of several is small."""
  if table is None:
    return
  parts = -(-table.nbytes // TARGET_BYTES)
  edges = [len(table) * i // parts for i in range(parts + 1)]
  for start, stop in pairwise(edges):
    if stop > start:
      yield table.slice(start, stop - start)
