"""What holds of a dataset's files wherever they are: on this machine, and on an object store."""

import os
import pickle
import threading
import time
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.gcs_server import SERVER
from tests.object_store import BUCKET
from transforms.errors import StoreError, UsageError
from transforms.storage import Storage, StoredFile, sha256, sha256_of_file


@pytest.fixture(params=["local", "s3", *(["gs"] if SERVER else [])])  # said once, in test_gcs_storage.py
def storage(request, tmp_path):
  if request.param == "local":
    return Storage.at(str(tmp_path))
  request.getfixturevalue({"s3": "proxy", "gs": "gcs"}[request.param])
  return Storage.at(f"{request.param}://{BUCKET}/{uuid.uuid4().hex}")


def of_two_who_create_exactly_one_wins(storage, tries):
  """Two threads create the same files at once."""
  wins, barrier = [[], []], threading.Barrier(2)

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
  assert len(storage.walk("")) == tries


def test_what_is_written_is_read(storage):
  storage.write("a/b/c.bin", b"\0one")
  assert storage.read("a/b/c.bin") == b"\0one"
  storage.write("a/b/c.bin", b"two")
  assert storage.read("a/b/c.bin") == b"two"
  assert storage.exists("a/b/c.bin") and storage.exists("a/b") and not storage.exists("a/c")
  storage.remove("a/b/c.bin")
  storage.remove("a/b/c.bin")
  assert storage.walk("") == []
  with pytest.raises(FileNotFoundError):
    storage.read("a/b/c.bin")


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
    for _ in range(100):
      assert storage.read("a.bin") in contents
      assert storage.names("") == ["a.bin"]
  finally:
    stop.set()
    writer.join()


def test_create_refuses_what_is_there(storage):
  storage.create("p/1.json", b"first")
  with pytest.raises(FileExistsError):
    storage.create("p/1.json", b"second")
  assert storage.read("p/1.json") == b"first" and storage.walk("") == ["p/1.json"]


def test_of_two_who_create_exactly_one_wins(storage):
  of_two_who_create_exactly_one_wins(storage, 50)


def test_what_is_asked_of_a_file(storage):
  before = time.time()
  storage.write("a/b.bin", b"12345")
  assert storage.size("a/b.bin") == 5 and before - 2 < storage.modified("a/b.bin") < time.time() + 2
  for missing in ("a/c.bin", "a", "b/b.bin", "a/b.bin/c"):
    assert (storage.size(missing), storage.modified(missing)) == (None, None)
    with pytest.raises(OSError):
      storage.read(missing)


def test_an_open_file_is_read_at_any_place(storage):
  data = os.urandom(700_000)
  storage.write("a.bin", data)
  with storage.open("a.bin") as file:
    assert file.seek(-3, os.SEEK_END) == 699_997
    assert file.read() == data[-3:] and file.read(1) == b""
    assert file.seek(10) == 10 and file.read(300_000) == data[10:300_010]
    assert file.seek(2, os.SEEK_CUR) == 300_012 == file.tell() and file.read() == data[300_012:]
  with storage.open("a.bin") as file:
    assert sha256_of_file(file) == sha256(data)
  with pytest.raises(FileNotFoundError):
    storage.open("b.bin")


def test_parquet_is_read_where_it_lies(storage):
  table = pa.table({"n": range(30)})
  sink = pa.BufferOutputStream()
  pq.write_table(table, sink, row_group_size=10)
  storage.write("a.parquet", sink.getvalue().to_pybytes())
  with storage.open("a.parquet") as file, pq.ParquetFile(file) as parquet:
    assert parquet.read_row_group(1)["n"].to_pylist() == list(range(10, 20))


def test_a_file_is_mapped_and_outlives_its_name(storage):
  for data in (b"", b"0123456789" * 1000):
    storage.write("a.bin", data)
    mapped = storage.map("a.bin")
    assert bytes(mapped) == data and mapped.readonly
    storage.remove("a.bin")
    assert bytes(mapped[-3:]) == data[-3:]
  with pytest.raises(FileNotFoundError):
    storage.map("a.bin")


def test_pickled_it_is_its_root_alone(storage):
  storage.write("a.bin", b"1")
  data = pickle.dumps(storage)
  assert len(data) < 200 and pickle.loads(data) == storage
  assert pickle.loads(data).read("a.bin") == b"1"


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/etc/passwd", "a/.."])
def test_a_path_that_leaves_the_dataset_is_refused(storage, path):
  for method in (storage.read, storage.exists, storage.names, storage.remove):
    with pytest.raises(StoreError, match=rf"^{storage.root}: '{path}' is outside the dataset"):
      method(path)
  with pytest.raises(StoreError, match="is outside the dataset"):
    storage.write(path, b"")


@pytest.mark.parametrize("url", ["memory://ds", "abfs://bucket/ds", "http://host/ds"])
def test_file_systems_without_exclusive_creation_are_refused(url):
  protocol = url.partition(":")[0]
  with pytest.raises(UsageError) as error:
    Storage.at(url)
  assert str(error.value) == (
    f"dataset '{url}': '{protocol}' is not a file system that a dataset can live on "
    "(it can on: file, local, s3, gs); choose a local folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX for --dataset, "
    "input may be anywhere"
  )


def test_a_root_is_a_path_or_a_local_url_in_full(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  roots = {Storage.at(url).root for url in ("ds", f"{tmp_path}/ds", f"file://{tmp_path}/ds", "~/ds")}
  assert roots == {f"{tmp_path}/ds"}


def test_an_object_stores_root_is_spelt_in_one_way():
  assert {Storage.at(url).root for url in ("s3://b/a/c", "s3://b/a/c/", "s3://b/a/c//")} == {"s3://b/a/c"}
  assert Storage.at("s3://b/").root == "s3://b"
  assert Storage.at("gs://b/a/").root == "gs://b/a"
  with pytest.raises(UsageError, match="give gs://BUCKET/PREFIX, with single slashes"):
    Storage.at("gs://b//a")
  for url in ("s3://", "s3:///a", "s3://b//a", "s3://b/../a", "s3://b/./a"):
    with pytest.raises(UsageError, match="give s3://BUCKET/PREFIX, with single slashes"):
      Storage.at(url)


def test_what_has_a_path(tmp_path):
  assert Storage.at(str(tmp_path)).path("a/b") == tmp_path / "a/b"
  with pytest.raises(StoreError):
    Storage.at(str(tmp_path)).path("../b")
  with pytest.raises(ValueError, match="'a/b' has no path: use open, read or map"):
    Storage.at("s3://bucket/ds").path("a/b")


def test_content_names(storage):
  """Work done twice writes the same name; other content another."""
  stored = storage.write_content("runs/1/vectors", "part-0", ".parquet", b"abc", 3)
  digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
  assert sha256(b"abc") == digest
  assert stored == StoredFile("runs/1/vectors/part-0-ba7816bf8f01cfea.parquet", 3, 3, digest)
  assert storage.write_content("runs/1/vectors", "part-0", ".parquet", b"abc", 3) == stored
  assert storage.walk("") == [stored.path]
  assert storage.write_content("runs/1/vectors", "part-0", ".parquet", b"abd", 3).path != stored.path


def test_a_stream_is_named_after_its_content(storage):
  def write(file):
    file.write(b"one ")
    file.write(b"two")
    return 2

  stored = storage.write_stream("runs/r1", "part", ".bin", write)
  assert stored == StoredFile(f"runs/r1/part-{sha256(b'one two')[:16]}.bin", 2, 7, sha256(b"one two"))
  assert storage.write_stream("runs/r1", "part", ".bin", write) == stored
  assert storage.read(stored.path) == b"one two" and storage.walk("") == [stored.path]


def test_a_stream_of_no_rows_leaves_no_file(storage):
  assert storage.write_stream("runs/r1", "part", ".bin", lambda file: file.write(b"") or 0) is None
  assert storage.walk("") == []


def test_a_folder_is_walked_and_removed_with_what_is_hidden(storage):
  for path in ("runs/a/plan.json", "runs/a/raw/x", "runs/a/.tmp-1", "runs/b/plan.json"):
    storage.write(path, b"1")
  assert storage.walk("runs/a") == ["runs/a/.tmp-1", "runs/a/plan.json", "runs/a/raw/x"]
  assert storage.sizes("runs/b") == {"runs/b/plan.json": 1} and storage.sizes("runs/c") == {}
  with storage.open("runs/a/raw/x") as file:
    assert file.read() == b"1"
  for _ in range(2):
    storage.remove_folder("runs/a")
    assert storage.walk("runs/a") == []
  assert not storage.exists("runs/a") and storage.names("runs") == ["b"]
  assert storage.walk("runs") == ["runs/b/plan.json"]


def test_a_file_that_cannot_be_given_its_name_leaves_nothing(tmp_path):
  storage = Storage(str(tmp_path))
  storage.write("taken/inside", b"")
  with pytest.raises(StoreError, match=r"taken: cannot be written"):
    storage.write("taken", b"data")
  assert storage.walk("") == ["taken/inside"]
