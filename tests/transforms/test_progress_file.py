from collections import Counter

import pytest

from transforms.errors import StoreError
from transforms.progress_file import ProgressFile, read_progress
from transforms.storage import Storage


class Clock:
  """A time that passes when the test says so."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self):
    return self.now


@pytest.fixture
def storage(tmp_path):
  return Storage.at(str(tmp_path))


def test_counts_are_written_at_most_once_a_second(storage):
  clock = Clock()
  progress = ProgressFile(storage, "runs/r1", clock)
  assert read_progress(storage, "runs/r1") == Counter()
  seen = []
  for _ in range(9):
    progress.add(rows_read=1)
    seen.append(read_progress(storage, "runs/r1")["rows_read"])
    clock.now += 0.25
  assert seen == [1, 1, 1, 1, 5, 5, 5, 5, 9]


def test_where_a_request_costs_money_they_are_written_less_often(storage, monkeypatch):
  monkeypatch.setattr(Storage, "rewrite_seconds", 15.0)
  clock = Clock()
  progress = ProgressFile(storage, "runs/r1", clock)
  for _ in range(32):
    progress.add(rows_read=1)
    clock.now += 1
  assert read_progress(storage, "runs/r1")["rows_read"] == 31  # at 0, 15 and 30


def test_counts_that_cannot_be_written_stop_nobody(storage, monkeypatch):
  def fail(*_):
    raise StoreError("the disk is full")

  monkeypatch.setattr(Storage, "write", fail)
  ProgressFile(storage, "runs/r1").add(rows_read=1)


def test_all_workers_are_summed(storage):
  for n in (1, 20):
    ProgressFile(storage, "runs/r1").add(rows_read=n, bytes_read=n)
  ProgressFile(storage, "runs/r1").add(rows_written=5)
  ProgressFile(storage, "runs/r2").add(rows_read=1000)
  assert read_progress(storage, "runs/r1") == {"rows_read": 21, "bytes_read": 21, "rows_written": 5}


def test_a_worker_that_tidied_away_between_listing_and_reading_is_left_out(storage, monkeypatch):
  ProgressFile(storage, "runs/r1").add(rows_read=7)
  names = storage.names("runs/r1/progress")
  monkeypatch.setattr(Storage, "names", lambda self, folder: [*names, "gone.json"])
  assert read_progress(storage, "runs/r1") == {"rows_read": 7}


def test_the_threads_of_a_process_share_one_file(storage):
  assert ProgressFile.of_worker(storage, "runs/r1") is ProgressFile.of_worker(storage, "runs/r1")
  assert ProgressFile.of_worker(storage, "runs/r1") is not ProgressFile.of_worker(storage, "runs/r2")
