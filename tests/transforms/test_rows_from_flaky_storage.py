import gzip
import io
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.reading import no_sleep, write_parquet
from transforms.errors import InputFileError
from transforms.input_files import ReadOptions, Slice, cut_slices, list_files
from transforms.input_source import with_retries
from transforms.rows import read_slice


class FlakyFile(io.BytesIO):
  """Once it has failed, it stays broken, as a connection does."""

  is_broken = False

  def read(self, n=-1, /):
    if self.is_broken:
      raise ConnectionError("the connection is gone")
    self.is_broken = True
    FlakyFileSystem.fail()
    self.is_broken = False
    return super().read(min(n, 7))  # short reads, as sockets give them


class FlakyFileSystem(MemoryFileSystem):
  """Fails at each request for which `failures` has an exception."""

  protocol = "flaky"
  store: ClassVar[dict] = {}
  failures: ClassVar[list] = []

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(path.removeprefix("flaky:/"))

  @classmethod
  def fail(cls):
    error = cls.failures.pop(0) if cls.failures else None
    if error is not None:
      raise error

  def _open(self, path, mode="rb", **kwargs):
    self.fail()
    handle = super()._open(path, mode, **kwargs)
    return FlakyFile(handle.getvalue()) if mode == "rb" else handle


class ClientError(Exception):
  """Object stores' clients have classes of their own."""


@pytest.fixture
def flaky():
  fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
  FlakyFileSystem.store.clear()
  yield FlakyFileSystem
  FlakyFileSystem.failures = []


LINES = [f"line {i} of the file" for i in range(20)]
TRANSIENT = [OSError(5, "Input/output error"), TimeoutError("slow"), ConnectionResetError("reset"), ClientError("503")]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.parquet"])
@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_transient_errors_lose_and_repeat_nothing(flaky, tmp_path, name, error):
  data = "\n".join(LINES).encode()
  if name == "a.parquet":
    write_parquet(tmp_path / name, 5, text=LINES)
    data = (tmp_path / name).read_bytes()
  fsspec.filesystem("flaky").pipe(f"/in/{name}", gzip.compress(data) if name.endswith("gz") else data)
  options = ReadOptions()
  files = list_files([f"flaky://in/{name}"], options)
  pauses = []
  for n_good in range(0, 40, 3):
    flaky.failures = [None] * n_good + [error] * 3 + [None] * 2 + [error] * 3
    rows = [r for piece in cut_slices(files, 50) for r in read_slice(files[0], 0, piece, options, sleep=pauses.append)]
    assert [row.text for row in rows] == LINES
  assert set(pauses) == {1.0, 4.0, 16.0}


def test_an_error_that_stays_fails_the_file_and_no_row(flaky):
  fsspec.filesystem("flaky").pipe("/in/a.txt", b"a\nb\n")
  file = list_files(["flaky://in/a.txt"], ReadOptions())[0]
  flaky.failures = [OSError(5, "Input/output error")] * 4
  pauses = []
  with pytest.raises(InputFileError) as error:
    list(read_slice(file, 0, Slice(0), ReadOptions(), sleep=pauses.append))
  assert str(error.value) == (
    "a.txt cannot be read (OSError: [Errno 5] Input/output error): mend it, or --allow-bad-files counts such files and "
    "goes on"
  )
  assert pauses == [1.0, 4.0, 16.0]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), IsADirectoryError(21, "Is a directory")])
def test_a_permanent_error_is_not_tried_again(flaky, error):
  fsspec.filesystem("flaky").pipe("/in/a.txt", b"a\nb\n")
  file = list_files(["flaky://in/a.txt"], ReadOptions())[0]
  flaky.failures = [error]
  with pytest.raises(InputFileError, match=r"^a\.txt cannot be read \("):
    list(read_slice(file, 0, Slice(0), ReadOptions(), sleep=no_sleep))


def test_a_mistake_of_ours_is_not_taken_for_the_file_systems(flaky):
  fsspec.filesystem("flaky").pipe("/in/a.txt", b"a\nb\n")
  file = list_files(["flaky://in/a.txt"], ReadOptions())[0]
  flaky.failures = [TypeError("a bug")]
  with pytest.raises(TypeError, match="a bug"):
    list(read_slice(file, 0, Slice(0), ReadOptions(), sleep=no_sleep))


@pytest.mark.parametrize(("seconds", "tries"), [(0.1, 4), (9.0, 3), (33.0, 1)])
def test_a_place_whose_client_tries_for_long_itself_is_not_asked_four_times(seconds, tries):
  """Seconds that each try takes; 30 are what a listing has for all."""
  now, tried = [0.0], []

  def sleep(pause):
    now[0] += pause

  def ask():
    tried.append(now[0])
    sleep(seconds)
    raise ConnectionError("no route")

  with pytest.raises(InputFileError, match="no route"):
    with_retries("gs://b/*", ask, patience=30.0, sleep=sleep, clock=lambda: now[0])
  assert len(tried) == tries
