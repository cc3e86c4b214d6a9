"""Texts that the store has already: sorted digests in a file, by which reading tells what need not be tokenised.

The file lies in `runs/<run_id>/known/`, raw bytes, 16 a text. It is a hint that may be wrong in both ways: a text that
it lacks is tokenised for nothing, one that is lost meanwhile is found missing where it would be encoded.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from transforms.digests import ALL_DIGESTS, DIGEST_BYTES, bucket_of, is_among
from transforms.errors import DamagedFileError
from transforms.raw_store import RawStore, range_of
from transforms.storage import Storage

_DTYPE = f"S{DIGEST_BYTES}"
# Only a column is read of each file, so the time goes into waiting where the store is far away.
_READERS = 8


class KnownTexts:
  """A set of text digests. Safe to share between threads."""

  def __init__(self, digests: np.ndarray):
    """Takes digests [N] (S16), sorted and distinct."""
    self._digests = digests

  @classmethod
  def open(cls, storage: Storage, path: str | None) -> "KnownTexts":
    """Maps a file that `write_known` wrote, so that a worker's memory need not hold it; None for no text."""
    return cls(np.frombuffer(storage.map(path) if path else b"", _DTYPE))

  def __len__(self) -> int:
    """Returns the number of texts."""
    return len(self._digests)

  def holds(self, digests: np.ndarray) -> np.ndarray:
    """Says of each digest [N] (S16) whether it is known: bool [N]."""
    return is_among(digests, self._digests)


def write_known(storage: Storage, folder: str, name: str, digests: np.ndarray) -> str | None:
  """Writes sorted, distinct digests [N] (S16) and returns the file's path; None, and no file, for no text."""
  if not len(digests):
    return None
  return storage.write_content(folder, name, ".digests", digests.tobytes(), len(digests)).path


def find_known(store: RawStore, buckets: range, bits: int, *, whole: bool) -> np.ndarray:
  """Returns the sorted, distinct digests [N] (S16) that the store has in some buckets of 2**bits.

  Memory holds 32 bytes a text at most.

  Args:
    store: the raw vectors.
    buckets: whose texts are asked for.
    bits: of a digest that choose its bucket.
    whole: read every file in full, and mark those that are damaged; else a glance at one column of each, which costs
      16 bytes a text, not 4 × H.
  """
  names = [name for name in store.find(ALL_DIGESTS) if _overlap(range_of(name).buckets(bits), buckets)]

  def held(name: str) -> np.ndarray:
    digests = _checked(store, name) if whole else store.glance(name)
    mine = bucket_of(digests, bits)
    return digests[(mine >= buckets.start) & (mine < buckets.stop)]

  with ThreadPoolExecutor(1 if whole else _READERS) as readers:  # whole files are held one at a time
    every = np.concatenate([np.empty(0, _DTYPE), *readers.map(held, names)])
  every.sort()
  return every[np.append(True, every[1:] != every[:-1])[: len(every)]]


def _checked(store: RawStore, name: str) -> np.ndarray:
  try:
    return store.digests(name)
  except DamagedFileError:
    store.mark_damaged(name)
    return np.empty(0, _DTYPE)


def _overlap(a: range, b: range) -> bool:
  return a.start < b.stop and b.start < a.stop
