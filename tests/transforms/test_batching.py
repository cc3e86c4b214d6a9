from itertools import pairwise

import numpy as np
import pytest

from transforms.batching import pad_batch, token_budget_batches


@pytest.mark.parametrize("budget", [1, 64, 2048])
@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_every_index_stands_in_one_batch_within_the_budget(n, budget):
  lengths = np.random.default_rng(n).integers(2, 300, n)
  batches = token_budget_batches(lengths, budget)
  assert sorted(i for batch in batches for i in batch) == list(range(n))
  assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= budget for batch in batches)


def test_batches_are_filled_shortest_first():
  batches = token_budget_batches(np.array([5, 2, 9, 2, 3]), budget=9)
  assert [batch.tolist() for batch in batches] == [[1, 3, 4], [0], [2]]


def test_no_batch_would_have_had_room_for_the_next_row():
  lengths = np.random.default_rng(1).integers(2, 257, 500)
  batches = token_budget_batches(lengths)
  for batch, following in pairwise(batches):
    assert (len(batch) + 1) * lengths[following[0]] > 2048


def test_pad_batch_gathers_in_the_order_asked_for():
  input_ids, offsets = np.array([7, 8, 1, 2, 3, 9]), np.array([0, 2, 5, 6])
  ids, mask = pad_batch(input_ids, offsets, np.array([2, 1]))
  assert ids.tolist() == [[9, 0, 0], [1, 2, 3]]
  assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]
  assert ids.dtype == mask.dtype == np.int32


def test_pad_batch_to_a_given_length():
  input_ids, offsets = np.array([7, 8]), np.array([0, 2])
  ids, mask = pad_batch(input_ids, offsets, np.array([0]), length=4)
  assert ids.tolist() == [[7, 8, 0, 0]] and mask.tolist() == [[1, 1, 0, 0]]
  with pytest.raises(ValueError, match="2 tokens does not fit 1"):
    pad_batch(input_ids, offsets, np.array([0]), length=1)
