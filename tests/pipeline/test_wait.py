"""Following a run: what ends a wait, and with what; time passes as the test says."""

import datetime
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from pipeline.dataset import Dataset, to_json
from pipeline.lock import DEAD_AFTER_SECONDS, STARTING_SECONDS, DatasetLock, Owner
from pipeline.wait import PUBLISH_SECONDS, SAY_SECONDS, Follower, expected_work, running
from tests.manifests import manifest
from transforms.errors import RunDeadError, RunHeldError, UsageError

NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC)


class World:
  """A dataset in which a run was begun, a clock, and what happens when; a sleep lets the clock go on."""

  def __init__(self, folder):
    self.dataset = Dataset.open_or_create(str(folder), {"fingerprint": "ab", "tokenizer": {}})
    self.start = self.now = time.time()
    self.events, self.said = [], []
    self.lock = DatasetLock(self.dataset.storage, self.clock)
    self.write("plan.json", b'{"text_bytes": 70, "waves": [[0, 2], [2, 4]]}')

  def clock(self):
    return self.now

  def sleep(self, seconds):
    self.now += seconds
    while self.events and self.events[0][0] <= self.now - self.start:
      self.events.pop(0)[1]()

  def write(self, name, data):
    path = f"runs/r1/{name}"
    self.dataset.storage.write(path, data)
    os.utime(self.dataset.storage.path(path), (self.now, self.now))

  def finish(self, **changes):
    self.dataset.storage.write("runs/r1/manifest.json", to_json(manifest(**changes)))

  def publish(self, run_id="r1"):
    self.dataset.publish(run_id, 0, NOON)

  def follow(self, timeout=None):
    return Follower(self.dataset, "r1", timeout, self.said.append, self.clock, self.sleep).wait()

  def passed(self):
    return self.now - self.start


@pytest.fixture
def world(tmp_path):
  return World(tmp_path / "ds")


@pytest.fixture
def held(world):
  """The same, with the run's owner on another host."""
  world.number = world.lock.acquire(replace(Owner.here("embed", "r1", world.clock), host="elsewhere"))
  return world


def dead_process():
  child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
  return int(child.stdout)


HELD_BACK = {"verdicts": {"rejected": {"passed": False, "finding": "too many"}}}


@pytest.mark.parametrize(
  ("changes", "published", "status", "code"),
  [({}, "r1", "published", 0), ({}, "r0", "overtaken", 75), (HELD_BACK, None, "held back", 1)],
)
def test_it_ends_as_the_run_does(held, changes, published, status, code):
  def finish():
    held.finish(**changes)
    if published:
      held.publish(published)
    held.lock.release(held.number)

  held.events = [(100, finish)]
  outcome = held.follow()
  assert (outcome.status, outcome.exit_code, outcome.manifest["run_id"]) == (status, code, "r1")
  assert 100 <= held.passed() < 110


def test_a_run_that_is_finished_is_not_waited_for(world):
  world.finish()
  world.publish()
  assert world.follow().status == "published" and world.passed() == 0 and world.said == []


def test_how_far_it_is_is_said_once_a_minute(held):
  held.write("progress/w.json", b'{"rows_read": 1200, "texts_encoded": 300}')
  held.events = [(SAY_SECONDS * 2.5, lambda: held.finish(**HELD_BACK))]
  held.follow()
  assert held.said == ["waiting for run r1: 1,200 documents read, 300 texts encoded, 0 rows written"] * 3


def test_publishing_is_waited_for_as_long_as_its_job_lives(held):
  held.finish()
  held.events = [(PUBLISH_SECONDS * 3, held.publish)]
  assert held.follow().status == "published"


def test_a_job_that_ended_before_publishing_leaves_that_to_a_person(held):
  held.finish()
  held.lock.release(held.number)
  with pytest.raises(
    RunDeadError, match=rf"^run r1 finished.*`sorbus publish {held.dataset.storage.root} r1`$"
  ) as error:
    held.follow()
  assert error.value.exit_code == 1 and PUBLISH_SECONDS <= held.passed() < PUBLISH_SECONDS + 10


def test_publishing_by_a_job_that_is_seen_no_more_is_waited_for_a_little(world):
  world.finish()
  world.events = [(PUBLISH_SECONDS - 10, world.publish)]
  assert world.follow().status == "published"


def test_a_job_that_gave_the_lock_back_without_a_manifest_failed(held):
  held.events = [(50, lambda: held.lock.release(held.number))]
  with pytest.raises(
    RunDeadError, match=r"since \S+ \d\d:\d\d \w+ \(its job has ended without finishing it\): run `sorbus embed`"
  ):
    held.follow()
  assert held.passed() < 60


def test_a_job_that_finishes_while_it_is_looked_at_is_no_failure(held):
  """Manifest, publishing and release may all happen between two looks at the dataset."""
  held.lock.release(held.number)
  holder = DatasetLock.holder
  finish_first = [held.finish, held.publish]

  def finish_after(lock):
    found = holder(lock)
    while finish_first:
      finish_first.pop(0)()
    return found

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(DatasetLock, "holder", finish_after)
    assert held.follow().status == "published"


def test_a_process_that_finished_and_is_gone_while_it_is_looked_at_is_no_failure(world):
  world.lock.acquire(Owner.here("embed", "r1", world.clock))
  finish_first = [world.finish, world.publish]

  def is_gone(owner):
    while finish_first:
      finish_first.pop(0)()
    return True

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Owner, "is_known_dead", is_gone)
    assert world.follow().status == "published"


def test_a_process_that_is_gone_is_found_out_at_once(world):
  pid = dead_process()
  world.lock.acquire(replace(Owner.here("embed", "r1", world.clock), pid=pid))
  with pytest.raises(RunDeadError, match=rf"\(process {pid} on .* is gone\)"):
    world.follow()
  assert world.passed() == 0


def test_silence_is_death_after_the_stated_time_and_a_sign_of_life_is_not(held):
  held.events = [(200, lambda: held.write("progress/w.json", b"{}"))]
  with pytest.raises(RunDeadError, match=r"^run r1 shows no sign of life since .* \(that is 30[01] s ago\)"):
    held.follow()
  assert 200 + DEAD_AFTER_SECONDS <= held.passed() < 210 + DEAD_AFTER_SECONDS


def test_a_job_that_was_sent_off_has_time_to_start_its_machines(world):
  world.lock.acquire(replace(Owner.here("embed", "r1", world.clock), pid=None))
  with pytest.raises(RunDeadError, match=r"\(that is 180[0-9] s ago\)"):
    world.follow()
  assert STARTING_SECONDS <= world.passed() < 10 + STARTING_SECONDS


def test_another_job_that_took_the_lock_over_is_no_sign_of_life(held):
  held.lock.release(held.number)
  held.lock.acquire(replace(Owner.here("embed", "r2", held.clock), host="elsewhere"))
  with pytest.raises(RunDeadError, match="no sign of life"):
    held.follow()
  assert held.passed() >= DEAD_AFTER_SECONDS


def test_a_timeout_says_to_wait_again(held):
  with pytest.raises(RunHeldError, match=r"^run r1 is not finished after 120 s: it goes on, wait again$") as error:
    held.follow(timeout=120)
  assert error.value.exit_code == 75 and 120 <= held.passed() < 125


def test_a_run_that_there_is_not(world):
  with pytest.raises(UsageError, match="no run 'r9'; `sorbus show` lists"):
    Follower(world.dataset, "r9").wait()
  assert world.dataset.storage.names("locks") == []


def test_a_run_that_gc_has_removed_is_said_to_be(world):
  run_id = "20260101T020000Zabcdef"
  world.dataset.mark_removed(run_id, datetime.datetime.now(datetime.UTC))
  with pytest.raises(UsageError, match=f"run {run_id} was removed by `sorbus gc`"):
    Follower(world.dataset, run_id).wait()


def test_a_run_that_has_the_lock_but_no_folder_yet_is_waited_for(held):
  held.dataset.storage.remove("runs/r1/plan.json")
  held.events = [(10, lambda: held.finish(**HELD_BACK))]
  assert held.follow().status == "held back"


def test_the_run_that_is_made_now(world):
  with pytest.raises(UsageError, match=r"no run is made now \(no job holds it\); name one"):
    running(world.dataset)
  number = world.lock.acquire(Owner.here("embed", "r7"))
  assert running(world.dataset) == "r7"
  world.lock.release(number)
  world.lock.acquire(Owner.here("gc"))
  with pytest.raises(UsageError, match="`sorbus gc` holds it, which makes none"):
    running(world.dataset)


def test_what_is_to_be_expected_of_a_run(world):
  assert expected_work(world.dataset, "r1") == (70, 2)
  for plan in (b"{", b"[]", b'{"text_bytes": null, "waves": []}'):
    world.write("plan.json", plan)
    assert expected_work(world.dataset, "r1") == (0, 0)
  assert expected_work(world.dataset, "r9") == (0, 0)
