"""Merging raw files: live rows, each once, from the first whole file, in order, in files that are not too large."""

from pathlib import Path

import numpy as np
import pytest

from tests.made_nights import H, raw_table
from tests.run_parts import make_plan
from transforms import compact_raw
from transforms.compact_raw import Compaction, compact_range
from transforms.digests import DigestRange, bucket_of, digest_array
from transforms.errors import StoreError
from transforms.raw_store import RawStore, vectors_of

ALL = DigestRange(0, 0)
DIGESTS = np.unique(digest_array(f"text {i}" for i in range(40)))


@pytest.fixture
def store(tmp_path):
  return make_plan(tmp_path).store


def write(store, run_id, rows, value):
  """A raw file of some of DIGESTS whose vectors hold one value."""
  return store.write(ALL, run_id, raw_table(DIGESTS[rows], np.full((len(rows), H), value, np.float32)))


def compacted(store, names, live, wanted=ALL):
  """({index into DIGESTS: value of its vector} of the new files, what was done)."""
  done = Compaction()
  compact_range(store, names, wanted, DIGESTS[live], "r9gc", done)
  found = {}
  for name in done.written:
    table, held = store.read(name), store.digests(name)
    assert (np.sort(held) == held).all()
    at = np.searchsorted(DIGESTS, held)
    assert (DIGESTS[at] == held).all() and not found.keys() & set(at.tolist())
    found.update(zip(at.tolist(), vectors_of(table)[:, 0].tolist(), strict=True))
  assert done.rows == len(found)
  return found, done


def test_live_rows_come_once_from_the_first_file_in_order(store):
  names = [write(store, "r1", [5, 1, 3], 1.0), write(store, "r2", [3, 0, 7], 2.0)]
  found, done = compacted(store, names, [0, 1, 3, 9])
  assert found == {0: 2.0, 1: 1.0, 3: 1.0}
  assert [name.split("-")[:2] for name in done.written] == [["all", "r9gc"]]
  assert set(names) < set(store.find(ALL))  # removing them is the caller's


def test_a_text_twice_in_one_file_comes_once(store):
  rows = raw_table(DIGESTS[[2, 2]], np.float32([[1] * H, [2] * H]))
  found, _ = compacted(store, [store.write(ALL, "r1", rows)], [2])
  assert found == {2: 1.0}


def test_nothing_live_writes_nothing(store):
  names = [write(store, "r1", [1, 2], 1.0)]
  assert compacted(store, names, [])[1] == compacted(store, names, [5])[1] == Compaction()


def test_of_a_coarse_file_only_the_range_is_taken(store):
  buckets = bucket_of(DIGESTS, 2)
  mine = np.flatnonzero(buckets == 2)
  found, done = compacted(store, [write(store, "r1", np.arange(40), 1.0)], mine, DigestRange(2, 2))
  assert sorted(found) == mine.tolist() and done.written[0].startswith("10-")


def test_a_damaged_file_is_passed_by_and_told(store):
  names = [write(store, "r1", [1, 2], 1.0), write(store, "r2", [2, 3], 2.0)]
  path = Path(store.storage.root, f"{store.folder}/{names[0]}")
  path.write_bytes(path.read_bytes()[:-1])
  found, done = compacted(store, names, [1, 2, 3])
  assert found == {2: 2.0, 3: 2.0}
  assert list(done.damaged) == names[:1] and "damaged" in done.damaged[names[0]]
  assert store.damaged(ALL) == names[:1]  # so that no run counts on it


def test_a_file_that_cannot_be_read_for_a_moment_is_not_damaged(store, monkeypatch):
  names = [write(store, "r1", [1, 2], 1.0), write(store, "r2", [2], 2.0)]

  def failing(store, name):
    raise StoreError(f"{name}: cannot be read (Input/output error)")

  monkeypatch.setattr(RawStore, "read", failing)
  with pytest.raises(StoreError, match="Input/output error"):
    compact_range(store, names, ALL, DIGESTS[[1, 2]], "r9gc", Compaction())
  assert store.damaged(ALL) == []


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_file_that_is_gone_or_empty_is_damaged_for_good(store, change):
  names = [write(store, "r1", [1, 2], 1.0), write(store, "r2", [2], 2.0)]
  change(Path(store.storage.root, f"{store.folder}/{names[0]}"))
  assert compacted(store, names, [1, 2])[0] == {2: 2.0}


def test_a_file_with_a_vector_that_is_not_finite_is_damaged_for_good(store):
  names = [write(store, "r1", [0, 1], np.nan), write(store, "r2", [2, 3], 1.0)]
  found, done = compacted(store, names, [0, 1, 2, 3])
  assert list(done.damaged) == names[:1] and found == {2: 1.0, 3: 1.0}


def test_a_file_of_another_schema_is_damaged_for_good(store):
  other = store.write(ALL, "r1", raw_table(DIGESTS[[1]], np.ones((1, H + 1), np.float32)))
  found, done = compacted(store, [other, write(store, "r2", [1], 2.0)], [1])
  assert found == {1: 2.0} and list(done.damaged) == [other]


def test_a_file_that_was_damaged_in_another_range_is_not_taken_in_this_one(store):
  names, done = [write(store, "r1", [1, 2], 1.0), write(store, "r2", [2], 2.0)], Compaction()
  done.damaged[names[0]] = "damaged when it was read before"
  compact_range(store, names, ALL, DIGESTS[[1, 2]], "r9gc", done)
  assert [len(store.digests(name)) for name in done.written] == [1]


def test_many_rows_are_cut_into_equal_files(store, monkeypatch):
  monkeypatch.setattr(compact_raw, "TARGET_BYTES", raw_table(DIGESTS[:10], np.zeros((10, H))).nbytes)
  found, done = compacted(store, [write(store, "r1", np.arange(25), 1.0)], np.arange(25))
  assert [len(store.digests(name)) for name in sorted(done.written, key=lambda n: store.digests(n)[0])] == [8, 8, 9]
  assert len(found) == 25


def test_each_file_is_told_when_it_was_read(store):
  names = [write(store, "r1", [1], 1.0), write(store, "r2", [2], 2.0)]
  told = []
  compact_range(store, names, ALL, DIGESTS[[1, 2]], "r9gc", Compaction(), told.append)
  assert told == names
