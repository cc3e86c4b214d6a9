"""Token arrays from outside: refused with the shape expected, the shape got, and what helps."""

from dataclasses import replace

import numpy as np
import pytest

from tests.fake_encoder import FakeEncoder, make_vocabulary
from transforms.token_arrays import check_token_arrays

VOCABULARY = make_vocabulary([])
N = len(VOCABULARY)
SPEC = FakeEncoder(VOCABULARY, hidden_size=4, max_seq_length=8).spec
IDS = np.array([[2, 7, 9, 3], [2, 5, 3, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])


def with_value(array, row, column, value):
  array = array.copy()
  array[row, column] = value
  return array


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.int64])
def test_any_integers_become_int32(dtype):
  ids, mask = check_token_arrays(SPEC, IDS.astype(dtype), MASK.astype(dtype))
  assert ids.dtype == mask.dtype == np.int32
  np.testing.assert_array_equal(ids, IDS)
  np.testing.assert_array_equal(mask, MASK)


def test_int32_arrays_are_not_copied():
  ids, mask = IDS.astype(np.int32), MASK.astype(np.int32)
  assert check_token_arrays(SPEC, ids, mask)[0] is ids


@pytest.mark.parametrize(
  ("ids", "mask", "message"),
  [
    (IDS[0], MASK[0], r"input_ids: expected integers \[B, T\], got int64 \[4\]; one row is ids\[0:1\], not ids\[0\]"),
    (IDS[None], MASK[None], r"input_ids: .*, got int64 \[1, 2, 4\]; take its rows, ids\[0\]"),
    (IDS, MASK[0], r"input_mask: expected integers \[B, T\], got int64 \[4\]"),
    (IDS * 1.0, MASK, r"input_ids: .*, got float64 \[2, 4\]; give ids.astype\(np.int32\)"),
    (IDS, MASK == 1, r"input_mask: .*, got bool \[2, 4\]"),
    (IDS, MASK[:, :3], r"input_mask: expected the shape of input_ids, \[2, 4\], got \[2, 3\]"),
    (IDS, MASK[:1], r"input_mask: expected the shape of input_ids, \[2, 4\], got \[1, 4\]"),
    (np.ones((1, 9), int), np.ones((1, 9), int), r"T at most 8, got int64 \[1, 9\]; give ids\[:, :8\]"),
    (with_value(IDS, 1, 2, N), MASK, rf"input_ids\[1, 2\]: expected 0 to {N - 1}, got {N}"),
    (with_value(IDS, 1, 3, -1), MASK, rf"input_ids\[1, 3\]: expected 0 to {N - 1}, got -1"),
    (IDS, with_value(MASK, 0, 1, 0), r"input_mask\[0\]: expected ones and then zeros, got \[1, 0, 1, 1\]"),
    (IDS, with_value(MASK, 1, 0, 2), r"input_mask\[1\]: expected ones and then zeros"),
    (IDS, MASK * [[1], [0]], r"input_mask\[1\]: expected 1 or more tokens, got 0: .* leave that row out"),
    (np.ones((2, 0), int), np.ones((2, 0), int), r"input_mask\[0\]: expected 1 or more tokens, got 0"),
  ],
)
def test_other_arrays_are_refused(ids, mask, message):
  with pytest.raises(ValueError, match=message):
    check_token_arrays(SPEC, ids, mask)


def test_a_sequence_of_specials_has_no_vector_where_they_do_not_count():
  ids, mask = np.array([[2, 3]]), np.array([[1, 1]])
  check_token_arrays(SPEC, ids, mask)
  without = replace(SPEC, exclude_special_tokens=True)
  with pytest.raises(ValueError, match=r"input_mask\[0\]: expected 3 or more tokens, got 2"):
    check_token_arrays(without, ids, mask)


def test_an_encoder_checks_what_it_is_given():
  encoder = FakeEncoder(VOCABULARY, hidden_size=4, max_seq_length=8).load()
  assert encoder.encode(IDS, MASK).shape == (2, 4)
  assert encoder.encode(IDS[:0], MASK[:0]).shape == (0, 4)
  with pytest.raises(ValueError, match=r"one row is ids\[0:1\]"):
    encoder.encode(IDS[0], MASK[0])
  with pytest.raises(ValueError, match=r"one row is ids\[0:1\]"):
    encoder.encode_and_predict(IDS[0], MASK[0])
