"""Lines with their byte offsets, each in exactly one slice, in bounded memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from typing import Final

from transforms.input_source import READ_BYTES, Readable

# A document of 64 MiB is a mistake (a dump without line breaks); what is longer is skipped without being held.
MAX_LINE_BYTES: Final = 64 << 20

Lines = Iterator[tuple[int, bytes]]


def read_lines(stream: Readable, begin: int = 0, end: int | None = None) -> Lines:
  r"""Yield (byte offset, line) of the lines that start in [begin, end), without their line breaks.

  Only b"\n" ends a line; a b"\r" before it is dropped, and the last line needs no end. A line over `MAX_LINE_BYTES`
  comes cut, but still longer than that.

  Args:
    stream: stands at the first byte if begin is 0, and at begin − 1 otherwise: a line starts at `begin` if the byte
      before it is a line break, so the line in which begin − 1 lies belongs to the slice before.
    begin: byte offset.
    end: byte offset; None: to the end of the stream.
  """
  is_foreign = begin > 0  # the line in hand, which belongs to the slice before
  start, end = max(0, begin - 1), sys.maxsize if end is None else end
  pieces: list[bytes] = []
  length = 0  # of the line in hand, of which `pieces` holds no more than the bound and one chunk
  while chunk := stream.read(READ_BYTES):
    lines = chunk.split(b"\n")
    rest = lines.pop()
    if lines:
      length += len(lines[0])
      pieces.append(lines[0])
      lines[0] = b"".join(pieces)
      if not is_foreign:
        yield start, lines[0].removesuffix(b"\r")
      start += length + 1
      pieces, length, is_foreign = [], 0, False
      for line in lines[1:]:
        if start >= end:
          return
        yield start, line[:-1] if line.endswith(b"\r") else line
        start += len(line) + 1
      if start >= end:
        return
    if length <= MAX_LINE_BYTES + 1:  # one more, as a carriage return at the cut is dropped
      pieces.append(rest)
    length += len(rest)
    if is_foreign and start + length >= end:
      return  # no line starts in this slice: it lies within a long one
  if length and not is_foreign:
    yield start, b"".join(pieces).removesuffix(b"\r")


def without_byte_order_mark(lines: Lines, encoding: str) -> Lines:
  """Drop U+FEFF from the first of a file's lines; its offset stays 0."""
  mark = "\ufeff".encode(encoding, "ignore")
  first = next(lines, None)
  if first is None:
    return lines
  return chain([(first[0], first[1].removeprefix(mark))], lines)
