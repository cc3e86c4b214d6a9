"""A sample of a corpus spread evenly over all bytes that were listed, so that no file and no end of one is left out.

What can be read from anywhere is read from anywhere. What can only be read from its start (compressed, CSV, a row group
of Parquet) gives its first documents, more of them the larger it is.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

import numpy as np

from transforms.errors import InputFileError
from transforms.input_files import InputFile, ReadOptions, Slice
from transforms.input_slices import piece_bytes
from transforms.input_source import READ_BYTES, InputSource, decompressed
from transforms.rejected import RejectedDocument
from transforms.rows import Row, read_slice

# A request each where the input is far away, so there are not to be too many; of a small corpus more are small.
MIN_PIECE_BYTES, MAX_PIECE_BYTES, PIECES = 16 << 10, 64 << 10, 256
# Long documents, too, are to be read and tokenised within seconds.
MAX_SAMPLE_BYTES = 16 << 20
# Of a compressed file: enough to tell how much text is in a byte of it.
_PROBE_BYTES = 4 << 20
_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class SpreadSample:
  """Documents from everywhere in a corpus.

  Attributes:
    rows: those with a text.
    counts: int [P], documents of each piece that was read, rejected ones among them.
    sizes: float64 [P], the bytes that each piece takes of `total_bytes`.
    total_bytes: of the corpus, as listed.
    is_whole: everything was read.
  """

  rows: Sequence[Row]
  counts: np.ndarray
  sizes: np.ndarray
  total_bytes: int
  is_whole: bool

  @property
  def documents(self) -> int:
    """How many were read, rejected ones among them."""
    return int(self.counts.sum())


def visiting_order(n: int, seed: int = 0) -> Iterator[int]:
  """Yields 0 … n − 1, each once; however early one stops, what came so far is spread evenly.

  Multiples of the golden ratio leave no gap much larger than another (the three-distance theorem).
  """
  seen: set[int] = set()
  start = random.Random(seed).random()
  for k in range(n):
    place = int((start + k * _GOLDEN_RATIO) % 1 * n)
    if place not in seen:
      seen.add(place)
      yield place
  yield from (place for place in range(n) if place not in seen)


def read_spread(
  files: Sequence[InputFile], slices: Iterable[Slice], options: ReadOptions, most: int, seed: int = 0
) -> SpreadSample:
  """Reads pieces from everywhere in the planned slices until there are `most` documents or `MAX_SAMPLE_BYTES`.

  Raises:
    InputFileError: as in `read_slice`, unless `options.allow_bad_files`.
  """
  units = [unit for planned in slices for unit in _units(files, planned)]
  sizes = [piece_bytes(files[unit.file], unit) for unit in units]
  piece = min(max(sum(sizes) // PIECES, MIN_PIECE_BYTES), MAX_PIECE_BYTES)
  stops = list(accumulate(max(1, -(-size // piece)) for size in sizes))
  streams: dict[int, _Stream] = {}
  rows: list[Row] = []
  read: list[tuple[int, float]] = []
  n_documents, n_bytes, is_whole = 0, 0.0, True
  for place in visiting_order(stops[-1] if stops else 0, seed):
    if n_documents >= most or n_bytes >= MAX_SAMPLE_BYTES:
      is_whole = False
      break
    i = int(np.searchsorted(stops, place, side="right"))
    unit, file = units[i], files[units[i].file]
    if _is_cuttable(file, unit):
      begin = unit.begin + (place - (stops[i - 1] if i else 0)) * piece
      assert unit.end is not None, unit
      part = replace(unit, begin=begin, end=min(begin + piece, unit.end))
      found, size = _Stream(file, part, options).rest()
    else:
      stream = streams.setdefault(i, _Stream(file, unit, options))
      found, size = stream.take(piece)
    rows += [row for row in found if isinstance(row, Row)]
    read.append((len(found), size))
    n_documents, n_bytes = n_documents + len(found), n_bytes + size
  for stream in streams.values():
    stream.close()
  counts, taken = np.array(read, np.float64).reshape(-1, 2).T
  return SpreadSample(rows, counts.astype(np.int64), taken, sum(sizes), is_whole)


def _units(files: Sequence[InputFile], piece: Slice) -> Iterator[Slice]:
  """Yields what is read by itself: of Parquet each row group, so that one that is large does not hide the others."""
  groups = files[piece.file].row_groups
  if groups is None or piece.limit is not None:
    yield piece
    return
  for i in range(piece.begin, len(groups) if piece.end is None else piece.end):
    if groups[i].rows:
      yield replace(piece, begin=i, end=i + 1)


def _is_cuttable(file: InputFile, unit: Slice) -> bool:
  return file.format in ("text", "jsonl") and file.compression is None and unit.limit is None


class _Stream:
  """The documents of a unit in their order, taken by the bytes that they make of the listing."""

  def __init__(self, file: InputFile, unit: Slice, options: ReadOptions):
    self._file, self._unit, self._options = file, unit, options
    self._bytes = float(piece_bytes(file, unit))
    self._at = 0.0  # listed bytes that were taken
    self._n_rows = 0
    self._rows: Iterator[Row | RejectedDocument] | None = None
    self._scale = 1.0

  def rest(self) -> tuple[list[Row | RejectedDocument], float]:
    """Returns all that was not taken yet, and how many listed bytes it makes."""
    return self.take(self._bytes)

  def take(self, n_bytes: float) -> tuple[list[Row | RejectedDocument], float]:
    """Returns the documents that begin in the next bytes, and how many listed bytes they make."""
    if self._rows is None:
      self._rows, self._scale = self._opened(), _listed_per_byte(self._file, self._options)
    until, found = self._at + n_bytes, []
    is_last = until >= self._bytes
    for row in self._rows:
      if not is_last and self._place(row) >= until:
        self._rows = chain([row], self._rows)
        break
      found.append(row)
      self._n_rows += 1
    else:
      until = self._bytes
    size, self._at = until - self._at, until
    return found, size

  def close(self) -> None:
    """Closes the file."""
    self._rows = None

  def _opened(self) -> Iterator[Row | RejectedDocument]:
    try:
      yield from read_slice(self._file, self._unit.file, self._unit, self._options)
    except InputFileError:
      if not self._options.allow_bad_files:
        raise

  def _place(self, row: Row | RejectedDocument) -> float:
    """Returns the listed bytes before a document."""
    groups = self._file.row_groups
    if groups is None:
      return (row.position - self._unit.begin) * self._scale
    return self._n_rows * self._bytes / max(1, sum(group.rows for group in groups[self._unit.begin : self._unit.end]))


def _listed_per_byte(file: InputFile, options: ReadOptions) -> float:
  """Returns the listed bytes of text for each that is there: of a compressed file the listing could only guess."""
  if file.compression is None:
    return 1.0
  source, found = InputSource(file, options.storage), 0
  try:
    stream = decompressed(source, file.compression)
    while found < _PROBE_BYTES and (data := stream.read(READ_BYTES)):
      found += len(data)
    return file.text_bytes * source.tell() / max(1, file.size * found)
  except InputFileError:
    return 1.0  # whoever reads its documents says so
  finally:
    source.close()
