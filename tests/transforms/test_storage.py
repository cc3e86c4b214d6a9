import errno
import os
import threading

import pytest

from transforms.errors import StoreError, UsageError
from transforms.storage import Storage, StoredFile, sha256


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


def test_what_is_written_is_read(storage, tmp_path):
  storage.write("a/b/c.bin", b"\0one")
  assert storage.read("a/b/c.bin") == b"\0one"
  storage.write("a/b/c.bin", b"two")
  assert storage.read("a/b/c.bin") == b"two"
  assert storage.exists("a/b/c.bin") and storage.exists("a/b") and not storage.exists("a/c")
  storage.remove("a/b/c.bin")
  storage.remove("a/b/c.bin")
  assert everything(tmp_path) == []
  with pytest.raises(FileNotFoundError):
    storage.read("a/b/c.bin")


def test_a_file_is_mapped_and_outlives_its_name(storage):
  for data in (b"", b"0123456789" * 1000):
    storage.write("a.bin", data)
    mapped = storage.map("a.bin")
    assert bytes(mapped) == data and mapped.readonly
    storage.remove("a.bin")
    assert bytes(mapped[-3:]) == data[-3:]
  with pytest.raises(FileNotFoundError):
    storage.map("a.bin")


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


def test_a_file_is_never_seen_half(storage):
  """A reader beside a writer sees the one content or the other, and no name that is not whole."""
  contents = [bytes([i]) * 200_000 for i in range(2)]
  storage.write("a.bin", contents[0])
  stop = threading.Event()

  def write():
    while not stop.is_set():
      for content in contents:
        storage.write("a.bin", content)

  writer = threading.Thread(target=write)
  writer.start()
  try:
    for _ in range(300):
      assert storage.read("a.bin") in contents
      assert storage.names("") == ["a.bin"]
  finally:
    stop.set()
    writer.join()


def test_create_refuses_what_is_there(storage, tmp_path):
  storage.create("p/1.json", b"first")
  with pytest.raises(FileExistsError):
    storage.create("p/1.json", b"second")
  assert storage.read("p/1.json") == b"first" and everything(tmp_path) == ["p/1.json"]


def no_links(*_):
  raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("with_links", [True, False])
def test_of_two_who_create_exactly_one_wins(storage, tmp_path, monkeypatch, with_links):
  if not with_links:
    monkeypatch.setattr(os, "link", no_links)
  tries, wins = 200, [[], []]
  barrier = threading.Barrier(2)

  def create(me):
    for i in range(tries):
      barrier.wait()
      try:
        storage.create(f"{i}.json", str(me).encode())
        wins[me].append(i)
      except FileExistsError:
        pass

  threads = [threading.Thread(target=create, args=(me,)) for me in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(wins[0] + wins[1]) == list(range(tries))
  assert all(storage.read(f"{i}.json") == str(me).encode() for me in range(2) for i in wins[me])
  assert len(everything(tmp_path)) == tries


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


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/etc/passwd", "a/.."])
def test_a_path_that_leaves_the_dataset_is_refused(storage, tmp_path, path):
  for method in (storage.read, storage.exists, storage.names, storage.remove):
    with pytest.raises(StoreError, match=rf"^{tmp_path}: '{path}' is outside the dataset"):
      method(path)
  with pytest.raises(StoreError, match="is outside the dataset"):
    storage.write(path, b"")


@pytest.mark.parametrize("url", ["s3://bucket/ds", "memory://ds", "gs://bucket/ds", "http://host/ds"])
def test_file_systems_without_exclusive_creation_are_refused(url):
  protocol = url.partition(":")[0]
  with pytest.raises(UsageError) as error:
    Storage.at(url)
  assert str(error.value) == (
    f"dataset '{url}': '{protocol}' is not a file system that a dataset can live on "
    "(it can on: file, local); choose a local folder for --dataset, input may be anywhere"
  )


def test_a_root_is_a_path_or_a_local_url_in_full(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  roots = {Storage.at(url).root for url in ("ds", f"{tmp_path}/ds", f"file://{tmp_path}/ds", "~/ds")}
  assert roots == {f"{tmp_path}/ds"}


def test_content_names(storage, tmp_path):
  """Work done twice writes the same name; other content another."""
  stored = storage.write_content("runs/1/vectors", "part-0", ".parquet", b"abc", 3)
  digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
  assert sha256(b"abc") == digest
  assert stored == StoredFile("runs/1/vectors/part-0-ba7816bf8f01cfea.parquet", 3, 3, digest)
  assert storage.write_content("runs/1/vectors", "part-0", ".parquet", b"abc", 3) == stored
  assert everything(tmp_path) == [stored.path]
  assert storage.write_content("runs/1/vectors", "part-0", ".parquet", b"abd", 3).path != stored.path


def test_a_stream_is_named_after_its_content(storage, tmp_path):
  def write(file):
    file.write(b"one ")
    file.write(b"two")
    return 2

  stored = storage.write_stream("runs/r1", "part", ".bin", write)
  assert stored == StoredFile(f"runs/r1/part-{sha256(b'one two')[:16]}.bin", 2, 7, sha256(b"one two"))
  assert storage.write_stream("runs/r1", "part", ".bin", write) == stored
  assert storage.read(stored.path) == b"one two" and everything(tmp_path) == [stored.path]


def test_a_stream_of_no_rows_leaves_no_file(storage, tmp_path):
  assert storage.write_stream("runs/r1", "part", ".bin", lambda file: file.write(b"") or 0) is None
  assert everything(tmp_path) == []


def test_a_stream_that_fails_leaves_nothing(storage, tmp_path, full_disk):
  with pytest.raises(StoreError, match=r"^runs/r1/part: cannot be written \(No space left"):
    storage.write_stream("runs/r1", "part", ".bin", lambda file: file.write(b"data"))
  assert everything(tmp_path) == []


def test_a_folder_is_walked_and_removed_with_what_is_hidden(tmp_path):
  storage = Storage.at(str(tmp_path))
  for path in ("runs/a/plan.json", "runs/a/raw/x", "runs/a/.tmp-1", "runs/b/plan.json"):
    storage.write(path, b"1")
  assert storage.walk("runs/a") == ["runs/a/.tmp-1", "runs/a/plan.json", "runs/a/raw/x"]
  with storage.open("runs/a/raw/x") as file:
    assert file.read() == b"1"
  for _ in range(2):
    storage.remove_folder("runs/a")
    assert storage.walk("runs/a") == []
  assert not (tmp_path / "runs" / "a").exists()
  assert storage.walk("runs") == ["runs/b/plan.json"]


def test_a_file_that_cannot_be_given_its_name_leaves_nothing(tmp_path):
  storage = Storage(str(tmp_path))
  storage.write("taken/inside", b"")
  with pytest.raises(StoreError, match=r"taken: cannot be written"):
    storage.write("taken", b"data")
  assert storage.walk("") == ["taken/inside"]
