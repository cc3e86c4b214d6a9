"""The bytes of one input file: what was listed or an error, never something in between.

Transient errors of the file system are met here, below decompression and parsing: the file is opened again and reading
goes on at the byte where it stopped, so that nobody above can see a row twice or miss one.
"""

from __future__ import annotations

import bz2
import gzip
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import pyarrow as pa

from transforms.errors import InputFileError, SorbusError, UsageError
from transforms.input_types import Compression, InputFile
from transforms.object_errors import credentials_problem
from transforms.places import file_system

T = TypeVar("T")
Sleep = Callable[[float], object]

# Three more tries: long enough for a dropped connection or a throttled store, short enough for a person to wait.
RETRY_SECONDS: Final = (1.0, 4.0, 16.0)
READ_BYTES: Final = 1 << 20

REMEDY: Final = "mend it, or --allow-bad-files counts such files and goes on"

# In the order of trust; which of them a file system has differs.
_VERSION_KEYS: Final = (
  "etag",
  "generation",
  "md5hash",
  "content_md5",
  "checksum",
  "mtime",
  "lastmodified",
  "last_modified",
  "updated",
  "modified",
  "created",
)
_PERMANENT: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


class Readable(Protocol):
  """Anything with `read`."""

  def read(self, n: int, /) -> bytes:
    """Return up to n bytes; none at the end only."""


class InputSource:
  """The stored bytes of a listed file, seekable; each opening checks that it still is what was listed.

  Raises:
    InputFileError: on reading, if the file changed or vanished, or cannot be read after three more tries.
  """

  closed = False

  def __init__(self, file: InputFile, storage: Mapping[str, Any], *, sleep: Sleep = time.sleep) -> None:
    self.file = file
    self._sleep = sleep
    self._fs, self._path = file_system(file.url, storage)
    self._handle: Any = None
    self._at = 0

  def read(self, n: int = -1) -> bytes:
    """Return exactly n bytes, or what is left; never more than was listed."""
    left = max(0, self.file.size - self._at)
    wanted = left if n < 0 else min(n, left)
    pieces = []
    while wanted:
      pieces.append(self._again(partial(self._read_once, wanted)))
      self._at += len(pieces[-1])
      wanted -= len(pieces[-1])
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)

  def seek(self, offset: int, whence: int = 0) -> int:
    """Move to a byte offset, counted from the start (0), here (1) or the end (2)."""
    self._at = offset + (0, self._at, self.file.size)[whence]
    return self._at

  def tell(self) -> int:
    """Return the byte offset."""
    return self._at

  def readable(self) -> bool:
    """Say yes, as a file does."""
    return True

  def seekable(self) -> bool:
    """Say yes, as a file does."""
    return True

  def close(self) -> None:
    """Close the file; reading again would open it again."""
    handle, self._handle = self._handle, None
    if handle is not None:
      handle.close()

  def verify(self) -> None:
    """Check that the file is what was listed.

    Raises:
      InputFileError: if it is not, or if that cannot be found out.
    """
    self._again(self._verify_once)

  def _verify_once(self) -> None:
    listed, now = (self.file.size, self.file.version), file_facts(self._fs, self._path)
    if now != listed:
      raise InputFileError(
        f"{self.file.name} changed since it was listed (size, version: {listed} then, {now} now): run again, "
        "or --allow-bad-files counts such files and goes on"
      )

  def _read_once(self, n: int) -> bytes:
    try:
      if self._handle is None:
        self._verify_once()
        self._handle = self._fs.open(self._path, "rb")
      self._handle.seek(self._at)
      data: bytes = self._handle.read(n)
    except BaseException:
      self._handle = None
      raise
    if not data:
      self._handle = None
      raise ConnectionError(f"nothing more at byte {self._at} of {self.file.size}")
    return data

  def _again(self, action: Callable[[], T]) -> T:
    return with_retries(self.file.name, action, sleep=self._sleep)


def with_retries(
  name: str,
  action: Callable[[], T],
  *,
  remedy: str = REMEDY,
  patience: float = math.inf,
  sleep: Sleep = time.sleep,
  clock: Callable[[], float] = time.monotonic,
) -> T:
  """Return what `action` returns; call it up to three times more if the file system fails in a way that may pass.

  Args:
    name: of what is asked for.
    action: what to do.
    remedy: what a person is told to do.
    patience: seconds after which it is not called again, for file systems that try for long themselves.
    sleep: for tests.
    clock: for tests.

  Raises:
    InputFileError: if it fails for good; the message has `name` and the remedy.
    UsageError: if it fails for want of credentials, which are no fault of the file.
  """
  stop = clock() + patience
  for pause in (*RETRY_SECONDS, None):
    try:
      return action()
    except SorbusError:
      raise
    except FileNotFoundError as error:
      raise InputFileError(f"{name} is not there: {remedy}") from error
    except Exception as error:
      if not _is_of_storage(error):
        raise
      if problem := credentials_problem(error):
        raise UsageError(f"{name}: {problem}") from error
      if pause is None or clock() + pause > stop or isinstance(error, _PERMANENT):
        raise InputFileError(f"{name} cannot be read ({_one_line(error)}): {remedy}") from error
      sleep(pause)
  raise AssertionError(name)


def _is_of_storage(error: Exception) -> bool:
  # The clients of object stores raise classes of their own that are no OSError; a builtin TypeError is a bug of ours.
  return isinstance(error, OSError) or type(error).__module__ != "builtins"


def _one_line(error: BaseException) -> str:
  return " ".join(f"{type(error).__name__}: {error}".split())


def file_facts(fs: Any, path: str) -> tuple[int | None, str]:
  """Return (size in bytes, version) of a file as the file system says now, not as it remembers."""
  fs.invalidate_cache(path)
  info = {str(key).lower(): value for key, value in fs.info(path).items()}
  version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key) is not None), "")
  return info.get("size"), version.strip('"')


def decompressed(source: InputSource, compression: Compression | None) -> Readable:
  """Return the decompressed bytes of `source`, read in bounded memory.

  Raises:
    InputFileError: on reading, if the compressed data is damaged or ends too early.
  """
  return source if compression is None else _Decompressed(source, compression)


class _Decompressed:
  def __init__(self, source: InputSource, compression: Compression) -> None:
    self._name = source.file.name
    # A writer that died leaves 0 bytes, which no compressor makes of anything; the libraries take it for an empty file.
    self._is_void = source.file.size == 0
    self._stream: Readable
    if compression == "gzip":
      self._stream = gzip.GzipFile(fileobj=source, mode="rb")
    elif compression == "bz2":
      self._stream = _Bz2Streams(source)
    else:
      # The zstandard package takes the end of the file for the end of the data, and stops after the first frame.
      self._stream = pa.CompressedInputStream(pa.PythonFile(source, mode="r"), "zstd")

  def read(self, n: int, /) -> bytes:
    try:
      if self._is_void:
        raise EOFError("the file is empty")
      return self._stream.read(n)
    except SorbusError:
      raise
    except Exception as error:  # each library has its own classes; storage errors are InputFileErrors already
      is_short = isinstance(error, EOFError) or "truncated" in str(error).lower()
      what = "ends in the middle of its compression" if is_short else f"is damaged ({_one_line(error)})"
      raise InputFileError(f"{self._name} {what}: {REMEDY}") from error


class _Bz2Streams:
  """Reads one bz2 stream after another, to the last byte.

  pyarrow loses what follows an empty stream, and `bz2.BZ2File` takes a damaged second stream for the end of the file.
  """

  def __init__(self, source: InputSource) -> None:
    self._source = source
    self._stream = bz2.BZ2Decompressor()
    self._is_fresh = True

  def read(self, n: int, /) -> bytes:
    while True:
      data = self._stream.unused_data if self._stream.eof else b""
      if self._stream.eof:
        self._stream, self._is_fresh = bz2.BZ2Decompressor(), True
      if not data and self._stream.needs_input:
        data = self._source.read(READ_BYTES)
        if not data and self._is_fresh:
          return b""
        if not data:
          raise EOFError("the last bz2 stream has no end")
      self._is_fresh = False
      out = self._stream.decompress(data, n)
      if out:
        return out
