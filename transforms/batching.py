"""Token sequences of many lengths into padded batches that waste little."""

import numpy as np

# What a batch costs whatever is in it, in tokens: a choice between padding and many small calls, which are slower by
# the token (`python -m benchmarks.threads` measures by how much).
BATCH_COST = 100


def token_budget_batches(lengths: np.ndarray, budget: int = 2048) -> list[np.ndarray]:
  """Cuts N sequences, shortest first, into batches with rows × longest ≤ budget; a longer sequence stands alone.

  Of all such cuts it is that of the least cost, by dynamic programming over the sorted lengths: a batch costs its
  rows × longest and `BATCH_COST`. So few texts, or a tail of long ones, are not padded to fill a batch.

  Args:
    lengths: int [N], tokens of each sequence.
    budget: tokens in a batch, padding counted.

  Returns:
    Index arrays int64 [B]; every index stands in one of them. The same lengths always give the same batches.
  """
  order = np.argsort(lengths, kind="stable")
  begins = _cheapest_begins(np.asarray(lengths, np.int64)[order], budget)
  batches, stop = [], len(order)
  while stop:
    start = int(begins[stop])
    batches.append(order[start:stop])
    stop = start
  return batches[::-1]


def _cheapest_begins(ascending: np.ndarray, budget: int) -> np.ndarray:
  """Returns int64 [N + 1]: where the last batch begins in the cheapest cut of the first 0, 1, … N sequences."""
  n = len(ascending)
  positions, costs, begins = np.arange(n + 1), np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
  for stop, longest in enumerate(ascending.tolist(), start=1):
    first = max(0, stop - max(1, budget // max(1, longest)))
    # Less stop × longest, which all have in common. Of equal costs the first, and so the larger batch, is taken.
    candidates = costs[first:stop] - positions[first:stop] * longest
    begins[stop] = first + candidates.argmin()
    costs[stop] = candidates[begins[stop] - first] + stop * longest + BATCH_COST
  return begins


def pad_batch(
  input_ids: np.ndarray, offsets: np.ndarray, indices: np.ndarray, length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Gathers the sequences `indices` [B] of flat tokens into one padded batch.

  Args:
    input_ids: int [sum of the lengths].
    offsets: int [N + 1].
    indices: int [B].
    length: T; the longest of the batch by default.

  Returns:
    (input_ids, input_mask), int32 [B, T]: padded with id 0 as Google's `run_classifier.py` does, mask 1 on tokens.

  Raises:
    ValueError: a sequence is longer than `length`.
  """
  starts, lengths = offsets[indices], offsets[np.add(indices, 1)] - offsets[indices]
  longest = int(lengths.max(initial=0))
  if length is not None and longest > length:
    raise ValueError(f"a sequence of {longest} tokens does not fit {length}")
  columns = np.arange(longest if length is None else length)
  mask = columns < lengths[:, None]  # [B, T]
  padded = np.zeros(mask.shape, np.int32)
  padded[mask] = input_ids[(starts[:, None] + columns)[mask]]
  return padded, mask.astype(np.int32)
