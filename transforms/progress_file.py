"""How far a worker is, in a small file of its own beside the run: the same on every engine, and its heartbeat.

Only for people: a bundle that runs twice counts twice here. The manifest is made from records instead, and a count
that could not be written is no reason to stop.
"""

import contextlib
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable

from transforms.errors import StoreError
from transforms.storage import Storage

_workers: dict[tuple[str, str], "ProgressFile"] = {}
_workers_lock = threading.Lock()


class ProgressFile:
  """Counts of one worker process, in `<run folder>/progress/<its own name>.json`.

  Written at most once a second, and less often on an object store.
  """

  def __init__(self, storage: Storage, run_folder: str, clock: Callable[[], float] = time.monotonic):
    self._storage = storage
    self._path = f"{run_folder}/progress/{uuid.uuid4().hex}.json"
    self._clock = clock
    self._lock = threading.Lock()
    self._counts: Counter[str] = Counter()
    self._interval = storage.rewrite_seconds
    self._written = -self._interval

  @classmethod
  def of_worker(cls, storage: Storage, run_folder: str) -> "ProgressFile":
    """Returns the one file that all threads of this process share."""
    with _workers_lock:
      return _workers.setdefault((storage.root, run_folder), cls(storage, run_folder))

  def add(self, **counts: int) -> None:
    """Adds to named counts, such as `documents_read=1024`; with none it is a sign of life alone."""
    with self._lock:
      self._counts.update(counts)
      if self._clock() - self._written < self._interval:
        return
      self._written = self._clock()
      with contextlib.suppress(StoreError):
        self._storage.write(self._path, json.dumps(self._counts).encode())


def read_progress(storage: Storage, run_folder: str) -> Counter[str]:
  """Returns the counts of all workers of a run, summed."""
  total: Counter[str] = Counter()
  for name in storage.names(f"{run_folder}/progress"):
    try:
      total.update(json.loads(storage.read(f"{run_folder}/progress/{name}")))
    except FileNotFoundError:  # tidied away between the listing and the reading
      continue
  return total
