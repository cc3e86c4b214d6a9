"""Files are cut into slices: the units in which documents are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from transforms.errors import InputFileError, UsageError
from transforms.input_types import InputFile, ReadOptions, Slice
from transforms.rows import read_slice

SLICE_BYTES: Final = 64 << 20


def cut_slices(files: Sequence[InputFile], slice_bytes: int = SLICE_BYTES) -> list[Slice]:
  """Cut files into slices of about `slice_bytes`, in the order of (file, position).

  Text and JSONL are cut at any byte, Parquet between row groups. What can only be read from its start (CSV with its
  quotes, anything compressed) is one slice; so is a Parquet file without a readable footer, for reading to refuse.
  """
  assert slice_bytes > 0, slice_bytes
  return [piece for index, file in enumerate(files) for piece in _cut(index, file, slice_bytes)]


def _cut(index: int, file: InputFile, slice_bytes: int) -> Iterable[Slice]:
  if file.row_groups is not None:
    return _cut_row_groups(index, file, slice_bytes)
  if file.compression or file.format in ("csv", "tsv", "parquet"):
    return [Slice(index)] if file.size or file.compression else []
  starts = range(0, file.size, slice_bytes)
  return [Slice(index, start, min(start + slice_bytes, file.size)) for start in starts]


def _cut_row_groups(index: int, file: InputFile, slice_bytes: int) -> Iterator[Slice]:
  groups = file.row_groups or ()
  begin, held = 0, 0
  for i, group in enumerate(groups):
    if held and held + group.text_bytes > slice_bytes:
      yield Slice(index, begin, i)
      begin, held = i, 0
    held += max(1, group.text_bytes)
  if any(group.rows for group in groups[begin:]):
    yield Slice(index, begin, len(groups))


def piece_bytes(file: InputFile, piece: Slice) -> int:
  """Returns the bytes of text in a slice, as far as the listing tells."""
  if file.row_groups is not None:
    return sum(group.text_bytes for group in file.row_groups[piece.begin : piece.end])
  if piece.end is None:
    return max(file.text_bytes - piece.begin, 0)
  return piece.end - piece.begin


def limit_slices(
  files: Sequence[InputFile],
  slices: Iterable[Slice],
  n: int,
  options: ReadOptions,
  *,
  sleep: Callable[[float], object] = time.sleep,
) -> list[Slice]:
  """Return the slices that hold the first n documents, rejected ones included, in the order of (file, position).

  They are found by reading ahead, so the time this takes grows with n.

  Raises:
    UsageError: if n is not positive.
    InputFileError: as in `read_slice`, unless `options.allow_bad_files`.
  """
  if n < 1:
    raise UsageError(f"a limit of {n} documents leaves nothing to read: at least 1")
  kept = []
  for piece in sorted(slices, key=lambda piece: (piece.file, piece.begin)):
    count = _count(files[piece.file], replace(piece, limit=n), options, sleep)
    kept.append(replace(piece, limit=n) if count == n else piece)
    n -= count
    if not n:
      break
  return kept


def _count(file: InputFile, piece: Slice, options: ReadOptions, sleep: Callable[[float], object]) -> int:
  count = 0
  try:
    for _ in read_slice(file, piece.file, piece, options, sleep=sleep):
      count += 1
  except InputFileError:
    if not options.allow_bad_files:
      raise
  return count
