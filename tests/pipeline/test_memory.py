import gc
import weakref

from pipeline.memory import set_aside


class Encoder:
  """One that holds on to itself, as a tf.Graph does."""

  def __init__(self):
    self.itself = self


def test_what_was_set_aside_for_one_run_is_freed_by_the_next_in_the_same_process():
  encoder = Encoder()
  kept = weakref.ref(encoder)
  try:
    set_aside()
    assert gc.get_freeze_count()
    del encoder
    set_aside()
    assert kept() is None
  finally:
    gc.unfreeze()
