"""Follow a run that another process makes, until it is finished or nobody is left to finish it. Nothing is written."""

import datetime
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.dataset import Dataset
from pipeline.lock import DEAD_AFTER_SECONDS, DatasetLock, Owner
from pipeline.log_lines import local_time
from pipeline.outcome import Outcome, find_outcome
from transforms.errors import RunDeadError, RunHeldError, SorbusError, UsageError
from transforms.progress_file import read_progress
from transforms.storage import Storage

POLL_SECONDS = 2.0
# Publishing follows the manifest within a moment; an object store, or a driver that is held up, may take longer.
PUBLISH_SECONDS = 60.0
SAY_SECONDS = 60.0


@dataclass(frozen=True)
class Follower:
  """Waits for one run.

  Attributes:
    dataset: an open dataset.
    run_id: the run.
    timeout: seconds to wait at most; None for as long as it lives.
    say: is told, once a minute, how far the run is.
    clock: seconds since 1970, as those of files are.
    sleep: lets so many seconds pass.
  """

  dataset: Dataset
  run_id: str
  timeout: float | None = None
  say: Callable[[str], None] = lambda _: None
  clock: Callable[[], float] = time.time
  sleep: Callable[[float], object] = time.sleep
  _lock: DatasetLock = field(init=False)

  def __post_init__(self) -> None:
    object.__setattr__(self, "_lock", DatasetLock(self.dataset.storage, self.clock))

  @property
  def storage(self) -> Storage:
    """The dataset's storage."""
    return self.dataset.storage

  @property
  def folder(self) -> str:
    """The run's folder, relative to the dataset."""
    return f"runs/{self.run_id}"

  def wait(self) -> Outcome:
    """Returns what came of the run, once it is finished.

    Raises:
      UsageError: there is no such run, or its manifest is damaged.
      RunDeadError: it will not finish, or was not published though every verdict passed.
      RunHeldError: it is not finished after `timeout`.
    """
    begun = self.clock()
    said = finished = None
    while True:
      outcome, finished = self._look(finished)
      if outcome is not None:
        return outcome
      now = self.clock()
      if self.timeout is not None and now - begun >= self.timeout:
        raise RunHeldError(f"run {self.run_id} is not finished after {self.timeout:.0f} s: it goes on, wait again")
      if said is None or now - said >= SAY_SECONDS:
        said = now
        self.say(self._describe())
      self.sleep(POLL_SECONDS)

  def _look(self, finished: float | None) -> tuple[Outcome | None, float | None]:
    """Returns what came of the run if that is decided, and since when its manifest has been there."""
    # Life before the manifest: who frees the lock, or is gone, has written it or never will.
    holder = self._lock.holder()
    death = self._find_death(holder)
    if not self.storage.exists(f"{self.folder}/manifest.json"):
      if death is not None:
        raise death
      return None, None
    outcome = find_outcome(self.dataset, self.dataset.manifest(self.run_id))
    finished = self.clock() if finished is None else finished
    if outcome is None and not self._holds(holder) and self.clock() - finished >= PUBLISH_SECONDS:
      raise RunDeadError(
        f"run {self.run_id} finished and passed every gate, but its job ended before it was published: "
        f"`sorbus publish {self.dataset.storage.root} {self.run_id}`"
      )
    return outcome, finished

  def _holds(self, holder: tuple[int, Owner] | None) -> bool:
    """Says whether the run's own job has the lock, and lives as far as is known."""
    if holder is None or holder[1].run_id != self.run_id or holder[1].is_known_dead():
      return False
    return self.clock() < self._lock.dead_at(*holder)

  def _find_death(self, holder: tuple[int, Owner] | None) -> SorbusError | None:
    """Returns what to raise of a run that has no manifest, where nobody is left to finish it, or there is none."""
    ours = holder if holder and holder[1].run_id == self.run_id else None
    sign = self._last_sign(ours)
    if sign is None:
      return self.dataset.no_such_run(self.run_id)
    why = None
    if holder is None:
      why = "its job has ended without finishing it"
    elif ours and ours[1].is_known_dead():
      why = f"process {ours[1].pid} on {ours[1].host} is gone"
    elif self.clock() >= (self._lock.dead_at(*ours) if ours else sign + DEAD_AFTER_SECONDS):
      why = f"that is {self.clock() - sign:.0f} s ago"
    if why is None:
      return None
    return RunDeadError(
      f"run {self.run_id} shows no sign of life since {_time(sign)} ({why}): run `sorbus embed` again; what was "
      "encoded is kept"
    )

  def _last_sign(self, held: tuple[int, Owner] | None) -> float | None:
    """Returns when the run last showed that it lives; None for a run that there is not."""
    storage, folder = self.storage, self.folder
    paths = [f"{folder}/plan.json", *(f"{folder}/progress/{name}" for name in storage.names(f"{folder}/progress"))]
    signs = [t for path in paths if (t := storage.modified(path)) is not None]
    if held:
      signs.append(self._lock.last_sign(*held))
    return max(signs, default=None)

  def _describe(self) -> str:
    counts = read_progress(self.storage, self.folder)
    return (
      f"waiting for run {self.run_id}: {counts['rows_read']:,} documents read, {counts['texts_encoded']:,} texts "
      f"encoded, {counts['rows_written']:,} rows written"
    )


def expected_work(dataset: Dataset, run_id: str) -> tuple[int, int]:
  """Returns bytes of text and number of waves of a run, for its progress line; zeros where no plan tells."""
  try:
    plan = json.loads(dataset.storage.read(f"runs/{run_id}/plan.json"))
    return int(plan["text_bytes"]), len(plan["waves"])
  except (OSError, ValueError, LookupError, TypeError):
    return 0, 0


def running(dataset: Dataset) -> str:
  """Returns the id of the run that is made now; raises UsageError if there is none."""
  holder = DatasetLock(dataset.storage).holder()
  if holder is None or holder[1].run_id is None:
    doing = f"`sorbus {holder[1].job}` holds it, which makes none" if holder else "no job holds it"
    raise UsageError(f"{dataset.storage.root}: no run is made now ({doing}); name one, `sorbus show` lists them")
  return holder[1].run_id


def _time(seconds: float) -> str:
  return local_time(datetime.datetime.fromtimestamp(seconds, datetime.UTC))
