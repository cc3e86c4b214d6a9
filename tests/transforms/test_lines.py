import gzip
import io
import tracemalloc
from itertools import pairwise

import pytest

from transforms.lines import MAX_LINE_BYTES, read_lines, without_byte_order_mark

DATA = [b"", b"\n", b"\n\n\na", b"a", b"a\nbb\n\nccc\r\n\r\nd\re\xe4\xb8\xad", b"first\nsecond\n"]


class Trickle(io.BytesIO):
  """Gives at most three bytes at a time, so that every line is met across reads."""

  def read(self, n=-1, /):
    return super().read(3)


def slice_lines(data, begin, end):
  stream = Trickle(data)
  stream.seek(max(0, begin - 1))
  return list(read_lines(stream, begin, end))


def test_lines_and_their_offsets():
  assert slice_lines(b"a\nbb\n\nccc\r\nd\re", 0, None) == [(0, b"a"), (2, b"bb"), (5, b""), (6, b"ccc"), (11, b"d\re")]


def test_a_line_break_at_the_end_starts_no_line():
  assert slice_lines(b"a\n", 0, None) == [(0, b"a")]
  assert slice_lines(b"a\n\n", 0, None) == [(0, b"a"), (2, b"")]
  assert slice_lines(b"", 0, None) == []


@pytest.mark.parametrize("data", DATA)
def test_every_line_is_in_exactly_one_slice_whatever_the_cuts(data):
  whole = slice_lines(data, 0, None)
  size = len(data)
  for first in range(1, size):
    for second in range(first, size):
      cuts = sorted({0, first, second, size})
      pieces = [line for begin, end in pairwise(cuts) for line in slice_lines(data, begin, end)]
      assert pieces == whole, (data, cuts)


def test_a_slice_has_the_lines_that_start_in_it():
  assert slice_lines(b"aaa\nbbb\nccc\n", 4, 8) == [(4, b"bbb")]
  assert slice_lines(b"aaa\nbbb\nccc\n", 3, 4) == []
  assert slice_lines(b"aaa\nbbb\nccc\n", 5, 9) == [(8, b"ccc")]
  assert slice_lines(b"aaa\nbbb", 5, None) == []


def test_a_slice_within_one_long_line_is_left_at_its_end():
  stream = Trickle(b"x" * 1000)
  stream.seek(99)
  assert list(read_lines(stream, 100, 200)) == []
  assert stream.tell() < 210


def test_a_byte_order_mark_is_dropped_but_counted():
  lines = iter([(0, b"\xef\xbb\xbfa"), (5, b"\xef\xbb\xbfb")])
  assert list(without_byte_order_mark(lines, "utf-8")) == [(0, b"a"), (5, b"\xef\xbb\xbfb")]
  assert list(without_byte_order_mark(iter([(0, b"\x84\x31\x95\x33a")]), "gb18030")) == [(0, b"a")]
  assert list(without_byte_order_mark(iter([]), "utf-8")) == []


def test_an_endless_line_is_skipped_in_bounded_memory():
  n_bytes = 300 << 20
  stream = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(b"a" * n_bytes + b"\nnext", 1)))
  tracemalloc.start()
  (first, too_long), after = read_lines(stream)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert first == 0 and len(too_long) > MAX_LINE_BYTES
  assert after == (n_bytes + 1, b"next")
  assert peak < 150 << 20
