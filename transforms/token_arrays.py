"""Token ids and mask as they come from outside: checked before a graph sees them.

A wrong array often computes all the same. An id beyond the embedding table is an error on a CPU and a row of zeros on a
GPU; a mask with a hole gives a vector of something that nobody has written.
"""

import numpy as np

from transforms.encoder_spec import EncoderSpec


def check_token_arrays(
  spec: EncoderSpec, input_ids: np.ndarray, input_mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns both arrays as int32 [B, T], if they are what an encoder takes.

  Args:
    spec: the encoder's.
    input_ids: any integers [B, T], each in the vocabulary, T at most `max_seq_length`.
    input_mask: any integers [B, T]: in each row ones, one at least, then zeros.

  Raises:
    ValueError: they are not that; the message has what was expected, what came, and the slice that helps.
  """
  for name, array in (("input_ids", input_ids), ("input_mask", input_mask)):
    _check_shape(name, np.asarray(array), spec.max_seq_length)
  ids, mask = np.asarray(input_ids), np.asarray(input_mask)
  if ids.shape != mask.shape:
    raise ValueError(f"input_mask: expected the shape of input_ids, {_shape(ids)}, got {_shape(mask)}")
  if ids.size and not 0 <= ids.min() <= ids.max() < spec.vocab_size:
    row, column = np.argwhere((ids < 0) | (ids >= spec.vocab_size))[0]
    raise ValueError(
      f"input_ids[{row}, {column}]: expected 0 to {spec.vocab_size - 1}, got {ids[row, column]}; "
      "take the ids that the encoder's own tokenizer gives"
    )
  _check_mask(mask, 3 if spec.exclude_special_tokens else 1)
  return ids.astype(np.int32, copy=False), mask.astype(np.int32, copy=False)


def _check_shape(name: str, array: np.ndarray, max_seq_length: int) -> None:
  got = f"got {array.dtype} {_shape(array)}"
  if array.ndim != 2:
    remedy = "one row is ids[0:1], not ids[0]" if array.ndim < 2 else "take its rows, ids[0]"
    raise ValueError(f"{name}: expected integers [B, T], {got}; {remedy}")
  if not np.issubdtype(array.dtype, np.integer):
    raise ValueError(f"{name}: expected integers [B, T], {got}; give ids.astype(np.int32)")
  if array.shape[1] > max_seq_length:
    raise ValueError(f"{name}: expected [B, T] with T at most {max_seq_length}, {got}; give ids[:, :{max_seq_length}]")


def _check_mask(mask: np.ndarray, fewest: int) -> None:
  is_prefix = (mask == (np.arange(mask.shape[1]) < (mask != 0).sum(axis=1, keepdims=True))).all(axis=1)
  if len(wrong := np.flatnonzero(~is_prefix)):
    raise ValueError(f"input_mask[{wrong[0]}]: expected ones and then zeros, got {mask[wrong[0]].tolist()}")
  if len(wrong := np.flatnonzero(mask.sum(axis=1) < fewest)):
    raise ValueError(
      f"input_mask[{wrong[0]}]: expected {fewest} or more tokens, got {mask[wrong[0]].sum()}: "
      "there is none of which a vector could be; leave that row out"
    )


def _shape(array: np.ndarray) -> str:
  return str(list(array.shape))
