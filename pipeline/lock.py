"""One job at a time on a dataset: an advisory lock that shows signs of life, and that a dead owner does not keep.

It spares two jobs from doing the same work. What keeps a zombie from harm is not this lock but that no file is ever
overwritten and that publishing is exclusive; so a lock taken over by mistake costs time, never a dataset.

`locks/<n>.json` is created exclusively and never again; the highest number is the last owner, who is gone once
`locks/<n>.free` stands there too. No file is renamed or deleted to pass a lock on, so object stores will do.
"""

import contextlib
import datetime
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from pipeline.log_lines import local_time
from transforms.errors import RunHeldError, SorbusError
from transforms.storage import Storage

BEAT_SECONDS = 20.0
# Silence after which an owner counts as dead. A worker writes a sign of life once a second, every 15 seconds on an
# object store, and a driver every 20.
DEAD_AFTER_SECONDS = 300.0
# The same for a job that was sent to a cluster, until its first worker shows itself: machines have to be started first,
# and each fetches an image of gigabytes.
STARTING_SECONDS = 1800.0
_POLL_SECONDS = 2.0
_LOADED = time.time()
_NAME = re.compile(r"(\d{8})\.json")


@dataclass(frozen=True)
class Owner:
  """Who holds a dataset.

  Attributes:
    job: what it does, such as `embed`.
    run_id: the run it makes, whose workers' signs of life count for it; None for a job that makes none.
    host: where it was started.
    pid: of the process that has to live; None for a job that lives on without the process that submitted it.
    started: seconds since 1970.
    is_elsewhere: its job runs on a cluster, which goes on when the process is killed.
  """

  job: str
  run_id: str | None
  host: str
  pid: int | None
  started: float
  is_elsewhere: bool = False

  @classmethod
  def here(cls, job: str, run_id: str | None = None, clock: Callable[[], float] = time.time) -> "Owner":
    """Returns this process as an owner."""
    return cls(job, run_id, socket.gethostname(), os.getpid(), clock())

  def is_known_dead(self) -> bool:
    """Says whether the process is gone, and the job with it; of another host's, or a cluster's, nothing is known."""
    if self.pid is None or self.is_elsewhere or self.host != socket.gethostname():
      return False
    if self.pid == os.getpid():  # as in containers, where each has the number 1: was it this process?
      return self.started < _LOADED
    try:
      os.kill(self.pid, 0)
    except ProcessLookupError:
      return True
    except PermissionError:  # somebody else's, and alive
      return False
    return False


@dataclass(frozen=True)
class DatasetLock:
  """The lock of one dataset; `clock` gives seconds since 1970."""

  storage: Storage
  clock: Callable[[], float] = time.time

  def holder(self) -> tuple[int, Owner] | None:
    """Returns number and owner of the lock if somebody holds it, alive or not."""
    return self._holder(self._last())

  def _holder(self, number: int) -> tuple[int, Owner] | None:
    if not number or self.storage.exists(f"locks/{number:08d}.free"):
      return None
    try:
      return number, Owner(**json.loads(self.storage.read(f"locks/{number:08d}.json")))
    except (ValueError, TypeError):  # cut short by a crash on a file system without hard links: nobody's
      return number, Owner("unknown", None, "unknown", None, 0.0)
    except FileNotFoundError:  # tidied away by the next owner
      return self.holder()

  def last_sign(self, number: int, owner: Owner) -> float:
    """Returns when the owner, or a worker of its run, last showed that it lives, by the store's clock.

    An object store's clock may differ from ours, by 15 minutes before it refuses us: then the lock is passed on by so
    much too early or too late, which costs time and no more.
    """
    signs = [f"locks/{number:08d}.json", f"locks/{number:08d}.beat", *self._worker_signs(owner)]
    return max([owner.started, *(t for sign in signs if (t := self.storage.modified(sign)) is not None)])

  def dead_at(self, number: int, owner: Owner) -> float:
    """Returns when the owner counts as dead if nothing more is heard of it, by the store's clock."""
    is_starting = bool(owner.run_id) and owner.pid is None and not self._worker_signs(owner)
    return self.last_sign(number, owner) + (STARTING_SECONDS if is_starting else DEAD_AFTER_SECONDS)

  def _worker_signs(self, owner: Owner) -> list[str]:
    folder = f"runs/{owner.run_id}/progress"
    return [f"{folder}/{name}" for name in self.storage.names(folder)] if owner.run_id else []

  def acquire(self, owner: Owner) -> int:
    """Takes the lock and returns its number.

    Raises:
      RunHeldError: somebody who lives holds it, or was faster.
    """
    last = self._last()  # looked at once: the number to take has to follow the one that was judged
    held = self._holder(last)
    if held and not held[1].is_known_dead():
      now = self.clock()
      if now < self.dead_at(*held):
        silence = now - self.last_sign(*held)
        raise RunHeldError(f"{self.storage.root}: {_describe(held[1])} holds it, last seen {silence:.0f} s ago; {_HOW}")
    number = last + 1
    taken = f"{self.storage.root}: another job has just taken it; {_HOW}"
    try:
      self.storage.create(f"locks/{number:08d}.json", json.dumps(asdict(owner)).encode())
    except FileExistsError as error:
      raise RunHeldError(taken) from error
    if self._last() > number:  # others took and freed this number meanwhile, and the next of them tidied it away
      raise RunHeldError(taken)
    self._tidy(number)
    return number

  def check(self, owner: Owner) -> None:
    """Raises RunHeldError if the lock has been taken over from `owner`, who then may remove nothing more."""
    held = self.holder()
    if held is None or held[1] != owner:
      raise RunHeldError(f"{self.storage.root}: another job has taken it over; try again later, or with --wait")

  def beat(self, number: int) -> None:
    """Shows that the owner lives; that it could not be written is no reason to stop."""
    with contextlib.suppress(SorbusError):
      self.storage.write(f"locks/{number:08d}.beat", b"")

  def release(self, number: int) -> None:
    """Gives the lock back; safe to repeat."""
    self.storage.write(f"locks/{number:08d}.free", b"")

  @contextlib.contextmanager
  def held(
    self, owner: Owner, *, wait: bool = False, say: Callable[[str], None] = lambda _: None, leave: bool = False
  ) -> Iterator[int]:
    """Holds the lock while the block runs, with a sign of life every 20 seconds, and gives its number.

    Args:
      owner: who.
      wait: rather than to be refused.
      say: is told, once, whom it waits for.
      leave: it held when the block ends well, to a job that lives on and gives it back itself.

    Raises:
      RunHeldError: somebody else holds it, and `wait` is false.
    """
    number = self._acquire_waiting(owner, say) if wait else self.acquire(owner)
    stop = threading.Event()
    thread = threading.Thread(target=self._beat_until, args=(number, stop), daemon=True)
    thread.start()
    is_left = False
    try:
      yield number
      is_left = leave
    finally:
      stop.set()
      thread.join()
      if not is_left:
        with contextlib.suppress(SorbusError):  # what is done is done; the silence frees it
          self.release(number)

  def _acquire_waiting(self, owner: Owner, say: Callable[[str], None]) -> int:
    told = False
    while True:
      try:
        return self.acquire(owner)
      except RunHeldError as error:
        if not told:
          say(f"waiting: {error}")
        told = True
        time.sleep(_POLL_SECONDS)

  def _beat_until(self, number: int, stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
      self.beat(number)

  def _last(self) -> int:
    return max((int(match[1]) for match in map(_NAME.fullmatch, self.storage.names("locks")) if match), default=0)

  def _tidy(self, number: int) -> None:
    """Removes what older locks have left; the newest alone says who holds it."""
    for name in self.storage.names("locks"):
      if name[:8].isdigit() and int(name[:8]) < number:
        self.storage.remove(f"locks/{name}")


_HOW = f"wait for it with --wait, or try later (a silence of {DEAD_AFTER_SECONDS:.0f} s frees it)"


def _describe(owner: Owner) -> str:
  since = local_time(datetime.datetime.fromtimestamp(owner.started, datetime.UTC))
  process = "a detached job" if owner.pid is None else f"process {owner.pid}"
  return f"`sorbus {owner.job}` ({process} on {owner.host}, since {since})"
