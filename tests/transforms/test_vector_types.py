import numpy as np
import pytest

from transforms.vector_types import LEAST_RANGE, coding, ranges_of, to_stored, to_unit, widen, widest, wrong_lengths

N, K = 60, 7
_drawn = np.random.default_rng(5).normal(size=(N, K)) * np.geomspace(1, 0.1, K)
UNIT = (_drawn / np.linalg.norm(_drawn, axis=1, keepdims=True)).astype(np.float32)
RANGES = ranges_of(UNIT)
NONE = np.empty(0, np.float32)


# --- ranges are a value with laws


def test_ranges_are_the_largest_sizes():
  assert ranges_of(np.float32([[0.5, -0.75, 0], [-0.25, 0.5, 0]])).tolist() == [0.5, 0.75, float(LEAST_RANGE)]
  assert RANGES.dtype == np.float32 and RANGES.shape == (K,)


@pytest.mark.parametrize("split", range(N + 1))
def test_ranges_of_two_parts_are_those_of_the_whole_to_the_bit(split):
  assert widest([ranges_of(UNIT[:split]), ranges_of(UNIT[split:])]).tobytes() == RANGES.tobytes()


def test_ranges_of_nothing_are_neutral_in_any_place():
  nothing = widest([])
  assert nothing == LEAST_RANGE and nothing.dtype == np.float32
  assert widest([nothing, RANGES]).tobytes() == widest([RANGES, nothing]).tobytes() == RANGES.tobytes()
  assert widest(part for part in (nothing, nothing)) == LEAST_RANGE


# --- what is stored


def test_whole_numbers_by_hand():
  stored, clipped = to_stored(np.float32([[0.5, -0.25], [-1, 0.126], [0, -2]]), "int8", np.float32([1, 0.25]))
  assert stored.dtype == np.int8
  assert stored.tolist() == [[64, -127], [-127, 64], [0, -127]] and clipped == 1
  assert widen(stored, np.float32([1, 0.25]))[0].tolist() == pytest.approx([64 / 127, -0.25])


def test_int8_is_within_half_a_step_and_clips_nothing_of_what_was_measured():
  stored, clipped = to_stored(UNIT, "int8", RANGES)
  assert clipped == 0 and (np.abs(stored).max(axis=0) == 127).all()
  assert (np.abs(widen(stored, RANGES) - UNIT) <= 0.5001 * RANGES / 127).all()


def test_a_component_that_never_varied_is_clipped_and_not_divided_by_zero():
  stored, clipped = to_stored(np.float32([[0.6, 0.8]]), "int8", ranges_of(np.float32([[1, 0]])))
  assert stored.tolist() == [[76, 127]] and clipped == 1
  assert np.isfinite(to_unit(stored, ranges_of(np.float32([[1, 0]])))).all()


def test_the_other_types_are_numpys():
  assert to_stored(UNIT, "float32", NONE)[0] is UNIT
  stored, clipped = to_stored(UNIT, "float16", NONE)
  assert stored.tobytes() == UNIT.astype(np.float16).tobytes() and clipped == 0


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_what_is_read_back_has_length_1_and_nearly_the_direction(kind):
  back = to_unit(to_stored(UNIT, kind, RANGES)[0], RANGES)
  assert back.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, atol=1e-6)
  assert (back * UNIT).sum(axis=1).min() > (0.9999 if kind == "int8" else 0.9999998)


def test_float32_is_read_back_as_it_is():
  longer = np.float32([[3, 4]])
  assert to_unit(longer, NONE) is longer


def test_a_vector_of_zeros_is_read_as_such():
  assert to_unit(np.zeros((1, 2), np.int8), np.float32([1, 1])).tolist() == [[0, 0]]


# --- what no vector of length 1 is stored as


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_lengths_are_held_to_what_the_type_resolves(kind):
  stored, _ = to_stored(UNIT, kind, RANGES)
  assert not len(wrong_lengths(stored, RANGES))
  wrong = stored.copy()
  wrong[3], wrong[5] = 0, wrong[5] // 2
  assert wrong_lengths(wrong, RANGES).tolist() == [3, 5]
  if kind != "int8":
    wrong[4, 0] = np.nan
    assert wrong_lengths(wrong, RANGES).tolist() == [3, 4, 5]


def test_what_was_clipped_may_be_shorter_and_never_longer():
  ranges = np.float32([0.5, 1])
  stored, clipped = to_stored(np.float32([[0.8, 0.6]]), "int8", ranges)
  assert clipped == 1 and np.linalg.norm(widen(stored, ranges)) < 0.8
  assert not len(wrong_lengths(stored, ranges))
  assert wrong_lengths(np.int8([[127, 127]]), ranges).tolist() == [0]


def test_vectors_are_stored_alike_by_one_type_and_for_int8_by_equal_ranges():
  assert coding("float16", "ab") == coding("float16", "cd") != coding("float32", "ab")
  assert coding("int8", "ab") != coding("int8", "cd")
