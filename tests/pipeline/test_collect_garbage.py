"""What gc removes and what it keeps, over nights made by hand: runs, raw files, what killed processes have left."""

import contextlib
import datetime
import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.collect_garbage import choose_runs, collect_garbage, plan_garbage
from pipeline.dataset import Dataset
from pipeline.lock import DEAD_AFTER_SECONDS
from pipeline.raw_garbage import is_newer
from tests.damage import flip
from tests.garbage import files, gc, lost_at, uncovered
from tests.made_nights import NOW, MadeNights, texts_of
from transforms.digests import DigestRange, bucket_of, digest_array
from transforms.errors import RunHeldError, StoreError, UsageError
from transforms.raw_store import run_of
from transforms.storage import Storage


@pytest.fixture
def nights(tmp_path):
  return MadeNights(tmp_path / "dataset")


# --- runs


def test_the_newest_runs_and_the_published_one_are_kept():
  ids = ["a", "b", "c", "d"]
  assert choose_runs(ids, [], "d", 2) == (["c", "d"], ["a", "b"])
  assert choose_runs(ids, [], "a", 2) == (["a", "c", "d"], ["b"])
  assert choose_runs(ids, [], None, 9) == (ids, [])
  with pytest.raises(ValueError, match="keep_runs is 0"):
    choose_runs(ids, [], None, 0)


def test_held_back_runs_leave_what_one_could_roll_back_to():
  ids = ["a", "b", "c", "d", "e", "f"]
  assert choose_runs(ids, ["d", "e", "f"], "c", 1) == (["c", "f"], ["a", "b", "d", "e"])
  assert choose_runs(ids, ["d", "e", "f"], "c", 2) == (["b", "c", "e", "f"], ["a", "d"])


def test_what_a_gate_has_held_back_is_counted_apart(nights):
  first, second, third = (nights.run(texts_of(range(4))) for _ in range(3))
  manifest = json.loads(nights.storage.read(f"runs/{third}/manifest.json"))
  manifest["verdicts"]["rejected"] = {"passed": False, "finding": "too many"}
  nights.storage.write(f"runs/{third}/manifest.json", json.dumps(manifest).encode())
  plan, _ = gc(nights, keep_runs=1)
  assert third == plan.published  # as a person had decided
  assert (plan.kept, plan.removed) == ((second, third), (first,))


def test_runs_that_are_removed_leave_their_entries_and_a_note(nights):
  first, second, third = (nights.run(texts_of(range(4))) for _ in range(3))
  before = files(nights)
  plan, _ = gc(nights, keep_runs=2)
  assert (plan.kept, plan.removed, plan.unfinished) == ((second, third), (first,), ())
  gone = {path for path in before if path.startswith(f"runs/{first}/")}
  after = files(nights)
  assert before.keys() - after.keys() == gone and len(gone) == 3
  assert {path: data for path, data in before.items() if path not in gone}.items() <= after.items()
  assert after.keys() - before.keys() == {f"removed/{first}.json"}
  assert json.loads(after[f"removed/{first}.json"]) == {
    "format_version": 1,
    "run_id": first,
    "time": "2026-03-01T00:00:00+00:00",
  }
  assert nights.dataset.run_ids() == [second, third]
  assert not (Path(nights.storage.root, "runs") / first).exists()


def test_a_run_that_is_half_removed_is_not_listed(nights):
  first, second = nights.run(texts_of(range(4))), nights.run(texts_of(range(4)))
  nights.dataset.mark_removed(first, NOW)
  assert nights.dataset.run_ids() == [first, second]
  nights.storage.remove(f"runs/{first}/manifest.json")
  assert nights.dataset.run_ids() == [second] and nights.dataset.run_folders() == [first, second]


def test_a_removed_run_is_told_as_such(nights):
  first, _ = nights.run(texts_of(range(4))), nights.run(texts_of(range(4)))
  gc(nights)
  told = rf"run {first} was removed by `sorbus gc`; `sorbus show` lists"
  with pytest.raises(UsageError, match=told):
    nights.dataset.manifest(first)
  with pytest.raises(UsageError, match=told):
    nights.dataset.publish(first, 2, NOW)
  with pytest.raises(UsageError, match="no run 'nothing'"):
    nights.dataset.manifest("nothing")


def test_an_older_run_that_is_published_is_kept(nights):
  first, *_, last = (nights.run(texts_of(range(n))) for n in (4, 5, 6))
  nights.dataset.publish(first, 3, NOW)
  plan, _ = gc(nights)
  assert plan.kept == (first, last) and plan.published == first
  assert nights.dataset.published().run_id == first
  assert not uncovered(nights, first) and not uncovered(nights, last)


def test_unfinished_runs_go_and_what_they_have_encoded_since_stays(nights):
  first = nights.run(texts_of(range(4)))
  killed = nights.run(texts_of(range(9)), finished=False)
  raw = nights.raw_names()
  plan, _ = gc(nights)
  assert (plan.kept, plan.unfinished) == ((first,), (killed,))
  assert nights.dataset.run_folders() == [first] and nights.raw_names() == raw
  again = nights.run(texts_of(range(9)))
  assert not any(run_of(name) == again for name in nights.raw_names())
  later = nights.run(texts_of(range(2)))
  gc(nights)  # that work is older than a finished run now
  assert nights.raw_rows() == 2 and not uncovered(nights, later)


def test_before_the_first_run_has_finished_all_raw_files_stay(nights):
  nights.run(texts_of(range(9)), finished=False)
  before = nights.raw_names()
  plan, done = gc(nights)
  assert plan.published is None and len(plan.unfinished) == 1
  assert nights.raw_names() == before and done.removed == 0


def test_nothing_to_remove_changes_nothing(nights):
  nights.run(texts_of(range(9)))
  before = files(nights)
  plan, done = gc(nights)
  assert files(nights) == before
  assert (plan.bytes_freed, done.bytes_freed, done.removed) == (0, 0, 0)


def test_planning_changes_nothing(nights):
  for n in (9, 3):
    nights.run(texts_of(range(n)))
  before = files(nights)
  assert plan_garbage(nights.dataset, 1, lambda: NOW).removed
  assert files(nights) == before


def test_what_it_says_to_free_is_what_is_gone(nights):
  for n in (40, 3):
    nights.run(texts_of(range(n)), bits=0)
  before = sum(map(len, files(nights).values()))
  plan, done = gc(nights)
  notes = sum(len(data) for path, data in files(nights).items() if path.startswith("removed/"))
  assert done.bytes_freed == before + notes - sum(map(len, files(nights).values()))
  assert plan.bytes_freed > 0 and abs(plan.bytes_freed - done.bytes_freed) < 3000  # a footer more or less


def test_a_run_published_while_it_was_to_go_stops_it(nights):
  first, second = nights.run(texts_of(range(4))), nights.run(texts_of(range(4)))
  plan = plan_garbage(nights.dataset, 1, lambda: NOW)
  nights.dataset.publish(first, 2, NOW)
  before = files(nights)
  with pytest.raises(RunHeldError, match=f"run {first} was published at the same moment"):
    collect_garbage(nights.dataset, plan, lambda: NOW)
  assert files(nights) == before
  assert gc(nights)[0].kept == (first, second)


def test_a_run_that_is_just_being_published_stops_it(nights, monkeypatch):
  first, second = nights.run(texts_of(range(4))), nights.run(texts_of(range(4)))
  was_removed, met = Dataset.was_removed, []

  def slow(self, run_id):  # the publisher has looked for a note, then its storage stalls
    found = was_removed(self, run_id)
    monkeypatch.undo()
    plan = plan_garbage(nights.dataset, 1, lambda: NOW)
    with pytest.raises(RunHeldError, match=f"run {first} was published at the same moment"):
      collect_garbage(nights.dataset, plan, lambda: NOW)
    met.append(run_id)
    return found

  monkeypatch.setattr(Dataset, "was_removed", slow)
  assert nights.dataset.publish(first, 2, NOW).run_id == first
  assert met == [first] and nights.dataset.published().run_id == first
  assert gc(nights)[0].kept == (first, second) and not nights.storage.names("publishing")


def test_who_was_killed_while_publishing_stops_it_for_as_long_as_a_dead_job(nights):
  first, second = nights.run(texts_of(range(4))), nights.run(texts_of(range(4)))
  nights.storage.write(f"publishing/{first}-0a0b0c0d.json", b"{}")
  written = nights.storage.modified(f"publishing/{first}-0a0b0c0d.json")

  def collect(seconds):
    now = datetime.datetime.fromtimestamp(written + seconds, datetime.UTC)
    plan = plan_garbage(nights.dataset, 1, lambda: now)
    collect_garbage(nights.dataset, plan, lambda: now)

  with pytest.raises(RunHeldError, match=f"run {first} was published"):
    collect(DEAD_AFTER_SECONDS - 1)
  collect(DEAD_AFTER_SECONDS + 1)
  assert nights.dataset.run_folders() == [second] and not nights.storage.names("publishing")


def test_a_note_about_the_published_run_is_taken_back(nights):
  first = nights.run(texts_of(range(4)))
  nights.dataset.mark_removed(first, NOW)  # by one that was killed before it looked what is published
  assert gc(nights)[0].kept == (first,)
  assert not nights.dataset.was_removed(first)


def test_a_zombie_that_finishes_a_removed_run_cannot_publish_it_nor_bring_it_back(nights):
  nights.run(texts_of(range(4)))
  killed = nights.run(texts_of(range(9)), finished=False)
  gc(nights)
  nights._finish(killed, np.unique(digest_array(texts_of(range(9)))), 1)
  with pytest.raises(UsageError, match="was removed by"):
    nights.dataset.publish(killed, 1, NOW)
  plan, _ = gc(nights)
  assert plan.removed == (killed,) and killed not in nights.dataset.run_folders()


def test_a_lock_that_is_lost_stops_it(nights):
  for n in (9, 3):
    nights.run(texts_of(range(n)))
  before = files(nights)
  plan = plan_garbage(nights.dataset, 1, lambda: NOW)
  with pytest.raises(RunHeldError):
    collect_garbage(nights.dataset, plan, lambda: NOW, check=lost_at(1))
  assert files(nights) == before
  with pytest.raises(RunHeldError):  # before the first removal of raw files
    collect_garbage(nights.dataset, plan, lambda: NOW, check=lost_at(4))
  assert {path for path in before if path.startswith("raw/")} <= files(nights).keys()


def test_half_written_files_go_once_nobody_can_be_writing_them(nights):
  run_id = nights.run(texts_of(range(4)))
  old = NOW.timestamp() - 301
  paths = [f"runs/{run_id}/vectors/.tmp-1", "published/.tmp-2", "runs/.probe-3", "raw/x/.tmp-4"]
  for path in [*paths, "runs/.tmp-new"]:
    nights.storage.write(path, b"half")
    os.utime(Path(nights.storage.root, path), (old, old) if path in paths else (NOW.timestamp(),) * 2)
  plan, _ = gc(nights)
  assert sorted(plan.hidden) == sorted(paths)
  assert [path for path in files(nights) if "/." in path] == ["runs/.tmp-new"]


# --- what cannot be judged


@pytest.mark.parametrize("change", [flip, Path.unlink])
def test_documents_that_cannot_be_read_stop_it_before_anything_is_removed(nights, change):
  nights.run(texts_of(range(40)))
  path = nights.dataset.manifest(nights.run(texts_of(range(30))))["files"]["documents"][0]["path"]
  change(nights.storage.path(path))
  before = files(nights)
  with pytest.raises(StoreError, match=rf"^{path} (was changed|is missing).*nothing was removed"):
    gc(nights)
  assert files(nights) == before


def test_a_manifest_that_cannot_be_read_stops_it(nights):
  kept = nights.run(texts_of(range(4)))
  nights.storage.write(f"runs/{kept}/manifest.json", b"{")
  with pytest.raises(UsageError, match=f"{kept}/manifest.json: not valid JSON"):
    gc(nights)
  newest = nights.run(texts_of(range(4)))
  with pytest.raises(UsageError, match=rf"^run {kept} is to be kept.* or delete runs/{kept} if .*: not valid JSON"):
    gc(nights, 2)
  assert gc(nights)[0].kept == (newest,)


# --- killed


class Killed(BaseException):
  """Not caught by anything on the way."""


def die_at(monkeypatch, n):
  """Lets the n-th call that changes a file raise before it does; counts the calls."""
  calls = []

  def dying(call):
    def method(self, *args, **kwargs):
      calls.append(call.__name__)
      if len(calls) == n:
        raise Killed
      return call(self, *args, **kwargs)

    return method

  for name in ("write", "create", "remove", "remove_folder"):
    monkeypatch.setattr(Storage, name, dying(getattr(Storage, name)))
  return calls


def test_killed_at_every_change_it_leaves_what_is_kept_whole_and_is_finished_by_the_next(tmp_path, monkeypatch):
  n, calls = 0, []
  while len(calls) >= n:
    n += 1
    nights = MadeNights(tmp_path / str(n))
    for number, bits in enumerate((0, 2, 1, 1)):
      nights.run(texts_of(range(8 * number, 40 + number)), bits)
    digests = np.unique(digest_array(texts_of(range(30, 40))))
    for bucket in (0, 1):
      mine = digests[bucket_of(digests, 1) == bucket]
      nights.encode(DigestRange(bucket, 1), "20250101T000000Z000000", mine)  # a copy that comes first
      nights.encode(DigestRange(bucket, 1), "20260101T000004Zffffff", mine)  # and one that comes later
    nights.run(texts_of(range(24, 44)), 1)
    nights.run(texts_of(range(90)), finished=False)
    kept, live = nights.dataset.run_folders()[3:5], texts_of(range(24, 44))
    before = nights.vectors(live)
    whole = {path: nights.storage.read(path) for run_id in kept for path in nights.storage.walk(f"runs/{run_id}")}
    with monkeypatch.context() as patch:
      calls = die_at(patch, n)
      with contextlib.suppress(Killed):
        gc(nights, keep_runs=2)
    assert nights.dataset.published().run_id == kept[-1]
    for run_id in kept:
      assert not uncovered(nights, run_id), n
    assert nights.vectors(live).tobytes() == before.tobytes(), n
    assert whole.items() <= files(nights).items()
    finished = [i for i in nights.dataset.run_ids() if nights.storage.exists(f"runs/{i}/manifest.json")]
    for run_id in finished:
      named = nights.dataset.manifest(run_id)["files"]["documents"]
      assert all(nights.storage.exists(file["path"]) for file in named), n
    gc(nights, keep_runs=2)
    assert nights.dataset.run_folders() == kept
    killed = sum(len(nights.store.digests(name)) for name in nights.raw_names() if is_newer(name, kept[-1]))
    assert nights.raw_rows() - killed <= 1.25 * 20 and killed > 0
    assert nights.vectors(live).tobytes() == before.tobytes(), n
  assert n > 15
