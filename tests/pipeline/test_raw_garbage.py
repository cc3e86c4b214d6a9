"""Which raw files gc removes and rewrites, over nights made by hand, and that texts which stay keep their vectors."""

import errno
from pathlib import Path

import numpy as np
import pytest

from pipeline.collect_garbage import collect_garbage, plan_garbage
from tests.damage import flip
from tests.garbage import files, gc, lost_at, uncovered
from tests.made_nights import NOW, H, MadeNights, raw_table, texts_of
from transforms import raw_waste
from transforms.digests import DigestRange, digest_array
from transforms.errors import RunHeldError, StoreError
from transforms.raw_store import run_of
from transforms.storage import Storage


@pytest.fixture
def nights(tmp_path):
  return MadeNights(tmp_path / "dataset")


def test_raw_rows_of_no_kept_run_go_and_the_rest_stays_to_the_bit(nights):
  nights.run(texts_of(range(40)))
  last = nights.run(texts_of(range(20, 45)))
  before = nights.vectors(texts_of(range(20, 45)))
  _, done = gc(nights)
  assert nights.raw_rows() == 25 and done.rows_dropped == 20
  assert nights.vectors(texts_of(range(20, 45))).tobytes() == before.tobytes()
  assert not uncovered(nights, last)
  assert nights.run(texts_of(range(20, 45))) not in {run_of(name) for name in nights.raw_names()}


def test_a_second_gc_finds_nothing(nights):
  for n in (40, 9, 30):
    nights.run(texts_of(range(n)))
  gc(nights)
  before = files(nights)
  gc(nights)
  assert files(nights) == before


def test_fewer_kept_runs_free_more_at_once(nights):
  for first, stop in ((0, 40), (30, 60), (38, 50)):
    nights.run(texts_of(range(first, stop)), bits=0)
  gc(nights, keep_runs=2)
  assert nights.raw_rows() == 30
  gc(nights, keep_runs=1)  # of what the last one has written, too
  assert nights.raw_rows() == 12


@pytest.mark.parametrize("widths", [(0, 3), (3, 0), (2, 1, 3), (4, 4)])
def test_coarser_and_finer_files_become_files_of_the_published_ranges(nights, widths):
  for number, bits in enumerate(widths):
    nights.run(texts_of(range(10 * number, 60)), bits=bits)
  live = texts_of(range(10 * (len(widths) - 1), 60))
  before = nights.vectors(live)
  gc(nights)
  names = [name.partition("-")[0] for name in nights.raw_names()]
  assert {len(name) if name != "all" else 0 for name in names} <= set(widths)
  assert nights.raw_rows() <= 1.25 * len(live)
  assert nights.vectors(live).tobytes() == before.tobytes()


def test_a_coarse_file_of_coarse_runs_is_cut_into_ranges(nights):
  for first, bits in ((0, 0), (20, 0), (25, 3)):
    nights.run(texts_of(range(first, 60)), bits)
  before = nights.vectors(texts_of(range(20, 60)))
  gc(nights, keep_runs=2)
  assert nights.raw_rows() == 40 and {len(name.partition("-")[0]) for name in nights.raw_names()} == {3}
  assert nights.vectors(texts_of(range(20, 60))).tobytes() == before.tobytes()


def test_small_files_of_a_range_are_merged(nights):
  for n in range(10, 20):
    nights.run(texts_of(range(n)), bits=0)
  before = nights.vectors(texts_of(range(19)))
  assert len(nights.raw_names()) == 10
  _, done = gc(nights, keep_runs=99)
  assert len(nights.raw_names()) == 1 and (done.removed, done.written, done.rows_dropped) == (10, 1, 0)
  assert nights.vectors(texts_of(range(19))).tobytes() == before.tobytes()


@pytest.mark.parametrize(
  "order", [("20260101T000000Za", "20260101T000000Zb"), ("20260101T000000Zb", "20260101T000000Za")]
)
def test_of_a_text_in_two_files_the_copy_that_readers_took_stays(nights, order):
  digests = np.unique(digest_array(texts_of(range(20))))
  for run_id in order:
    nights.encode(DigestRange(0, 0), run_id, digests)
  nights.run(texts_of(range(20)), bits=2)
  before = nights.vectors(texts_of(range(20)))
  gc(nights)
  assert nights.raw_rows() == 20
  assert nights.vectors(texts_of(range(20))).tobytes() == before.tobytes()


def test_what_shares_a_text_with_a_killed_runs_file_waits(nights):
  digests = np.unique(digest_array(texts_of(range(20))))
  first = nights.run(texts_of(range(20)), bits=0)
  nights.encode(DigestRange(0, 0), "20270101T000000Z0a1b2c", digests)
  before = nights.raw_names()
  gc(nights)
  assert nights.raw_names() == before
  assert not uncovered(nights, first)


def test_the_raw_files_of_an_encoder_without_a_run_go_whole(nights, tmp_path):
  other = MadeNights(tmp_path / "other", "cd" * 32)
  other.run(texts_of(range(9)))
  for path in other.storage.walk("raw"):
    nights.storage.write(path, other.storage.read(path))
  nights.storage.write(f"{other.store.folder}/notes.txt", b"")
  first = nights.run(texts_of(range(9)), finished=False)
  plan, _ = gc(nights)
  assert not plan.encoders  # all are newer than the newest finished run: there is none
  assert nights.run(texts_of(range(9))) > first
  plan = plan_garbage(nights.dataset, 1, lambda: NOW)
  with pytest.raises(RunHeldError):
    collect_garbage(nights.dataset, plan, lambda: NOW, check=lost_at(2 + len(plan.unfinished)))
  assert other.store.folder in nights.storage.walk("raw")[-1].rpartition("/")[0]
  before = {path: data for path, data in files(nights).items() if path.startswith(other.store.folder)}
  plan, done = gc(nights)
  assert plan.encoders == {"cd" * 32: done.bytes_freed} == {"cd" * 32: sum(map(len, before.values()))}
  assert nights.storage.names("raw") == [nights.store.fingerprint]
  assert done.removed == 3


def test_files_marked_as_damaged_go_with_their_marks(nights):
  last = nights.run(texts_of(range(20)))
  name = nights.raw_names()[0]
  lone = f"{nights.store.folder}/0-gone-0123456789abcdef.parquet.damaged"
  nights.storage.write(f"{nights.store.folder}/{name}.damaged", b"")
  nights.storage.write(lone, b"")
  held = nights.store.digests(name)
  nights.encode(DigestRange(0, 1), "20260101T000000Zffffff", held)  # what a run does that finds a damaged file
  assert not uncovered(nights, last)
  before = sum(map(len, files(nights).values()))
  plan, done = gc(nights)
  assert (done.removed, done.bytes_freed) == (2, before - sum(map(len, files(nights).values())))
  assert not plan.raw[0].rewrite  # it shares no text with a file that is as good as gone
  assert plan.raw[0].marked == (name, lone.rpartition("/")[2].removesuffix(".damaged"))
  assert not [n for n in nights.storage.names(nights.store.folder) if n.endswith(".damaged") or n == name]
  assert not uncovered(nights, last)


@pytest.mark.parametrize("at", ["middle", "end"])
def test_a_damaged_file_is_left_alone_and_told(nights, at):
  nights.run(texts_of(range(40)), bits=0)
  nights.run(texts_of(range(10, 20)), bits=0)
  (name,) = nights.raw_names()
  path = f"{nights.store.folder}/{name}"
  if at == "middle":
    flip(nights.storage.path(path))
  else:
    Path(nights.storage.root, path).write_bytes(nights.storage.read(path)[:-1])  # not even its footer can be read
  before = files(nights)[path]
  _, done = gc(nights)
  assert list(done.damaged) == [name] and "damaged" in done.damaged[name]
  assert files(nights)[path] == before


def test_one_file_of_another_width_does_not_make_the_others_damaged(nights):
  nights.run(texts_of(range(20)), bits=1)
  digests = np.unique(digest_array(texts_of(range(20))))
  nights.encode(DigestRange(0, 0), "20250101T000000Z000000", digests)  # shares texts with all, so all are rewritten
  mine = DigestRange(0, 1).within(digests)
  wide = raw_table(mine, np.ones((len(mine), H + 1), np.float32))
  name = nights.store.write(DigestRange(0, 1), "20250101T000000Z000000", wide)  # the first by name
  _, done = gc(nights)
  assert list(done.damaged) == [name] == nights.store.damaged(DigestRange(0, 0))
  assert nights.raw_rows() == 20


@pytest.mark.parametrize("method", ["open", "read"])
def test_a_file_system_that_fails_stops_it_for_a_file_may_be_whole(nights, monkeypatch, method):
  for first in (0, 30):
    nights.run(texts_of(range(first, first + 40)), bits=0)
  before, call = files(nights), getattr(Storage, method)

  def failing(storage, path):
    if path.startswith("raw/"):
      raise OSError(errno.EIO, "Input/output error")
    return call(storage, path)

  with monkeypatch.context() as patch:
    patch.setattr(Storage, method, failing)
    with pytest.raises((StoreError, OSError), match="Input/output error"):
      gc(nights)
  assert {path for path in before if path.startswith("raw/")} <= files(nights).keys()


def test_a_file_that_vanishes_is_told(nights, monkeypatch):
  nights.run(texts_of(range(20)), bits=0)
  (name,) = nights.raw_names()

  def vanished(storage, path):
    raise FileNotFoundError(errno.ENOENT, "No such file or directory")

  monkeypatch.setattr(Storage, "open", vanished)
  assert list(plan_garbage(nights.dataset, 1, lambda: NOW).raw[0].damaged) == [name]


def test_thirty_nights_stay_within_the_bound(nights):
  generator, live, fresh = np.random.default_rng(3), list(range(200)), 200
  kept, sizes = [], []
  for night in range(30):
    if night in (11, 19):  # killed, and run again
      nights.run(texts_of(range(fresh, fresh + 7)), 2, finished=False)
    for at in generator.choice(200, 20, replace=False):
      live[at], fresh = fresh, fresh + 1
    before = nights.vectors(kept[-1]) if kept else None
    kept = [*kept, texts_of(live)][-3:]
    run_id = nights.run(kept[-1], bits=2)
    plan, _ = gc(nights, keep_runs=3)
    distinct = len(set().union(*kept))
    sizes.append(nights.raw_rows() / distinct)
    assert sizes[-1] <= 1.25
    ranges = [name.partition("-")[0] for name in nights.raw_names()]
    assert max(map(ranges.count, ranges)) <= raw_waste.MOST_SMALL
    assert before is None or nights.vectors(kept[-2] if len(kept) > 1 else kept[-1]).tobytes() == before.tobytes()
    for kept_id in plan.kept:
      assert not uncovered(nights, kept_id)
    assert plan.kept[-1] == run_id and len(plan.kept) == min(3, night + 1)
  assert max(sizes) > 1.0  # else nothing dead was borne, and the test shows nothing
