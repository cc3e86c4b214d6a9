"""A process to be killed: `embed` with a fake encoder that is slow and flushed often.

`python -m tests.integration.slow_embed ENCODE_SECONDS ARGUMENTS…`, the arguments those of `sorbus`; --encoder is not
read. ENCODE_SECONDS is what a batch takes.
"""

import functools
import sys
import time

import numpy as np

import pipeline.embed
from pipeline.command_line import main
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import made_up_texts

TEXTS = made_up_texts(600)


class SlowEncoder(FakeEncoder):
  """A fake encoder that takes its time."""

  encode_seconds = 0.0

  def encode(self, input_ids: np.ndarray, input_mask: np.ndarray) -> np.ndarray:
    """(int32 [B, T], int32 [B, T]) → float32 [B, H]."""
    time.sleep(self.encode_seconds)
    return super().encode(input_ids, input_mask)


@functools.lru_cache
def slow_encoder(encode_seconds: float) -> SlowEncoder:
  """The encoder of all processes that work on one dataset: it is the same at every speed."""
  encoder = SlowEncoder(make_vocabulary(TEXTS), 32)
  encoder.encode_seconds = encode_seconds
  return encoder


def run(encode_seconds: float, argv: list[str]) -> int:
  """Runs the real command line, with this encoder instead of one from a folder; nobody reads a report of it."""
  encoder, embed = slow_encoder(encode_seconds), pipeline.embed.embed
  pipeline.embed.embed = lambda options, **more: embed(options, encoder.loaders(), encoder.spec, **more)
  return main([*argv[:1], "--no-report", *argv[1:]])


if __name__ == "__main__":
  from tests.integration import slow_embed  # not __main__: workers unpickle the encoder by its module's name

  sys.exit(slow_embed.run(float(sys.argv[1]), sys.argv[2:]))
