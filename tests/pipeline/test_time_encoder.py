import threading

import numpy as np
import pytest

from pipeline.time_encoder import time_encoder
from tests.fake_encoder import FakeEncoder, make_vocabulary
from transforms.encoder import Encoder
from transforms.window_pool import Windows

TEXTS = ["red sky"] * 30 + ["a red sky over the sea"] * 10
FAKE = FakeEncoder(make_vocabulary(TEXTS), 8)
TOKENS = FAKE.load_tokenizer().tokenise(TEXTS)
WINDOWS = Windows.find(TOKENS.input_ids, TOKENS.offsets, FAKE.load_tokenizer().before, FAKE.load_tokenizer().after)
BATCHES = [np.arange(i, i + 5) for i in range(0, 40, 5)]


class Clock:
  """A second goes by with each thousandth token that is encoded, and with nothing else.

  Of several callers all begin a batch before any goes on, and end it after all: each sees the others' time go by too.
  """

  def __init__(self, callers):
    self.seconds, self._is_warm, self._lock = 0.0, False, threading.Lock()
    self._all = threading.Barrier(callers, timeout=30)

  def __call__(self):
    return self.seconds

  def encode(self, input_ids, input_mask):
    if self._is_warm:
      self._all.wait()
    with self._lock:
      self.seconds += input_ids.size / 1000
    if self._is_warm:
      self._all.wait()
    self._is_warm = True
    return FAKE.encode(input_ids, input_mask)


def timed(threads=1, seconds=1e9, batches=BATCHES):
  clock = Clock(threads)
  encoder = Encoder(FAKE.spec, FAKE.load_tokenizer(), clock.encode)
  return time_encoder(encoder, TOKENS.input_ids, WINDOWS, batches, threads, seconds, clock)


def test_all_batches_where_there_is_time():
  speed = timed()
  assert speed.batches == 8 and speed.seconds_per_token == pytest.approx(0.001)
  assert speed.vectors.shape == (40, 8) and np.isfinite(speed.vectors).all()


def test_the_time_is_kept_and_one_is_timed_whatever_it_is():
  assert timed(seconds=1e-9).batches == 1
  some = timed(seconds=0.05)
  assert 1 < some.batches < 8 and some.seconds_per_token == pytest.approx(0.001)


def test_several_callers_share_the_machine():
  speed = timed(threads=4)
  assert speed.batches == 8 and speed.seconds_per_token == pytest.approx(0.001)


def test_nothing_to_encode():
  speed = timed(batches=[])
  assert (speed.batches, speed.seconds_per_token, speed.vectors.shape) == (0, 0.0, (0, 8))
