"""Which raw files are worth rewriting: what of each is dead, and which have to be rewritten together. Nothing is read.

A row is dead if no run that is kept has its text, or if a file before its own, by name, has the text too: readers take
the first. Files that share a text are rewritten together or not at all, for a new name must not change which copy is
the first: encoders give the same text vectors that differ in the last bits, and unchanged texts keep theirs.

After every chosen file was replaced by its live rows, at most a fifth of any file is dead, so the store has at most
1.25 rows for each live text, and at most `MOST_SMALL` files of a range are small. Files of runs that were killed come
on top, and what shares a text with these.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from transforms.digests import DigestRange, is_among

# More dead rows than one in so many are worth a rewrite.
ROWS_PER_DEAD_ROW = 5
# A small file costs a reader a request and a footer for little; so many of one range are borne.
SMALL_BYTES = 16 << 20
MOST_SMALL = 8


@dataclass(frozen=True)
class HeldFile:
  """A raw file with the text digests [N] (S16) that stand in it."""

  name: str
  bytes: int
  digests: np.ndarray


@dataclass(frozen=True)
class RawFile:
  """What is known of a raw file without its digests.

  Attributes:
    name: of the file.
    bytes: its size.
    rows: of it.
    dead: how many of them are.
    group: the same for all files that share live texts, directly or by way of others; None where it shares none.
  """

  name: str
  bytes: int
  rows: int
  dead: int
  group: str | None

  @property
  def range_name(self) -> str:
    """The digest range that its name begins with."""
    return self.name.partition("-")[0]


def find_waste(held: Sequence[HeldFile], live: np.ndarray) -> list[RawFile]:
  """Says of each file how much of it is dead.

  Args:
    held: all files that share a digest range, sorted by name. Memory: 50 bytes a row of theirs.
    live: digests [M] (S16), sorted, distinct, of the texts that runs which are kept have in this range.
  """
  digests = np.concatenate([file.digests for file in held]) if held else np.empty(0, live.dtype)
  order = np.argsort(digests, kind="stable")  # stable: of equal digests that of the first file comes first
  digests, file_of = digests[order], np.repeat(np.arange(len(held)), [len(f.digests) for f in held])[order]
  repeats = np.zeros(len(digests), dtype=bool)
  repeats[1:] = digests[1:] == digests[:-1]
  is_live = is_among(digests, live)
  dead = np.bincount(file_of[~is_live | repeats], minlength=len(held))
  again = np.flatnonzero(repeats & is_live)
  groups = _groups(len(held), file_of[again - 1], file_of[again])
  return [
    RawFile(file.name, file.bytes, len(file.digests), int(dead[i]), None if i not in groups else held[groups[i]].name)
    for i, file in enumerate(held)
  ]


def choose_files(files: Sequence[RawFile], bits: int, is_protected: Callable[[str], bool]) -> list[RawFile]:
  """Returns the files to rewrite, sorted by name.

  Args:
    files: of one encoder.
    bits: of the digest ranges that new files will have.
    is_protected: says of a name whether its file has to stay as it is.
  """
  frozen = {file.group for file in files if file.group and is_protected(file.name)}
  free = [file for file in files if not is_protected(file.name) and file.group not in frozen]
  buckets = [DigestRange.named(file.range_name).buckets(bits) for file in free]
  spans = np.array([(mine.start, mine.stop) for mine in buckets], np.int64).reshape(-1, 2)
  chosen = np.array([_is_wasteful(file) for file in free], dtype=bool)
  small = np.array([file.bytes < SMALL_BYTES for file in free], dtype=bool)
  gives = np.array([file.dead < file.rows for file in free], dtype=bool)
  while True:  # a coarse file that is rewritten gives a file to each of its ranges, which may be one too many there
    left = _number(spans[small & ~chosen], bits) + (_number(spans[chosen & gives], bits) > 0)
    more = small & ~chosen & _touches(spans, left > MOST_SMALL)
    if not more.any():
      return sorted((file for file, c in zip(free, chosen, strict=True) if c), key=lambda file: file.name)
    chosen |= more


def find_roots(range_names: Iterable[str], bits: int) -> list[DigestRange]:
  """Returns the largest ranges that share no digest, so that each file lies in one; none is finer than `bits`."""
  prefixes = sorted({"" if name == "all" else name[:bits] for name in range_names})
  roots: list[str] = []
  for prefix in prefixes:
    if not roots or not prefix.startswith(roots[-1]):
      roots.append(prefix)
  return [DigestRange(int(prefix or "0", 2), len(prefix)) for prefix in roots]


def _is_wasteful(file: RawFile) -> bool:
  return file.group is not None or file.dead == file.rows or file.dead * ROWS_PER_DEAD_ROW > file.rows


def _number(spans: np.ndarray, bits: int) -> np.ndarray:
  """Returns how many of the spans [N, 2] lie over each bucket, int64 [2**bits]."""
  steps = np.zeros((1 << bits) + 1, np.int64)
  np.add.at(steps, spans[:, 0], 1)
  np.add.at(steps, spans[:, 1], -1)
  return np.cumsum(steps)[:-1]


def _touches(spans: np.ndarray, marked: np.ndarray) -> np.ndarray:
  """Returns whether each span [N, 2] lies over a bucket that is marked, bool [N]."""
  before = np.concatenate([[0], np.cumsum(marked)])
  return before[spans[:, 1]] > before[spans[:, 0]]


def _groups(n: int, ones: np.ndarray, others: np.ndarray) -> dict[int, int]:
  """Returns of each number under `n` that is linked to one, be it itself, the least of all it is linked to."""
  parent = list(range(n))

  def root(i: int) -> int:
    while parent[i] != i:
      i = parent[i]
    return i

  for pair in np.unique(np.stack([ones, others], axis=1), axis=0):
    a, b = sorted(root(int(i)) for i in pair)
    parent[b] = a
  return {int(i): root(int(i)) for i in np.union1d(ones, others)}
