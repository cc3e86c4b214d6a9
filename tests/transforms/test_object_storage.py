"""What an object store adds to tests/transforms/test_storage.py: lost answers, parts, and what people are told."""

import os
import re
import uuid

import pytest

from tests.object_store import BUCKET
from tests.transforms.test_storage import of_two_who_create_exactly_one_wins
from transforms import object_storage
from transforms.errors import StoreError, UsageError
from transforms.object_storage import service
from transforms.storage import Storage

MB = 1 << 20


@pytest.fixture
def storage(proxy):
  return Storage.at(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.fixture
def small_parts(monkeypatch):
  monkeypatch.setattr(object_storage, "PART_BYTES", 5 * MB)  # the least that the protocol knows


@pytest.fixture
def impatient(monkeypatch):
  for name in ("PATIENCE_SECONDS", "FIRST_PATIENCE_SECONDS"):
    monkeypatch.setattr(object_storage, name, 0.2)


def call(method, **request):
  return service(os.getpid()).ask(lambda fs: fs.call_s3(method, Bucket=BUCKET, **request))


def prefix(storage):
  return storage.root.rpartition("/")[2]


def test_nothing_is_lost_or_repeated_when_much_fails(storage, proxy):
  before = proxy.seen.copy()
  with proxy.unreliable(0.3):
    for i in range(15):
      storage.create(f"a/{i:02d}", str(i).encode())
      storage.write(f"b/{i:02d}", str(i).encode())
      assert storage.read(f"a/{i:02d}") == str(i).encode()
      with pytest.raises(FileExistsError):
        storage.create(f"b/{i:02d}", b"another")
    assert storage.names("a") == storage.names("b") == [f"{i:02d}" for i in range(15)]
    assert [storage.read(path) for path in storage.walk("b")] == [str(i).encode() for i in range(15)]
  assert all((proxy.seen - before)[fault] for fault in ("500", "503", "slow", "dropped", "lost"))


def test_no_request_fails_so_often_in_a_row_that_patience_could_run_out(proxy):
  """Those of these tests: bad luck is no failure of what is tested."""
  with proxy.unreliable(1 - 1e-12, "500", "lost"):
    faults = [proxy.next_fault(f"PUT /bucket/a?partNumber={i}") for i in range(12)]
  assert faults == [*("500", "lost", "500", "lost", "500"), "", *("lost", "500", "lost", "500", "lost"), ""]


def test_a_creation_whose_answer_was_lost_is_ours_and_the_same_bytes_of_another_are_not(storage, proxy, monkeypatch):
  faults = iter(["lost", "", ""])  # carried out; sent again and refused; whose it is
  monkeypatch.setattr(proxy, "next_fault", lambda request: next(faults))
  storage.create("1.json", b"data")
  assert next(faults, None) is None
  monkeypatch.undo()
  with pytest.raises(FileExistsError):
    storage.create("1.json", b"data")


def test_a_forked_process_has_connections_of_its_own(storage):
  storage.write("a.bin", b"1")
  child = os.fork()
  if not child:
    os._exit(0 if storage.read("a.bin") == b"1" else 1)
  assert os.waitpid(child, 0)[1] == 0 and storage.read("a.bin") == b"1"


def test_of_two_who_create_exactly_one_wins_although_answers_are_lost(storage, proxy):
  with proxy.unreliable(0.3, "lost", "dropped", "500"):
    of_two_who_create_exactly_one_wins(storage, 20)


def test_one_that_was_refused_and_is_gone_when_looked_at_was_anothers(storage, proxy, monkeypatch):
  storage.create("1.json", b"data")
  forward = proxy.forward

  def gone_meanwhile(method, path, headers, body):
    answer = forward(method, path, headers, body)
    if method == "PUT":
      forward("DELETE", path, {"Authorization": headers["Authorization"]}, b"")
    return answer

  monkeypatch.setattr(proxy, "forward", gone_meanwhile)
  with pytest.raises(FileExistsError):
    storage.create("1.json", b"data")
  assert not storage.exists("1.json")


@pytest.mark.parametrize("faults", [(), ("lost", "500", "dropped")])
def test_a_large_object_is_sent_in_parts_and_is_there_when_all_are(storage, proxy, small_parts, faults):
  data = os.urandom(11 * MB)
  with proxy.unreliable(0.4 if faults else 0.0, *faults):
    stored = storage.write_stream("big", "part", ".bin", lambda file: file.write(data))
    storage.write("big/whole", data)
    assert storage.read(stored.path) == data == storage.map("big/whole")
  assert re.fullmatch(
    r'"[0-9a-f]{32}-3"', call("head_object", Key=f"{storage.root[len('s3://bucket/') :]}/big/whole")["ETag"]
  )


def test_parts_that_cannot_all_be_sent_leave_nothing(storage, proxy, small_parts, impatient):
  with proxy.unreliable(1.0, "500", where="partNumber=2"), pytest.raises(StoreError) as error:
    storage.write("a.bin", os.urandom(11 * MB))
  assert str(error.value).startswith(f"{storage.root}/a.bin: cannot be written (")
  assert storage.walk("") == [] and not call("list_multipart_uploads", Prefix=prefix(storage)).get("Uploads")


@pytest.mark.parametrize("was_done", [True, False])
def test_an_upload_that_the_service_knows_no_more(storage, proxy, small_parts, monkeypatch, was_done):
  """As it says of one that is complete, a while after: then what counts is whether the object is there."""
  forward, data = proxy.forward, os.urandom(11 * MB)

  def forgetful(method, path, headers, body):
    if method == "POST" and "uploadId=" in path:
      if was_done:
        forward(method, path, headers, body)
      return forward("GET", "/bucket/no-such-key", {"Authorization": headers["Authorization"]}, b"")  # 404
    return forward(method, path, headers, body)

  monkeypatch.setattr(proxy, "forward", forgetful)
  if was_done:
    storage.write("a.bin", data)
    assert storage.read("a.bin") == data
  else:
    with pytest.raises(FileNotFoundError):
      storage.write("a.bin", data)
    assert not storage.exists("a.bin")


def test_many_objects_are_listed_and_removed_page_by_page(storage, monkeypatch):
  ask = object_storage.ObjectFolder._call
  monkeypatch.setattr(object_storage, "_KEYS_PER_REMOVAL", 4)
  paged = lambda self, method, *a, **request: ask(  # noqa: E731
    self, method, *a, **(request | {"MaxKeys": 3} if method == "list_objects_v2" else request)
  )
  monkeypatch.setattr(object_storage.ObjectFolder, "_call", paged)
  paths = [f"a/{i // 5}/{i}" for i in range(10)]
  for path in [*paths, "ab/c", ".hidden", "b"]:
    storage.write(path, b"")
  call("put_object", Key=f"{prefix(storage)}/empty/")  # as consoles make a folder
  assert storage.walk("a") == paths and storage.names("a") == ["0", "1"]
  assert storage.names("") == ["a", "ab", "b", "empty"] and storage.names("empty") == storage.walk("empty") == []
  storage.remove_folder("a")
  assert storage.walk("") == [".hidden", "ab/c", "b"]
  storage.remove_folder("empty")
  assert storage.names("") == ["ab", "b"]


def test_the_root_may_be_a_bucket(storage):
  storage.write("x", b"1")
  assert Storage.at(f"s3://{BUCKET}").read(f"{prefix(storage)}/x") == b"1"
  assert prefix(storage) in Storage.at(f"s3://{BUCKET}/").names("") and Storage.at(f"s3://{BUCKET}").exists("")


@pytest.mark.parametrize("faults", ["500", "503", "dropped", "lost"])
def test_what_does_not_pass_is_told_with_object_and_remedy(storage, proxy, impatient, faults):
  storage.write("here", b"1")
  what = {"written": lambda: storage.write("a", b""), "read": lambda: storage.read("here")}
  what |= {"listed": lambda: storage.names("here"), "removed": lambda: storage.remove("here")}
  for done, act in what.items():
    with proxy.unreliable(1.0, faults), pytest.raises(StoreError) as error:
      act()
    assert re.match(rf"{storage.root}/(a|here): cannot be {done} \(.+\); run again when", str(error.value))
    assert "\n" not in str(error.value)


def test_a_file_whose_bytes_stop_coming_says_so_through_a_reader_of_parquet(storage, proxy, impatient):
  pq = pytest.importorskip("pyarrow.parquet")
  storage.write("a.parquet", b"PAR1" + bytes(1000) + b"PAR1")
  with storage.open("a.parquet") as file, proxy.unreliable(1.0, "dropped"), pytest.raises(StoreError):
    pq.ParquetFile(file)


# --- what a person has to mend


def test_a_bucket_that_is_not_there(proxy):
  storage = Storage.at("s3://another/ds")
  for act in (lambda: storage.exists("dataset.json"), lambda: storage.write("a", b"")):
    with pytest.raises(UsageError, match=r"^s3://another/ds: .*there is no such bucket \(NoSuchBucket\); make it, or"):
      act()


@pytest.fixture
def anew(monkeypatch):
  """Connections are made anew, before and after."""
  service.cache_clear()
  yield monkeypatch
  service.cache_clear()


def test_without_credentials(proxy, anew):
  anew.delenv("AWS_ACCESS_KEY_ID")
  anew.delenv("AWS_SECRET_ACCESS_KEY")
  with pytest.raises(UsageError) as error:
    Storage.at(f"s3://{BUCKET}/ds").exists("dataset.json")
  assert str(error.value) == (
    "s3://bucket/ds: no credentials for it (Unable to locate credentials); set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role gives them"
  )


def test_a_service_that_stalls_is_asked_again(storage, proxy, anew):
  anew.setattr(object_storage, "READ_SECONDS", 1.0)
  anew.setattr("tests.flaky_proxy._SLOW_SECONDS", 10.0)
  faults = iter(["slow", ""])
  anew.setattr(proxy, "next_fault", lambda request: next(faults, ""))
  storage.write("a.bin", b"1")
  assert next(faults, None) is None and storage.read("a.bin") == b"1"


@pytest.mark.parametrize(
  ("endpoint", "kind", "message"),
  [
    ("http://127.0.0.1:9", StoreError, "Could not connect to the endpoint URL.*or correct AWS_ENDPOINT_URL"),
    ("no address", UsageError, "cannot be asked for .Invalid endpoint: no address.; is the name right"),
  ],
)
def test_an_address_where_nobody_answers(proxy, anew, impatient, endpoint, kind, message):
  anew.setenv("AWS_ENDPOINT_URL", endpoint)
  with pytest.raises(kind, match=rf"^s3://bucket/ds.*{message}"):
    Storage.at(f"s3://{BUCKET}/ds").exists("dataset.json")


def test_without_s3fs(anew):
  anew.setitem(__import__("sys").modules, "s3fs", None)
  with pytest.raises(UsageError, match=r"pip install 'sorbus\[s3\]'$"):
    Storage.at(f"s3://{BUCKET}/ds").exists("dataset.json")


def test_a_name_that_no_bucket_can_have(proxy):
  with pytest.raises(UsageError, match=r"^s3://a b/ds: cannot be asked for \(.*Invalid bucket name"):
    Storage.at("s3://a b/ds").exists("dataset.json")


@pytest.mark.parametrize("method", ["write_stream", "map"])
def test_a_full_disk_here_is_told_apart(storage, monkeypatch, method):
  storage.write("x", b"1")

  def full(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(object_storage.tempfile, "TemporaryFile", full)
  with pytest.raises(StoreError, match=r"on its way \(No space left on device\); make room, or set TMPDIR$"):
    storage.map("x") if method == "map" else storage.write_stream("a", "b", "", lambda file: file.write(b"1"))
