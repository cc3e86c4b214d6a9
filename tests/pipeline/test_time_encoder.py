import threading

import numpy as np
import pytest

from pipeline.time_encoder import time_encoder
from tests.fake_encoder import FakeEncoder, make_vocabulary
from transforms.encoder import Encoder

TEXTS = ["red sky"] * 30 + ["a red sky over the sea"] * 10
FAKE = FakeEncoder(make_vocabulary(TEXTS), 8)
TOKENS = FAKE.load_wordpiece().tokenise(TEXTS)
BATCHES = [np.arange(i, i + 5) for i in range(0, 40, 5)]


class Clock:
  """A second goes by with each thousandth token that is encoded, and with nothing else."""

  def __init__(self):
    self.seconds, self.callers, self.most_callers = 0.0, 0, 0
    self._lock = threading.Lock()

  def __call__(self):
    return self.seconds

  def encode(self, input_ids, input_mask):
    with self._lock:
      self.callers += 1
      self.most_callers = max(self.most_callers, self.callers)
      self.seconds += input_ids.size / 1000
    vectors = FAKE.encode(input_ids, input_mask)
    with self._lock:
      self.callers -= 1
    return vectors


def timed(threads=1, seconds=1e9, batches=BATCHES):
  clock = Clock()
  encoder = Encoder(FAKE.spec, FAKE.load_wordpiece(), clock.encode)
  return time_encoder(encoder, TOKENS, batches, threads, seconds, clock)


def test_all_batches_where_there_is_time():
  speed = timed()
  assert speed.batches == 8 and speed.seconds_per_token == pytest.approx(0.001)
  assert speed.vectors.shape == (40, 8) and np.isfinite(speed.vectors).all()


def test_the_time_is_kept_and_one_is_timed_whatever_it_is():
  assert timed(seconds=1e-9).batches == 1
  some = timed(seconds=0.05)
  assert 1 < some.batches < 8 and some.seconds_per_token == pytest.approx(0.001)


def test_several_callers_share_the_machine():
  speed = timed(threads=3)
  assert speed.batches == 8
  # Each saw the clock run for all of them, so a token took the machine no longer than it took a caller.
  assert 0 < speed.seconds_per_token <= 0.001 * 1.001


def test_nothing_to_encode():
  speed = timed(batches=[])
  assert (speed.batches, speed.seconds_per_token, speed.vectors.shape) == (0, 0.0, (0, 8))
