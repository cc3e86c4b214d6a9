"""A dataset's files on this machine, or on what is mounted: temporary name, fsync, then rename or link."""

import contextlib
import errno
import mmap
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol, TypeVar

from transforms.errors import StoreError

_TEMPORARY = ".tmp-"
# What a file system says that has no hard links: then creation is exclusive, but not whole in one step.
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK))


class Named(Protocol):
  """What a stream is called in the end."""

  @property
  def path(self) -> str:
    """Relative to the dataset."""


N = TypeVar("N", bound=Named)


@dataclass(frozen=True)
class LocalFolder:
  """The files below a local folder; `transforms.storage.Storage` says what each method does."""

  root: str

  rewrite_seconds: ClassVar[float] = 1.0

  def path(self, relative: str) -> Path:
    """Returns where `relative` lies."""
    return Path(self.root, relative)

  def read(self, relative: str) -> bytes:
    """Returns the bytes of a file; raises FileNotFoundError."""
    return self.path(relative).read_bytes()

  def open(self, relative: str) -> BinaryIO:
    """Opens a file for reading at any place; raises FileNotFoundError."""
    return self.path(relative).open("rb")

  def map(self, relative: str) -> memoryview:
    """Returns the bytes of a file, mapped."""
    with self.open(relative) as file:
      return mapped(file)

  def exists(self, relative: str) -> bool:
    """Says whether there is such a file or folder."""
    return self.path(relative).exists()

  def size(self, relative: str) -> int | None:
    """Returns the bytes of a file; None if there is none."""
    found = self._stat(relative)
    return found.st_size if found else None

  def modified(self, relative: str) -> float | None:
    """Returns when a file was last written; None if there is none."""
    found = self._stat(relative)
    return found.st_mtime if found else None

  def _stat(self, relative: str) -> os.stat_result | None:
    try:
      found = self.path(relative).stat()
    except (FileNotFoundError, NotADirectoryError):
      return None
    return found if stat.S_ISREG(found.st_mode) else None

  def names(self, folder: str) -> list[str]:
    """Returns the sorted names in `folder`; what begins with a dot is hidden, such as a file half written."""
    try:
      return sorted(name for name in os.listdir(self.path(folder)) if not name.startswith("."))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
      return []

  def sizes(self, folder: str) -> dict[str, int]:
    """Returns the bytes of all files below `folder` by path; what is removed meanwhile is left out."""
    root = Path(self.root)
    paths = [path.relative_to(root).as_posix() for path in self.path(folder).rglob("*") if path.is_file()]
    return {path: size for path in paths if (size := self.size(path)) is not None}

  def write(self, relative: str, data: bytes) -> None:
    """Writes a file whole, in place of what stood there."""
    with _explained(relative):
      temporary = self._write_temporary(relative, data)
      _rename(temporary, self.path(relative))

  def create(self, relative: str, data: bytes) -> None:
    """Writes a file whole if there is none, by a hard link, which never replaces; raises FileExistsError."""
    with _explained(relative):
      temporary = self._write_temporary(relative, data)
      try:
        os.link(temporary, self.path(relative))
      except OSError as error:
        if error.errno not in _NO_LINKS:
          raise
        _write_new(self.path(relative), lambda file: file.write(data))
      finally:
        temporary.unlink()
      _sync_folder(temporary.parent)

  def write_stream(
    self, beside: str, write: Callable[[BinaryIO], int], named: Callable[[BinaryIO, int], N]
  ) -> N | None:
    """Builds a file under a hidden name, then renames it to the one that its content gives it."""
    with _explained(beside):
      temporary = self._new_temporary(beside)
      rows = _write_new(temporary, write)
      if not rows:
        temporary.unlink()
        return None
      with temporary.open("rb") as file:
        stored = named(file, rows)
      _rename(temporary, self.path(stored.path))
    return stored

  def remove(self, relative: str) -> None:
    """Removes a file; one that is gone already is as good."""
    with contextlib.suppress(FileNotFoundError):
      self.path(relative).unlink()

  def remove_folder(self, relative: str) -> None:
    """Removes a folder with all that is in it."""
    for path in self.sizes(relative):
      self.remove(path)
    shutil.rmtree(self.path(relative), ignore_errors=True)  # what is left of it are folders

  def _write_temporary(self, relative: str, data: bytes) -> Path:
    """Writes and syncs `data` beside its destination, under a hidden name of its own."""
    temporary = self._new_temporary(relative)
    _write_new(temporary, lambda file: file.write(data))
    return temporary

  def _new_temporary(self, relative: str) -> Path:
    target = self.path(relative)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")


def mapped(file: BinaryIO) -> memoryview:
  """Returns the bytes of an open file, mapped: they stay when it is closed, and even when it is deleted."""
  if not os.fstat(file.fileno()).st_size:
    return memoryview(b"")  # which cannot be mapped
  return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _write_new(path: Path, write: Callable[[BinaryIO], int]) -> int:
  """Creates, fills and syncs a file, and returns what `write` returns; raises FileExistsError if there is one."""
  with path.open("xb") as file:
    try:
      written = write(file)
      file.flush()
      _sync(file.fileno())
    except BaseException:  # a full disk or Ctrl-C: the half that is there must not stay
      path.unlink(missing_ok=True)
      raise
  return written


def _rename(temporary: Path, path: Path) -> None:
  """Gives a finished file its name, for good; one that could not be renamed must not stay."""
  try:
    temporary.replace(path)
  except OSError:
    temporary.unlink(missing_ok=True)
    raise
  _sync_folder(path.parent)


@contextlib.contextmanager
def _explained(relative: str) -> Iterator[None]:
  """Turns what the file system says on writing into one line; FileExistsError is an answer and goes through."""
  try:
    yield
  except FileExistsError:
    raise
  except OSError as error:
    why = error.strerror or str(error)
    raise StoreError(
      f"{relative}: cannot be written ({why}); mend that and run again: what is there is kept"
    ) from error


def _sync(descriptor: int) -> None:
  os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
  """Makes a rename or link durable: without it a power cut can take the name back."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    _sync(descriptor)
  finally:
    os.close(descriptor)
