"""What Google Cloud Storage does otherwise than S3; what holds of all places is in test_storage.py."""

import os
import types
import uuid

import fsspec
import pytest

from tests.gcs_server import BUCKET
from tests.processes import deaf_port
from transforms import gcs_storage, object_storage
from transforms.encoder_files import read_bytes
from transforms.errors import SorbusError, StoreError, UsageError
from transforms.gcs_storage import GcsFolder, client
from transforms.input_files import ReadOptions, list_files
from transforms.storage import Storage, sha256


@pytest.fixture
def storage(gcs):
  return Storage.at(f"gs://{BUCKET}/{uuid.uuid4().hex}")


def test_a_creation_whose_answer_was_lost_knows_its_own_object(storage, gcs, monkeypatch):
  faults = iter(["lost", "lost", "", ""])  # carried out; sent again and refused, twice; whose it is
  monkeypatch.setattr(gcs, "next_fault", lambda request: next(faults))
  storage.create("1.json", b"mine")
  assert next(faults, None) is None
  monkeypatch.undo()
  with pytest.raises(FileExistsError):
    storage.create("1.json", b"mine")  # the same bytes, and yet another's
  assert storage.read("1.json") == b"mine"


def test_a_large_object_is_sent_in_parts_and_is_there_when_all_are(storage, monkeypatch):
  monkeypatch.setattr(object_storage, "PART_BYTES", 256 << 10)
  data = os.urandom((600 << 10) + 7)
  stored = storage.write_stream("runs/r", "part", ".bin", lambda file: file.write(data))
  assert stored.sha256 == sha256(data) and storage.read(stored.path) == data

  import gcsfs.core

  async def fail(*_):
    raise ConnectionError("cut")

  monkeypatch.setattr(gcsfs.core, "upload_chunk", fail)
  with pytest.raises(StoreError, match=r"cannot be written \(cut\); run again when the service answers"):
    storage.write("other/large", data)
  assert storage.names("other") == []


def test_a_listing_of_several_pages(storage, monkeypatch):
  for i in range(5):
    storage.write(f"runs/{i}/a", b"1")
  folder, pages = GcsFolder(storage.root), GcsFolder._pages
  assert [len(page["Contents"]) for page in pages(folder, "", Prefix=folder._below("runs"), MaxKeys=2)] == [2, 2, 1]
  monkeypatch.setattr(GcsFolder, "_pages", lambda self, place, **asked: pages(self, place, **(asked | {"MaxKeys": 2})))
  assert storage.names("runs") == ["0", "1", "2", "3", "4"]
  assert len(storage.sizes("runs")) == 5


def test_a_bucket_that_is_not_there_is_named(gcs):
  storage = Storage.at("gs://no-such-bucket/ds")
  for ask in (storage.exists, storage.names, lambda a: storage.write(a, b"1"), lambda a: storage.create(a, b"1")):
    with pytest.raises(UsageError, match=r"^gs://no-such-bucket/ds: there is no such bucket; make it, or correct"):
      ask("a")


def test_what_the_service_says_becomes_one_line(storage, monkeypatch):
  from gcsfs.retry import HttpError

  said = {
    OSError("Forbidden: b/x\nno storage.objects.get"): (
      UsageError,
      r"may not do that; it takes storage\.objects\.create",
    ),
    HttpError({"code": 401, "message": "Invalid\nCredentials"}): (UsageError, "no credentials for it .*GOOGLE_APPL"),
    HttpError({"code": 503, "message": "busy"}): (StoreError, r"/a: cannot be read \(busy, 503\); run again when"),
  }
  for error, (kind, line) in said.items():

    def fail(*_, error=error, **__):
      raise error

    monkeypatch.setattr(client(os.getpid()), "cat_file", fail)
    with pytest.raises(kind, match=line) as caught:
      storage.read("a")
    assert "\n" not in str(caught.value)


def forget_clients():
  client.cache_clear()
  fsspec.get_filesystem_class("gs").clear_instance_cache()


@pytest.fixture
def anew():
  """Clients are made anew, before and after."""
  pytest.importorskip("gcsfs", reason="needs gcsfs, which is not installed")
  forget_clients()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("NO_GCE_CHECK", "true")  # asking for a role takes seconds where nobody answers
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    yield patch
  forget_clients()


@pytest.fixture
def seconds(anew):
  """What has been slept, where only sleeping takes time: by gcsfs, and by whoever is given the function."""
  slept = []

  async def sleep(pause):
    slept.append(pause)

  anew.setattr("gcsfs.retry.asyncio", types.SimpleNamespace(sleep=sleep))
  return slept


FIRST_CONTACTS = {
  "dataset": lambda url, **_: Storage.at(url).exists("dataset.json"),
  "encoder": lambda url, **_: read_bytes(url, "encoder.json"),
  "files": lambda url, **time: list_files([f"{url}/*.jsonl"], ReadOptions(), **time),
  "folder": lambda url, **time: list_files([url], ReadOptions(), **time),
}


@pytest.mark.parametrize("what", FIRST_CONTACTS)
def test_who_cannot_be_reached_is_given_up_after_one_round_of_gcsfs_tries(anew, seconds, what):
  """Half a minute of a request, or of two side by side: one for the object, one for what lies below it."""
  told = r"^gs://bucket/ds.*cannot be read \(.*[Cc]onnect"
  with deaf_port() as port, pytest.raises(SorbusError, match=told) as error:
    anew.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    FIRST_CONTACTS[what]("gs://bucket/ds", sleep=seconds.append, clock=lambda: sum(seconds) / 2)
  assert "\n" not in str(error.value) and len(seconds) == (5 if what == "dataset" else 10)


def test_a_service_that_stalls_is_asked_again(gcs, anew):
  anew.setattr(gcs_storage, "_READ_SECONDS", 1.0)
  anew.setattr("tests.flaky_proxy._SLOW_SECONDS", 10.0)
  storage, faults = Storage.at(f"gs://{BUCKET}/{uuid.uuid4().hex}"), iter(["slow", ""])
  anew.setattr(gcs, "next_fault", lambda request: next(faults, ""))
  storage.write("a.bin", b"1")
  assert next(faults, None) is None and storage.read("a.bin") == b"1"
