from itertools import pairwise

import numpy as np
import pytest

from transforms.errors import UsageError
from transforms.long_texts import CHUNKS, HEAD_TAIL, TRUNCATE, WINDOWS, Documents, LongTexts, lay_windows


@pytest.mark.parametrize(
  ("mode", "stride", "max_seq_length", "expected"),
  [
    (TRUNCATE, None, 128, LongTexts(TRUNCATE, 126)),
    (HEAD_TAIL, None, 512, LongTexts(HEAD_TAIL, 510)),
    (WINDOWS, None, 512, LongTexts(WINDOWS, 510, 382)),
    (WINDOWS, 128, 512, LongTexts(WINDOWS, 510, 128)),
    (WINDOWS, None, 3, LongTexts(WINDOWS, 1, 1)),
    (CHUNKS, None, 128, LongTexts(CHUNKS, 126, 126)),
    (CHUNKS, 100, 128, LongTexts(CHUNKS, 126, 100)),
  ],
)
def test_what_is_asked(mode, stride, max_seq_length, expected):
  assert LongTexts.asked(mode, stride, max_seq_length) == expected
  assert LongTexts.of({"long_texts": expected.describe() | {"long": 3, "chunks": None}}) == expected


@pytest.mark.parametrize("stride", [1, 31, 127])
def test_a_stride_that_gives_a_text_too_often_or_leaves_some_out(stride):
  with pytest.raises(UsageError, match=rf"--stride {stride}: 126 tokens .* choose 32 .* to 126"):
    LongTexts.asked(WINDOWS, stride, 128)


def test_a_run_of_an_older_version_truncated():
  assert LongTexts.of({}) == LongTexts()


def test_documents_of_a_run_whose_counts_are_of_chunks():
  """Of 300 documents 15 are rejected uncut, 20 become 4,000 chunks, of which 8 are rejected."""
  rejected = {
    "no tokens": 9,
    "null": 6,
    "duplicate id": 5,
    "encoder failed": 1,
    "vector not finite": 1,
    "zero vector": 1,
  }
  counts = {"read": 4280, "written": 4257, "rejected": rejected}
  long_texts = {"chunks": 4000, "long": 20}
  assert Documents.of(counts, long_texts) == Documents(300, 15)
  assert Documents.count_written(counts, long_texts) == 285
  for others in (None, {"chunks": None, "long": 20}):
    assert Documents.of(counts, others) is None and Documents.count_written(counts, others) == 4257


def test_only_what_gives_other_vectors_is_of_the_encoder():
  assert LongTexts(TRUNCATE, 9).of_encoder is LongTexts(CHUNKS, 9, 9).of_encoder is None
  assert LongTexts(HEAD_TAIL, 9).of_encoder == LongTexts(HEAD_TAIL, 9)


def test_the_head_is_that_of_sun_and_others():
  assert [LongTexts(HEAD_TAIL, room).head for room in (510, 126, 4, 1)] == [128, 32, 1, 0]


EVERY = np.arange(101)


@pytest.mark.parametrize(
  ("bounds", "ends", "room", "stride", "expected"),
  [
    (EVERY, [], 100, 75, [(0, 100)]),
    (EVERY, [], 40, 30, [(0, 40), (30, 70), (60, 100)]),
    (EVERY, [], 40, 40, [(0, 40), (40, 80), (80, 100)]),
    (EVERY, [30, 37, 50, 70], 40, 40, [(0, 37), (37, 70), (70, 100)]),  # the last that ends late enough
    (EVERY, [29, 41], 40, 40, [(0, 40), (40, 80), (80, 100)]),
    (EVERY, [35, 60, 95], 40, 30, [(0, 35), (30, 60), (60, 100)]),  # never behind the end of the one before
    (EVERY[::7], [], 40, 40, [(0, 35), (35, 70), (70, 98)]),  # a word is not cut
    (np.array([0, 5, 90, 100]), [], 40, 30, [(0, 5), (5, 90), (90, 100)]),  # but one that is too long stands alone
  ],
)
def test_lay_windows(bounds, ends, room, stride, expected):
  assert lay_windows(bounds, np.array(ends, np.int64), room, stride) == expected


def test_every_token_is_in_a_window_and_the_number_of_windows_is_bounded():
  generator = np.random.default_rng(0)
  for _ in range(500):
    room = int(generator.integers(1, 60))
    stride = int(generator.integers(-(-room // 4), room + 1))
    bounds = np.unique(np.append(0, np.cumsum(generator.integers(0, min(room, 6) + 1, generator.integers(1, 400)))))
    if (n := int(bounds[-1])) == 0:
      continue
    ends = np.sort(generator.choice(bounds, len(bounds) // 9))
    spans = lay_windows(bounds, ends, room, stride)
    assert spans[0][0] == 0 and spans[-1][1] == n
    assert all(start < stop <= start + room for start, stop in spans)
    assert all(a[0] < b[0] <= a[1] for a, b in pairwise(spans))
    assert {start for start, _ in spans} | {stop for _, stop in spans} <= set(bounds.tolist())
    if stride >= 12:  # a step is at least three quarters of the stride, less one word
      assert len(spans) <= 1 + n / (stride - stride // 4 - 6)
