"""A damaged store repairs itself: what its damaged files held is encoded anew, and the user is told.

What is known is found out by a glance, so a wave may learn too late that a text it did not tokenise is nowhere whole.
Then it runs again, with what is known read from files in full.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np

from transforms.digests import ALL_DIGESTS
from transforms.errors import KnownTextsLostError
from transforms.known_texts import KnownTexts, find_known, write_known
from transforms.raw_store import RawStore
from transforms.read_documents import Wave
from transforms.run_plan import RunPlan

# Each attempt reads the store in full. One that still loses files minutes later is on a disk that a person should see.
MAX_ATTEMPTS = 4
_T = TypeVar("_T")


def repaired(run: RunPlan, wave: Wave, encode: Callable[[Wave], _T], say: Callable[[str], None]) -> _T:
  """Returns what `encode` makes of a wave that names its known texts; again, with fewer, if some of them got lost.

  Memory holds 16 bytes for each text of the wave that the store has, and while they are looked for 48.

  Raises:
    KnownTextsLostError: nothing has come to light since that explains the loss, or it goes on and on.
  """
  known, marked = find_known(run.store, _buckets(wave), run.bits, whole=False), run.store.damaged(ALL_DIGESTS)
  for attempt in range(1, MAX_ATTEMPTS + 1):
    try:
      return encode(_with_known(run, wave, known))
    except KnownTextsLostError:
      before, known = known, find_known(run.store, _buckets(wave), run.bits, whole=True)
      marked_before, marked = marked, run.store.damaged(ALL_DIGESTS)
      n_lost = np.count_nonzero(~KnownTexts(known).holds(before))
      if attempt == MAX_ATTEMPTS or not (n_lost or set(marked) - set(marked_before)):
        raise
    say(
      f"repair: {n_lost:,} texts that were known are in no whole raw file (damaged or gone); wave {wave.number} starts "
      "again and encodes them"
    )
  raise AssertionError("the last attempt returns or raises")


def _buckets(wave: Wave) -> range:
  return range(wave.first, wave.stop)


def _with_known(run: RunPlan, wave: Wave, known: np.ndarray) -> Wave:
  """Writes what is known, and returns the wave that names the file."""
  return replace(wave, known=write_known(run.storage, f"{run.folder}/known", f"wave-{wave.number:03d}", known))


@contextmanager
def damage_told(store: RawStore, say: Callable[[str], None]) -> Iterator[None]:
  """Says, when the block ends, which raw files were found damaged in it."""
  before = set(store.damaged(ALL_DIGESTS))
  try:
    yield
  finally:
    if found := [name for name in store.damaged(ALL_DIGESTS) if name not in before]:
      more = f" and {len(found) - 3} more" if len(found) > 3 else ""
      say(
        f"repair: damaged or gone in {store.folder}: {', '.join(found[:3])}{more}; no run counts on it any more, what "
        "it held is encoded anew"
      )
