"""What a local folder adds to tests/transforms/test_storage.py: full disks, file systems without links."""

import errno
import os

import pytest

from tests.transforms.test_storage import of_two_who_create_exactly_one_wins
from transforms.errors import StoreError
from transforms.storage import Storage


@pytest.fixture
def storage(tmp_path):
  return Storage.at(str(tmp_path))


@pytest.fixture
def full_disk(monkeypatch):
  """Every fsync finds that the disk is full."""

  def fail(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "fsync", fail)


def everything(folder):
  return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("write", [Storage.write, Storage.create])
def test_a_write_that_fails_leaves_nothing(storage, tmp_path, full_disk, write):
  with pytest.raises(StoreError, match="No space left"):
    write(storage, "a.bin", b"data")
  assert everything(tmp_path) == []


def test_a_replacement_that_fails_leaves_the_old_file(storage, tmp_path, monkeypatch, request):
  storage.write("a.bin", b"old")
  request.getfixturevalue("full_disk")
  with pytest.raises(StoreError, match="No space left"):
    storage.write("a.bin", b"new")
  assert storage.read("a.bin") == b"old" and everything(tmp_path) == ["a.bin"]


def no_links(*_):
  raise OSError(errno.EPERM, "Operation not permitted")


def test_without_links_a_creation_that_fails_leaves_the_name_free(storage, tmp_path, monkeypatch):
  synced = []

  def fail_second(descriptor):
    synced.append(descriptor)
    if len(synced) == 2:  # the temporary file was the first
      raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "link", no_links)
  monkeypatch.setattr(os, "fsync", fail_second)
  with pytest.raises(StoreError, match="No space left"):
    storage.create("1.json", b"data")
  assert everything(tmp_path) == []


def test_names_hide_temporaries_and_are_sorted(storage, tmp_path):
  for name in ("b", "a", ".tmp-0123", ".hidden"):
    (tmp_path / name).write_bytes(b"")
  assert storage.names("") == ["a", "b"]
  assert storage.names("not there") == []


def test_a_stream_that_fails_leaves_nothing(storage, tmp_path, full_disk):
  with pytest.raises(StoreError, match=r"^runs/r1/part: cannot be written \(No space left"):
    storage.write_stream("runs/r1", "part", ".bin", lambda file: file.write(b"data"))
  assert everything(tmp_path) == []


def test_without_links_exactly_one_of_two_wins(storage, monkeypatch):
  monkeypatch.setattr(os, "link", no_links)
  of_two_who_create_exactly_one_wins(storage, 200)


def test_a_folder_is_removed_itself(storage, tmp_path):
  storage.write("runs/a/raw/x", b"1")
  storage.remove_folder("runs/a")
  assert not (tmp_path / "runs/a").exists()
