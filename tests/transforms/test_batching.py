import numpy as np
import pytest

from transforms.batching import BATCH_COST, pad_batch, token_budget_batches


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


def cost(lengths, cut):
  return sum(len(batch) * lengths[batch].max() + BATCH_COST for batch in cut)


def every_cut(order, lengths, budget):
  """All ways to cut a sorted order into batches that the budget allows."""
  if not len(order):
    yield []
  for n in range(1, len(order) + 1):
    if n == 1 or n * lengths[order[n - 1]] <= budget:
      yield from ([order[:n], *rest] for rest in every_cut(order[n:], lengths, budget))


@pytest.mark.parametrize("seed", range(20))
def test_no_cut_costs_less(seed):
  lengths = np.random.default_rng(seed).integers(2, 120, 11)
  budget = 400
  cuts = every_cut(np.argsort(lengths, kind="stable"), lengths, budget)
  assert cost(lengths, token_budget_batches(lengths, budget)) == min(cost(lengths, cut) for cut in cuts)


def test_a_batch_is_not_filled_with_what_would_mostly_be_padding():
  lengths = np.array([10] * 20 + [200] * 2)
  assert [len(batch) for batch in token_budget_batches(lengths, 4400)] == [20, 2]


@pytest.mark.parametrize("n", [1500, 10_000])
@pytest.mark.parametrize("median", [12, 60])
def test_little_is_padded_even_of_a_small_bucket(n, median):
  lengths = np.clip(np.random.default_rng(n).lognormal(np.log(median), 0.6, n), 3, 256).astype(np.int64)
  batches = token_budget_batches(lengths)
  assert lengths.sum() / sum(len(batch) * lengths[batch].max() for batch in batches) >= 0.95
  assert sum(lengths) / len(batches) > 500  # and batches are worth their call


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
