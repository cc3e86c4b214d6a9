import itertools

import numpy as np
import pytest

from transforms.window_pool import WindowPool, Windows, weighted_mean

CLS, SEP = 2, 3


def make_windows(*texts):
  """Windows of texts, each a list of how many tokens its windows have between [CLS] and [SEP]."""
  rows = [[token for n in text for token in (CLS, *[7] * n, SEP)] for text in texts]
  ids = np.array([token for row in rows for token in row], np.int32)
  return ids, Windows.find(ids, np.cumsum([0, *map(len, rows)]), (CLS,), (SEP,))


def test_windows_are_found_by_their_first_token():
  _, windows = make_windows([2], [3, 1], [1])
  assert windows.offsets.tolist() == [0, 4, 9, 12, 15] and windows.lengths.tolist() == [4, 5, 3, 3]
  assert windows.texts(np.array([3, 0, 1, 2])).tolist() == [2, 0, 1, 1]


def test_windows_of_some_texts():
  _, windows = make_windows([2], [3, 1], [1])
  assert windows.of(np.array([1, 0, 1])).tolist() == [1, 2, 0, 1, 2]
  assert windows.of(np.empty(0, np.int64)).tolist() == []


def test_windows_of_a_slice():
  ids, _ = make_windows([2], [3, 1], [1])
  assert Windows.find(ids, np.array([4, 12]), (CLS,), (SEP,)).offsets.tolist() == [4, 9, 12]


def test_windows_are_found_by_their_last_token_where_none_stands_before():
  ids = np.array([7, 7, SEP, CLS, 7, SEP, CLS, 7, 7, 7, SEP, CLS], np.int32)
  windows = Windows.find(ids, np.array([0, 4, 4, 12]), (), (SEP, CLS))  # the second text has come without its tokens
  assert windows.offsets.tolist() == [0, 4, 7, 12] and windows.firsts.tolist() == [0, 1, 1, 3]
  assert Windows.find(ids, np.array([4, 12]), (), (SEP, CLS)).offsets.tolist() == [4, 7, 12]
  assert Windows.find(ids[:0], np.zeros(1, np.int64), (), (SEP, CLS)).lengths.tolist() == []


def test_no_texts_no_windows():
  assert Windows.find(np.empty(0, np.int32), np.zeros(1, np.int64), (CLS,), (SEP,)).lengths.tolist() == []


def test_the_mean_is_weighed_by_tokens_without_the_specials():
  _, windows = make_windows([3, 1])
  vectors, probabilities = np.float32([[4, 0], [0, 8]]), np.float32([[1], [0]])
  [text], (vector, probability) = WindowPool(windows).add(np.arange(2), vectors, probabilities)
  assert text == 0 and vector.tolist() == [[3, 2]] and probability.tolist() == [[0.75]]
  assert vector.dtype == probability.dtype == np.float32


def test_a_single_row_stays_what_it_is_to_the_bit():
  rows = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32) * np.float32(1e-30)
  for i, row in enumerate(rows):
    assert weighted_mean(row[None], np.array([i + 1])).tobytes() == row.tobytes()


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_neither_order_nor_size_of_batches_matters(size):
  generator = np.random.default_rng(size)
  texts = [generator.integers(1, 60, generator.integers(1, 9)).tolist() for _ in range(30)]
  _, windows = make_windows(*texts)
  n = len(windows.lengths)
  vectors = (generator.normal(size=(n, 5)) * 10.0 ** generator.integers(-9, 9, (n, 1))).astype(np.float32)
  probabilities = generator.random((n, 2)).astype(np.float32)
  found = {}
  for order in (np.arange(n), generator.permutation(n)):
    pool = WindowPool(windows)
    for rows in np.split(order, range(size, n, size)):
      done, (some, likely) = pool.add(rows, vectors[rows], probabilities[rows])
      assert len(done) == len(some) == len(likely)
      for text, vector, probability in zip(done.tolist(), some, likely, strict=True):
        assert found.setdefault(text, (vector.tobytes(), probability.tobytes())) == (
          vector.tobytes(),
          probability.tobytes(),
        )
    assert not pool._held
  assert found.keys() == set(range(30))


def test_the_sum_is_in_the_order_of_the_windows_and_in_float64():
  _, windows = make_windows([1, 1, 1])
  small, large = np.float32([[2**24], [1], [-(2**24)]]), np.float32([[1e20], [1], [-1e20]])
  for order in itertools.permutations(range(3)):
    pool = WindowPool(windows)
    for row in order:
      rows = np.array([row])
      done, (vectors, probabilities) = pool.add(rows, large[rows], small[rows])
    assert done.tolist() == [0] and vectors.tolist() == [[0]] and probabilities[0, 0] == np.float32(1 / 3)


def test_a_text_of_which_a_window_never_comes_does_not_come():
  _, windows = make_windows([1, 1], [1])
  done, (vectors, probabilities) = WindowPool(windows).add(np.array([1, 2]), np.ones((2, 4)), np.ones((2, 0)))
  assert done.tolist() == [1] and vectors.shape == (1, 4) and probabilities.shape == (1, 0)
  done, (vectors, _) = WindowPool(windows).add(np.array([0]), np.ones((1, 4), np.float32), np.ones((1, 0)))
  assert done.tolist() == [] and vectors.shape == (0, 4)
