"""How fast an encoder is on this machine, on batches such as a run makes, as many callers at a time as a run has."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from transforms.batching import pad_batch
from transforms.encoder import Encoder
from transforms.spread_sample import visiting_order
from transforms.window_pool import Windows

# Raw vectors that are kept: enough to tell how many components hold a share of the variance.
_KEPT_VECTORS = 4096


@dataclass(frozen=True)
class Speed:
  """What some batches took.

  Attributes:
    seconds_per_token: of the machine, padding counted, while every thread has a batch.
    batches: how many were timed.
    vectors: float32 [N, W], raw ones of the first of them.
  """

  seconds_per_token: float
  batches: int
  vectors: np.ndarray


def time_encoder(
  encoder: Encoder,
  input_ids: np.ndarray,
  windows: Windows,
  batches: Sequence[np.ndarray],
  threads: int,
  seconds: float,
  clock: Callable[[], float] = time.perf_counter,
) -> Speed:
  """Encodes batches, evenly spread over short and long ones, until all are done or the time is over.

  Args:
    encoder: loaded with as many threads.
    input_ids: of the sampled texts.
    windows: of them.
    batches: windows int64 [B] of each, shortest first.
    threads: callers at a time.
    seconds: after which no further batch begins; one is timed for each thread at least.
    clock: in seconds.

  Raises:
    EncoderError: a batch cannot be computed.
  """
  if not batches:
    return Speed(0.0, 0, np.empty((0, encoder.spec.vector_size), np.float32))

  def encode(rows: np.ndarray) -> np.ndarray:
    return encoder.encode_and_predict(*pad_batch(input_ids, windows.offsets, rows))[0]

  encode(batches[len(batches) // 2])  # warms up
  order, lock = visiting_order(len(batches)), threading.Lock()
  deadline = clock() + seconds
  timed: list[tuple[float, int]] = []
  vectors: list[np.ndarray] = []

  def call() -> None:
    is_first = True
    while is_first or clock() < deadline:
      is_first = False
      with lock:
        chosen = next(order, None)
      if chosen is None:
        return
      rows, started = batches[chosen], clock()
      found = encode(rows)
      took = clock() - started
      with lock:
        timed.append((took, len(rows) * int(windows.lengths[rows].max())))
        if sum(map(len, vectors)) < _KEPT_VECTORS:
          vectors.append(found)

  with ThreadPoolExecutor(threads) as callers:
    for caller in [callers.submit(call) for _ in range(threads)]:
      caller.result()
  # A caller has the machine to itself for its share of the time.
  callers_at_a_time = min(threads, len(timed))
  spent, computed = (sum(column) for column in zip(*timed, strict=True))
  return Speed(spent / callers_at_a_time / computed, len(timed), np.concatenate(vectors))
