import gc
import weakref

import pytest

from pipeline.memory import set_aside


class Encoder:
  """One that holds on to itself, as a tf.Graph does."""

  def __init__(self):
    self.itself = self


def test_what_is_set_aside_is_the_collectors_again_after_the_run_also_one_that_failed():
  encoder = Encoder()
  kept = weakref.ref(encoder)
  with pytest.raises(OSError, match="disk"), set_aside():
    assert gc.get_freeze_count()
    del encoder
    gc.collect()
    assert kept() is not None
    raise OSError("disk")
  gc.collect()
  assert kept() is None and not gc.get_freeze_count()
