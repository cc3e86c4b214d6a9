"""Files of a dataset: written whole or not at all, never half seen; on this machine or on an object store.

A dataset lives only on file systems whose exclusive creation has been proved (`ALLOWED_PROTOCOLS`); fsspec's generic
`mode="create"` checks and then writes, so that two publishers can both win. Input may come from anywhere.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

import fsspec

from transforms.errors import StoreError, UsageError
from transforms.gcs_storage import GcsFolder
from transforms.local_storage import LocalFolder
from transforms.object_storage import ObjectFolder
from transforms.url_secrets import check_no_secret

ALLOWED_PROTOCOLS = ("file", "local", "s3", "gs")
_OBJECT_STORES = {"s3": ObjectFolder, "gs": GcsFolder}
# A request to an object store takes about as long for 100 kB as for 1 byte.
_HASH_BYTES = 8 << 20


def sha256(data: bytes) -> str:
  """Returns the hexadecimal sha256 of `data`."""
  return hashlib.sha256(data).hexdigest()


def sha256_of_file(file: BinaryIO) -> str:
  """Returns the hexadecimal sha256 of what a file has from here to its end, read in pieces."""
  digest = hashlib.sha256()
  while piece := file.read(_HASH_BYTES):
    digest.update(piece)
  return digest.hexdigest()


@dataclass(frozen=True)
class StoredFile:
  """One immutable file that a worker wrote; `path` is relative to the dataset, `rows` counts its documents."""

  path: str
  rows: int
  bytes: int
  sha256: str


class Folder(Protocol):
  """What a place for datasets has to do; the methods of `Storage` say it in full."""

  @property
  def rewrite_seconds(self) -> float:
    """How long to wait, in seconds, before a small file is written again."""

  def read(self, relative: str) -> bytes:
    """Returns the bytes of a file; raises FileNotFoundError."""

  def open(self, relative: str) -> BinaryIO:
    """Opens a file for reading at any place."""

  def map(self, relative: str) -> memoryview:
    """Returns the bytes of a file, on disk."""

  def exists(self, relative: str) -> bool:
    """Says whether there is such a file or folder."""

  def size(self, relative: str) -> int | None:
    """Returns the bytes of a file; None if there is none."""

  def modified(self, relative: str) -> float | None:
    """Returns when a file was last written."""

  def names(self, folder: str) -> list[str]:
    """Returns the sorted names of what lies in `folder`, but for hidden ones."""

  def sizes(self, folder: str) -> dict[str, int]:
    """Returns the bytes of all files below `folder`."""

  def write(self, relative: str, data: bytes) -> None:
    """Writes a file whole."""

  def create(self, relative: str, data: bytes) -> None:
    """Writes a file whole if there is none; raises FileExistsError."""

  def write_stream(
    self, beside: str, write: Callable[[BinaryIO], int], named: Callable[[BinaryIO, int], StoredFile]
  ) -> StoredFile | None:
    """Writes a file whose name is known last; `named` is given the file, at its start, and the number of rows."""

  def remove(self, relative: str) -> None:
    """Removes a file."""

  def remove_folder(self, relative: str) -> None:
    """Removes all that is in a folder."""


@dataclass(frozen=True)
class Storage:
  """The root folder of a dataset; every path given to its methods is relative to it, with '/' between parts.

  Pickled it is its root alone: connections and credentials are those of the process that uses it.
  """

  root: str

  @classmethod
  def at(cls, url: str) -> "Storage":
    """Returns the storage at a path or URL; nothing is asked of an object store yet.

    Raises:
      UsageError: the file system cannot create a file exclusively, so nothing could be published safely on it; or
        there is a secret in the URL.
    """
    check_no_secret(url, "dataset")
    protocol, path = fsspec.core.split_protocol(url)
    if protocol in _OBJECT_STORES:
      return cls(f"{protocol}://{_bucket_and_prefix(url, path)}")
    if protocol not in (None, *ALLOWED_PROTOCOLS):
      raise UsageError(
        f"dataset {url!r}: {protocol!r} is not a file system that a dataset can live on "
        f"(it can on: {', '.join(ALLOWED_PROTOCOLS)}); choose a local folder, s3://BUCKET/PREFIX or "
        "gs://BUCKET/PREFIX for --dataset, input may be anywhere"
      )
    return cls(str(Path(path).expanduser().absolute()))

  @property
  def rewrite_seconds(self) -> float:
    """How long to wait, in seconds, before a small file is written again: a request to an object store costs money."""
    return self._folder.rewrite_seconds

  def path(self, relative: str) -> Path:
    """Returns where a file of a dataset on this machine lies, for tools and tests; raises ValueError for any other."""
    if self._protocol:
      raise ValueError(f"{self.root} is not on this machine, so {relative!r} has no path: use open, read or map")
    return Path(self.root, self._inside(relative))

  def read(self, relative: str) -> bytes:
    """Returns the bytes of a file; raises FileNotFoundError."""
    return self._folder.read(self._inside(relative))

  def open(self, relative: str) -> BinaryIO:
    """Opens a file for reading at any place, without reading it whole; raises FileNotFoundError."""
    return self._folder.open(self._inside(relative))

  def map(self, relative: str) -> memoryview:
    """Returns the bytes of a file without holding them: a page is read when it is looked at, and can be given back.

    Those of an object are copied to this machine's disk first, for as long as they are used.
    """
    return self._folder.map(self._inside(relative))

  def exists(self, relative: str) -> bool:
    """Says whether there is such a file or folder."""
    return self._folder.exists(self._inside(relative))

  def size(self, relative: str) -> int | None:
    """Returns the bytes of a file; None if there is none."""
    return self._folder.size(self._inside(relative))

  def modified(self, relative: str) -> float | None:
    """Returns when a file was last written, in seconds since 1970 by the store's clock; None if there is none."""
    return self._folder.modified(self._inside(relative))

  def names(self, folder: str) -> list[str]:
    """Returns the sorted names of what lies whole in `folder`; a folder that is not there holds nothing."""
    return self._folder.names(self._inside(folder))

  def walk(self, folder: str) -> list[str]:
    """Returns the sorted paths of all files below `folder`, hidden and half-written ones too."""
    return sorted(self.sizes(folder))

  def sizes(self, folder: str) -> dict[str, int]:
    """Returns the bytes of all files below `folder` by path: a thousand cost an object store one request, not each."""
    return self._folder.sizes(self._inside(folder))

  def write(self, relative: str, data: bytes) -> None:
    """Writes a file whole: what stood under this name before is replaced in one step.

    Callers give each immutable file a name of its own or one made from its content, so a replacement is the same bytes.
    """
    self._folder.write(self._inside(relative), data)

  def create(self, relative: str, data: bytes) -> None:
    """Writes a file whole if, and only if, none stands under this name: of two who try, one wins.

    Raises:
      FileExistsError: somebody was first.
    """
    self._folder.create(self._inside(relative), data)

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

    def named(file: BinaryIO, rows: int) -> StoredFile:
      digest = sha256_of_file(file)
      return StoredFile(f"{folder}/{name}-{digest[:16]}{suffix}", rows, file.tell(), digest)

    return self._folder.write_stream(self._inside(f"{folder}/{name}"), write, named)

  def remove(self, relative: str) -> None:
    """Removes a file; one that is gone already is as good."""
    self._folder.remove(self._inside(relative))

  def remove_folder(self, relative: str) -> None:
    """Removes a folder with all that is in it; safe to repeat."""
    self._folder.remove_folder(self._inside(relative))

  @property
  def _folder(self) -> Folder:
    return _OBJECT_STORES.get(self._protocol, LocalFolder)(self.root)

  @property
  def _protocol(self) -> str:
    """That of an object store, '' on this machine: a local root begins with a slash."""
    return self.root.partition("://")[0] if not self.root.startswith("/") else ""

  def _inside(self, relative: str) -> str:
    """Returns `relative` as it is; a manifest is input, so a path that leaves the dataset is refused."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts:
      raise StoreError(f"{self.root}: {relative!r} is outside the dataset; its manifest was edited or is not ours")
    return relative


def _bucket_and_prefix(url: str, path: str) -> str:
  """Returns 'bucket/prefix' as every process has to spell it: for an object store 'a//b' and 'a/b' are two places."""
  parts = path.rstrip("/").split("/")
  if not all(parts) or {".", ".."} & set(parts):
    raise UsageError(
      f"dataset {url!r}: not the name of a place; give {url.partition(':')[0]}://BUCKET/PREFIX, with single slashes"
    )
  return "/".join(parts)
