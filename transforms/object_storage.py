"""A dataset's files on an object store: one request writes a whole object, so nothing is ever seen half.

The service decides who is first: an object is created by a PUT with `If-None-Match: *`. Each request is repeated while
its failure may pass, here and nowhere else: the loops of s3fs and botocore would multiply, and neither knows that the
answer to a creation may have been lost.
"""

import contextlib
import errno
import functools
import io
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, TypeVar, cast

from transforms.errors import SorbusError, StoreError, UsageError
from transforms.local_storage import N, mapped
from transforms.object_errors import PATIENCE_SECONDS, explain, is_missing, is_taken, persist

# A service that has not answered yet is more often misspelt than overloaded.
FIRST_PATIENCE_SECONDS = 15.0
CONNECT_SECONDS, READ_SECONDS = 10, 60
# What is sent in one request, and held in memory for it. What is larger is sent in parts, and is there when all are.
PART_BYTES = 64 << 20
# The least that is read at once: a Parquet footer, or a column of digests.
_READ_BYTES = 256 << 10
_KEYS_PER_REMOVAL = 1000
_ATTEMPT = "sorbus-attempt"

T = TypeVar("T")


class _Service:
  """The client of this process, shared by its threads."""

  def __init__(self) -> None:
    try:
      import s3fs
    except ImportError as error:
      raise UsageError("a dataset on s3:// needs the package s3fs: pip install 'sorbus[s3]'") from error
    self.fs = s3fs.S3FileSystem(
      config_kwargs={
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "max_pool_connections": 32,
      },
      use_listings_cache=False,  # another process writes too
      skip_instance_cache=True,
    )
    self.fs.retries = 1  # of s3fs's own loop
    self.has_answered = False

  def ask(self, action: Callable[[Any], T]) -> T:
    """Returns what `action` returns of the file system, tried again while its failure may pass."""
    answer = persist(lambda: action(self.fs), PATIENCE_SECONDS if self.has_answered else FIRST_PATIENCE_SECONDS)
    self.has_answered = True
    return answer


@functools.cache
def service(process: int) -> _Service:
  """Returns the client of this process: a fork must not use its parent's connections."""
  return _Service()


@dataclass(frozen=True)
class ObjectFolder:
  """The objects below `s3://bucket/prefix`; `transforms.storage.Storage` says what each method does."""

  root: str

  rewrite_seconds: ClassVar[float] = 15.0

  def read(self, relative: str) -> bytes:
    """Returns the bytes of an object; raises FileNotFoundError."""
    path = f"{self._bucket}/{self._key(relative)}"
    data = self._ask(relative, "read", lambda fs: fs.cat_file(path, max_concurrency=1))
    return cast(bytes, data)

  def read_range(self, relative: str, start: int, stop: int) -> bytes:
    """Returns bytes `start` to `stop` of an object; raises FileNotFoundError."""
    path = f"{self._bucket}/{self._key(relative)}"
    return cast(bytes, self._ask(relative, "read", lambda fs: fs.cat_file(path, start=start, end=stop)))

  def open(self, relative: str) -> BinaryIO:
    """Opens an object for reading at any place; raises FileNotFoundError."""
    reader = _ObjectReader(self, relative, self._head(relative)["ContentLength"])
    return cast(BinaryIO, io.BufferedReader(reader, _READ_BYTES))

  def map(self, relative: str) -> memoryview:
    """Returns the bytes of an object, mapped from a copy on this machine's disk that ends with its use."""
    with self.open(relative) as file, _disk_explained(relative), _anonymous_file() as copy:
      while piece := file.read(PART_BYTES):
        copy.write(piece)
      copy.flush()
      return mapped(copy)

  def exists(self, relative: str) -> bool:
    """Says whether there is such an object, or one below it."""
    if relative and self._find(relative) is not None:
      return True
    page = next(self._pages(relative, Prefix=self._below(relative), MaxKeys=1))
    return bool(page.get("Contents"))

  def size(self, relative: str) -> int | None:
    """Returns the bytes of an object; None if there is none."""
    found = self._find(relative)
    return None if found is None else int(found["ContentLength"])

  def modified(self, relative: str) -> float | None:
    """Returns when an object was last written, to the second and by the service's clock; None if there is none."""
    found = self._find(relative)
    return None if found is None else float(found["LastModified"].timestamp())

  def names(self, folder: str) -> list[str]:
    """Returns the sorted names in `folder`, but for those that begin with a dot."""
    below = self._below(folder)
    names = set()
    for page in self._pages(folder, Prefix=below, Delimiter="/"):
      names |= {found["Key"].removeprefix(below) for found in page.get("Contents", ())}
      names |= {found["Prefix"].removeprefix(below).rstrip("/") for found in page.get("CommonPrefixes", ())}
    return sorted(name for name in names if name and not name.startswith("."))

  def sizes(self, folder: str) -> dict[str, int]:
    """Returns the bytes of all objects below `folder` by path."""
    root, found = self._below(""), self._listed(folder)
    return {each["Key"].removeprefix(root): each["Size"] for each in found if not each["Key"].endswith("/")}

  def write(self, relative: str, data: bytes) -> None:
    """Writes an object whole, in place of what stood there."""
    self._send(relative, io.BytesIO(data), len(data))

  def create(self, relative: str, data: bytes) -> None:
    """Writes an object whole if there is none; raises FileExistsError.

    When an answer is lost the request is sent again, and finds what it has written itself: whose it is, its label says.
    """
    mine = uuid.uuid4().hex
    try:
      self._create_labelled(relative, data, {_ATTEMPT: mine})
    except FileExistsError:
      found = self._find(relative)  # None: it was somebody's, who has removed it since
      if found is None or found.get("Metadata", {}).get(_ATTEMPT) != mine:
        raise

  def _create_labelled(self, relative: str, data: bytes, label: dict[str, str]) -> None:
    """Sends the request of `create`, whose object gets the label; raises FileExistsError."""
    self._call("put_object", relative, "written", Body=data, IfNoneMatch="*", Metadata=label)

  def write_stream(
    self, beside: str, write: Callable[[BinaryIO], int], named: Callable[[BinaryIO, int], N]
  ) -> N | None:
    """Builds a file on this machine's disk, nameless, and sends it under the name that its content gives it."""
    with _disk_explained(beside):
      file = _anonymous_file()
    with file:
      with _disk_explained(beside):
        rows = write(file)
        if not rows:
          return None
        file.seek(0)
        stored = named(file, rows)
        size = file.tell()
        file.seek(0)
      self._send(stored.path, file, size)
    return stored

  def remove(self, relative: str) -> None:
    """Removes an object; one that is gone already is as good."""
    self._call("delete_object", relative, "removed")

  def remove_folder(self, relative: str) -> None:
    """Removes all objects below a folder."""
    keys = [found["Key"] for found in self._listed(relative)]
    for start in range(0, len(keys), _KEYS_PER_REMOVAL):
      chosen = [{"Key": key} for key in keys[start : start + _KEYS_PER_REMOVAL]]
      answer = self._call("delete_objects", relative, "removed", Delete={"Objects": chosen, "Quiet": True})
      for failed in answer.get("Errors", ()):
        self.remove(failed["Key"].removeprefix(self._below("")))  # alone: it is tried again, or told why not

  @property
  def _bucket(self) -> str:
    return self.root.split("/")[2]

  def _key(self, relative: str) -> str:
    prefix = "/".join(self.root.split("/")[3:])
    return "/".join(part for part in (prefix, relative) if part)

  def _below(self, folder: str) -> str:
    key = self._key(folder)
    return f"{key}/" if key else ""

  def _head(self, relative: str) -> dict[str, Any]:
    return cast(dict[str, Any], self._call("head_object", relative, "read"))

  def _find(self, relative: str) -> dict[str, Any] | None:
    try:
      return self._head(relative)
    except FileNotFoundError:
      return None

  def _pages(self, folder: str, **request: Any) -> Iterator[dict[str, Any]]:
    while True:
      page = self._call("list_objects_v2", folder, "listed", **request)
      yield page
      if not page.get("IsTruncated"):
        return
      request["ContinuationToken"] = page["NextContinuationToken"]

  def _listed(self, folder: str) -> Iterator[dict[str, Any]]:
    """Yields all objects below `folder`, also those by which consoles stand for one: "a/"."""
    for page in self._pages(folder, Prefix=self._below(folder)):
      yield from page.get("Contents", ())

  def _send(self, relative: str, file: BinaryIO, size: int) -> None:
    """Writes an object from a file, in one request or, where it is large, in parts that become one at the end."""
    if size <= PART_BYTES:
      self._call("put_object", relative, "written", Body=file.read())
      return
    upload = self._call("create_multipart_upload", relative, "written")["UploadId"]
    try:
      parts: list[dict[str, Any]] = []
      while data := file.read(PART_BYTES):
        number = len(parts) + 1
        sent = self._call("upload_part", relative, "written", UploadId=upload, PartNumber=number, Body=data)
        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
      self._complete(relative, upload, parts, size)
    except BaseException:
      with contextlib.suppress(SorbusError, FileNotFoundError):
        self._call("abort_multipart_upload", relative, "written", UploadId=upload)
      raise

  def _complete(self, relative: str, upload: str, parts: list[dict[str, Any]], size: int) -> None:
    try:
      self._call("complete_multipart_upload", relative, "written", UploadId=upload, MultipartUpload={"Parts": parts})
    except FileNotFoundError:  # no such upload: done already, by a request whose answer was lost
      if self.size(relative) != size:
        raise

  def _call(self, method: str, relative: str, done: str, **request: Any) -> Any:
    """Sends one request about an object, or, where it is about several, about the bucket."""
    if method not in ("list_objects_v2", "delete_objects"):
      request["Key"] = self._key(relative)
    return self._ask(relative, done, lambda fs: fs.call_s3(method, Bucket=self._bucket, **request))

  def _ask(self, relative: str, done: str, action: Callable[[Any], T]) -> T:
    """Returns what the service answers.

    Raises:
      FileNotFoundError: there is no such object.
      FileExistsError: there is one already, of a conditional request.
      SorbusError: anything else that is not a bug of ours.
    """
    try:
      return service(os.getpid()).ask(action)
    except SorbusError:
      raise
    except Exception as error:
      if is_missing(error):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.root}/{relative}") from error
      if is_taken(error):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), f"{self.root}/{relative}") from error
      if type(error).__module__ == "builtins" and not isinstance(error, OSError | ValueError):
        raise  # a bug of ours
      raise explain(error, self.root, relative, done) from error


def _anonymous_file() -> BinaryIO:
  """Returns a file on this machine's disk that has no name, so that a killed process leaves nothing."""
  return cast(BinaryIO, tempfile.TemporaryFile())


@contextlib.contextmanager
def _disk_explained(relative: str) -> Iterator[None]:
  """Turns what this machine's disk says into one line."""
  try:
    yield
  except OSError as error:
    why = error.strerror or str(error)
    raise StoreError(
      f"{relative}: cannot be kept in {tempfile.gettempdir()} on its way ({why}); make room, or set TMPDIR"
    ) from error


class _ObjectReader(io.RawIOBase):
  """An object as a file: each read is a request for just those bytes."""

  def __init__(self, folder: ObjectFolder, relative: str, size: int):
    super().__init__()
    self._folder, self._relative, self._size, self._at = folder, relative, size, 0

  def readable(self) -> bool:
    """It is."""
    return True

  def seekable(self) -> bool:
    """It is."""
    return True

  def tell(self) -> int:
    """Returns where the next read begins."""
    return self._at

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    """Goes to a place, which may be behind the end, and returns it."""
    self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
    return self._at

  def readinto(self, buffer: Any) -> int:
    """Fills the buffer as far as there is something, and returns how far."""
    stop = min(self._at + len(buffer), self._size)
    if stop <= self._at:
      return 0
    data = self._folder.read_range(self._relative, self._at, stop)
    buffer[: len(data)] = data
    self._at += len(data)
    return len(data)
