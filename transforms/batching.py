"""Token sequences of many lengths into padded batches that waste little."""

import numpy as np


def token_budget_batches(lengths: np.ndarray, budget: int = 2048) -> list[np.ndarray]:
  """Cuts N sequences, shortest first, into batches with rows × longest ≤ budget; a longer sequence stands alone.

  Args:
    lengths: int [N], tokens of each sequence.
    budget: tokens in a batch, padding counted.

  Returns:
    Index arrays int64 [B]; every index stands in one of them. The same lengths always give the same batches.
  """
  order = np.argsort(lengths, kind="stable")
  ascending = np.asarray(lengths)[order].tolist()
  batches, start = [], 0
  for stop in range(1, len(order) + 1):
    # Sorted, so the sequence that would come next would be the longest of the batch.
    if stop == len(order) or (stop - start + 1) * ascending[stop] > budget:
      batches.append(order[start:stop])
      start = stop
  return batches


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
