"""The lock of a dataset: one living owner at a time, and a dead one for no longer than is stated."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pipeline.lock import DEAD_AFTER_SECONDS, STARTING_SECONDS, DatasetLock, Owner
from transforms.errors import RunHeldError, StoreError, UsageError
from transforms.storage import Storage


class Clock:
  """Time as the test says, from the present on: files get their own times from the system."""

  def __init__(self, start):
    self.now = start

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return Clock(time.time())


@pytest.fixture
def lock(tmp_path, clock):
  return DatasetLock(Storage.at(str(tmp_path)), clock)


@pytest.fixture
def owner(clock):
  return Owner.here("embed", "r1", clock)


@pytest.fixture
def stranger(owner):
  return replace(owner, host="elsewhere", run_id="r2")


def test_a_lock_passes_from_one_owner_to_the_next(lock, owner, stranger):
  assert lock.holder() is None
  first = lock.acquire(owner)
  assert lock.holder() == (first, owner)
  lock.release(first)
  lock.release(first)
  assert lock.holder() is None
  second = lock.acquire(stranger)
  assert second == first + 1
  assert lock.holder() == (second, stranger)


def test_the_second_is_told_who_holds_it(lock, owner, stranger, tmp_path):
  lock.acquire(owner)
  with pytest.raises(RunHeldError) as error:
    lock.acquire(stranger)
  assert error.value.exit_code == 75
  assert str(tmp_path) in str(error.value)
  assert f"`sorbus embed` (process {os.getpid()} on {socket.gethostname()}, since 20" in str(error.value)


def test_silence_frees_it_after_the_stated_time_and_not_before(lock, owner, stranger, clock):
  number = lock.acquire(stranger)
  clock.now = lock.last_sign(number, stranger) + DEAD_AFTER_SECONDS - 1
  with pytest.raises(RunHeldError, match="last seen 299 s ago"):
    lock.acquire(owner)
  clock.now += 1
  assert lock.acquire(owner) == number + 1


def test_a_job_that_was_sent_off_has_time_to_start_its_machines(lock, owner, stranger, clock, tmp_path):
  detached = replace(stranger, pid=None)
  number = lock.acquire(detached)
  clock.now = lock.last_sign(number, detached) + STARTING_SECONDS - 1
  with pytest.raises(RunHeldError, match=r"\(a detached job on elsewhere, .* holds it, last seen 1799 s ago"):
    lock.acquire(owner)
  lock.storage.write("runs/r2/progress/worker.json", b"{}")
  begun = clock.now - 1799 + 900  # and then as for others
  os.utime(tmp_path / "runs/r2/progress/worker.json", (begun, begun))
  assert lock.dead_at(number, detached) == pytest.approx(begun + DEAD_AFTER_SECONDS)
  assert lock.acquire(owner) == number + 1


@pytest.mark.parametrize("sign", ["beat", "progress"])
def test_a_sign_of_life_keeps_it(lock, owner, stranger, clock, sign, tmp_path):
  number = lock.acquire(stranger)
  later = clock.now + DEAD_AFTER_SECONDS
  if sign == "beat":
    lock.beat(number)
    path = tmp_path / f"locks/{number:08d}.beat"
  else:
    lock.storage.write("runs/r2/progress/worker.json", b"{}")
    path = tmp_path / "runs/r2/progress/worker.json"
  os.utime(path, (later, later))
  clock.now = later + DEAD_AFTER_SECONDS - 1
  with pytest.raises(RunHeldError):
    lock.acquire(owner)
  clock.now += 1
  lock.acquire(owner)


@pytest.mark.parametrize("error", [StoreError("the disk is full"), UsageError("the credentials have expired")])
def test_a_sign_of_life_that_cannot_be_given_stops_nobody(lock, owner, monkeypatch, error):
  def fail(*_):
    raise error

  number = lock.acquire(owner)
  monkeypatch.setattr(Storage, "write", fail)
  lock.beat(number)


def test_another_runs_workers_are_no_sign_of_life(lock, owner, stranger, clock):
  number = lock.acquire(stranger)
  clock.now = lock.last_sign(number, stranger) + DEAD_AFTER_SECONDS
  lock.storage.write("runs/r3/progress/worker.json", b"{}")
  lock.acquire(owner)


def test_a_process_of_this_host_that_is_gone_frees_it_at_once(lock, owner):
  child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
  lock.acquire(replace(owner, pid=int(child.stdout)))
  lock.acquire(owner)


def test_a_job_on_a_cluster_goes_on_without_the_process_that_waited_for_it(lock, owner, clock):
  child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
  killed = replace(owner, pid=int(child.stdout), is_elsewhere=True)
  number = lock.acquire(killed)
  with pytest.raises(RunHeldError):
    lock.acquire(owner)
  clock.now = lock.last_sign(number, killed) + DEAD_AFTER_SECONDS
  assert lock.acquire(owner) == number + 1


def test_a_detached_job_outlives_the_process_that_submitted_it(lock, owner):
  lock.acquire(replace(owner, pid=None))
  with pytest.raises(RunHeldError, match="a detached job on"):
    lock.acquire(owner)


def test_of_many_who_try_at_once_one_gets_it(lock, owner):
  def attempt(i):
    try:
      return lock.acquire(replace(owner, run_id=str(i)))
    except RunHeldError:
      return None

  with ThreadPoolExecutor(16) as pool:
    numbers = [number for number in pool.map(attempt, range(64)) if number]
  assert numbers == [1]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_who_looked_before_others_took_it_does_not_get_it_too(lock, owner, stranger, monkeypatch, times):
  looked, names = [], Storage.names

  def names_of_before(storage, folder):
    found = names(storage, folder)
    if not looked:
      looked.append(folder)
      for number in range(1, times + 1):
        assert lock.acquire(stranger) == number
        if number < times:
          lock.release(number)
    return found

  monkeypatch.setattr(Storage, "names", names_of_before)
  with pytest.raises(RunHeldError):
    lock.acquire(owner)
  assert looked and lock.holder() == (times, stranger)


def test_it_is_given_back_when_the_work_fails(lock, owner):
  with pytest.raises(ZeroDivisionError), lock.held(owner):
    assert lock.holder() == (1, owner)
    raise ZeroDivisionError
  assert lock.holder() is None


def test_it_is_left_to_a_job_that_lives_on_unless_that_never_began(lock, owner):
  with pytest.raises(UsageError), lock.held(owner, leave=True):
    raise UsageError("no such cluster")
  assert lock.holder() is None
  with lock.held(owner, leave=True) as number:
    pass
  assert lock.holder() == (number, owner)
  lock.release(number)
  assert lock.holder() is None


def test_that_it_cannot_be_given_back_does_not_undo_the_work(lock, owner, clock, monkeypatch):
  def fail(*_):
    raise StoreError("the disk is full")

  with lock.held(owner):
    monkeypatch.setattr(Storage, "write", fail)
  monkeypatch.undo()
  clock.now += DEAD_AFTER_SECONDS + 1
  assert lock.acquire(owner) == 2


def test_waiting_gets_it_once_it_is_free(lock, owner, stranger, monkeypatch):
  number, said = lock.acquire(stranger), []
  monkeypatch.setattr("pipeline.lock.time.sleep", lambda _: lock.release(number))
  with lock.held(owner, wait=True, say=said.append):
    assert lock.holder() == (number + 1, owner)
  assert len(said) == 1
  assert said[0].startswith("waiting: ")


def test_a_lock_cut_short_is_nobodys(lock, owner, clock, tmp_path):
  lock.storage.write("locks/00000004.json", b'{"job": "em')
  with pytest.raises(RunHeldError):
    lock.acquire(owner)  # for as long as it may have been written this moment
  clock.now += DEAD_AFTER_SECONDS + 1
  assert lock.acquire(owner) == 5
  assert [path.name for path in (tmp_path / "locks").iterdir()] == ["00000005.json"]


def test_an_owner_of_our_number_from_before_our_time_is_gone(lock, owner):
  """As in containers, where each process is number 1 on a host of the same name."""
  lock.acquire(replace(owner, started=owner.started - 24 * 3600))
  assert lock.acquire(owner)
  with pytest.raises(RunHeldError):
    lock.acquire(owner)
