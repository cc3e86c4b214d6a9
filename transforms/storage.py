"""Files of a dataset: written whole or not at all, never half seen.

A dataset lives only on file systems whose exclusive creation has been proved (`ALLOWED_PROTOCOLS`); fsspec's generic
`mode="create"` checks and then writes, so that two publishers can both win. Input may come from anywhere.
"""

import contextlib
import errno
import hashlib
import mmap
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import fsspec

from transforms.errors import StoreError, UsageError

ALLOWED_PROTOCOLS = ("file", "local")
_TEMPORARY = ".tmp-"
# What a file system says that has no hard links: then creation is exclusive, but not whole in one step.
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK))


def sha256(data: bytes) -> str:
  """Returns the hexadecimal sha256 of `data`."""
  return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class StoredFile:
  """One immutable file that a worker wrote; `path` is relative to the dataset, `rows` counts its documents."""

  path: str
  rows: int
  bytes: int
  sha256: str


@dataclass(frozen=True)
class Storage:
  """The root folder of a dataset; every path given to its methods is relative to it, with '/' between parts."""

  root: str

  @classmethod
  def at(cls, url: str) -> "Storage":
    """Returns the storage at a path or URL.

    Raises:
      UsageError: the file system cannot create a file exclusively, so nothing could be published safely on it.
    """
    protocol, path = fsspec.core.split_protocol(url)
    if protocol not in (None, *ALLOWED_PROTOCOLS):
      raise UsageError(
        f"dataset {url!r}: {protocol!r} is not a file system that a dataset can live on "
        f"(it can on: {', '.join(ALLOWED_PROTOCOLS)}); choose a local folder for --dataset, input may be anywhere"
      )
    return cls(str(Path(path).expanduser().absolute()))

  def path(self, relative: str) -> Path:
    """Returns where `relative` lies; a manifest is input, so a path that leaves the dataset is refused."""
    path = Path(self.root, relative)
    if Path(relative).is_absolute() or ".." in Path(relative).parts:
      raise StoreError(f"{self.root}: {relative!r} is outside the dataset; its manifest was edited or is not ours")
    return path

  def read(self, relative: str) -> bytes:
    """Returns the bytes of a file; raises FileNotFoundError."""
    return self.path(relative).read_bytes()

  def open(self, relative: str) -> BinaryIO:
    """Opens a file for reading at any place, without reading it whole; raises FileNotFoundError."""
    return self.path(relative).open("rb")

  def map(self, relative: str) -> memoryview:
    """Returns the bytes of a file without holding them: a page is read when it is looked at, and can be given back."""
    with self.open(relative) as file:
      if not os.fstat(file.fileno()).st_size:
        return memoryview(b"")  # which cannot be mapped
      return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

  def exists(self, relative: str) -> bool:
    """Says whether there is such a file or folder."""
    return self.path(relative).exists()

  def size(self, relative: str) -> int | None:
    """Returns the bytes of a file; None if there is none."""
    try:
      return self.path(relative).stat().st_size
    except FileNotFoundError:
      return None

  def modified(self, relative: str) -> float | None:
    """Returns when a file was last written, in seconds since 1970; None if there is none."""
    try:
      return self.path(relative).stat().st_mtime
    except FileNotFoundError:
      return None

  def names(self, folder: str) -> list[str]:
    """Returns the sorted names of what lies whole in `folder`; a folder that is not there holds nothing."""
    try:
      return sorted(name for name in os.listdir(self.path(folder)) if not name.startswith("."))  # noqa: PTH208
    except FileNotFoundError:
      return []

  def walk(self, folder: str) -> list[str]:
    """Returns the sorted paths of all files below `folder`, hidden and half-written ones too."""
    root = Path(self.root)
    return sorted(p.relative_to(root).as_posix() for p in self.path(folder).rglob("*") if p.is_file())

  def write(self, relative: str, data: bytes) -> None:
    """Writes a file whole: what stood under this name before is replaced in one step.

    Callers give each immutable file a name of its own or one made from its content, so a replacement is the same bytes.
    """
    with _explained(relative):
      temporary = self._write_temporary(relative, data)
      _rename(temporary, self.path(relative))

  def create(self, relative: str, data: bytes) -> None:
    """Writes a file whole if, and only if, none stands under this name: of two who try, one wins.

    Raises:
      FileExistsError: somebody was first.
    """
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

  def write_content(self, folder: str, name: str, suffix: str, data: bytes, rows: int) -> StoredFile:
    """Writes an immutable file named after its content, so that whoever does the work twice writes the same name."""
    digest = sha256(data)
    stored = StoredFile(f"{folder}/{name}-{digest[:16]}{suffix}", rows, len(data), digest)
    self.write(stored.path, data)
    return stored

  def write_stream(self, folder: str, name: str, suffix: str, write: Callable[[BinaryIO], int]) -> StoredFile | None:
    """Writes an immutable file named after its content, piece by piece: memory holds no more than `write` does.

    Args:
      folder: to write it in.
      name: what its name begins with.
      suffix: what it ends with.
      write: is given the file, writes forwards only, and returns the number of rows.

    Returns:
      The file; None, and no file, for no rows.
    """
    with _explained(f"{folder}/{name}"):
      temporary = self._new_temporary(f"{folder}/{name}")
      rows = _write_new(temporary, write)
      if not rows:
        temporary.unlink()
        return None
      with temporary.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
      stored = StoredFile(f"{folder}/{name}-{digest[:16]}{suffix}", rows, temporary.stat().st_size, digest)
      _rename(temporary, self.path(stored.path))
    return stored

  def remove(self, relative: str) -> None:
    """Removes a file; one that is gone already is as good."""
    with contextlib.suppress(FileNotFoundError):
      self.path(relative).unlink()

  def remove_folder(self, relative: str) -> None:
    """Removes a folder with all that is in it; safe to repeat."""
    for path in self.walk(relative):
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
