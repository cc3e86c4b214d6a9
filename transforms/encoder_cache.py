"""A host's copies of remote encoders' files: each is fetched once, and shared by the processes of one user.

A file is named by the sha256 that `encoder.json` states for it, so another encoder has other files, and what is damaged
is known by its name. It is checked whenever it is read: a graph is a program, and is run. One lock over all orders who
fetches; a killed process lets go of it, and the half that it leaves has a name that is never read.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from transforms.errors import EncoderError

VARIABLE: Final = "SORBUS_CACHE"
# What is kept of encoders that were used less recently than the one just fetched: some of BERT-large.
KEPT_BYTES: Final = 4 << 30
_NAME = re.compile("[0-9a-f]{64}")
_PART: Final = ".part"
_REMEDY: Final = f"make room or set {VARIABLE} to a folder of yours"


@dataclass(frozen=True)
class EncoderCache:
  """The files in one folder, which is nobody's but ours."""

  folder: Path

  @classmethod
  def here(cls) -> "EncoderCache":
    """Returns that of this host and user, made if it is not there; raises EncoderError if others could write to it."""
    return cls(_private(_first_that_can_be_made(_candidates())))

  def read(self, sha256: str, fetch: Callable[[], Iterable[bytes]]) -> bytes:
    """Returns the bytes with this sha256, fetched unless a process of this host has done so before.

    Args:
      sha256: of the bytes, 64 hexadecimal digits.
      fetch: gives them in pieces. Called at most once, and by one process at a time.

    Raises:
      WrongBytesError: what was fetched has another sha256; nothing of it is kept.
      EncoderError: not a sha256, or the folder cannot be written.
    """
    if not _NAME.fullmatch(sha256):  # of a stranger's file, and about to be a path
      raise EncoderError(f"encoder.json states {sha256[:80]!r} for a sha256; freeze again")
    if (data := self._find(sha256)) is not None:
      return data
    with self._explained(), self._locked():
      data = self._find(sha256)  # fetched while we waited?
      return self._fetch(sha256, fetch) if data is None else data

  def _find(self, sha256: str) -> bytes | None:
    """Returns the bytes of a file that is there whole, and notes that it is in use."""
    path = self.folder / sha256
    try:
      data = path.read_bytes()
    except OSError:
      return None
    if hashlib.sha256(data).hexdigest() != sha256:
      return None
    with contextlib.suppress(OSError):
      os.utime(path)
    return data

  def _fetch(self, sha256: str, fetch: Callable[[], Iterable[bytes]]) -> bytes:
    part = self.folder / f"{sha256}{_PART}"
    try:
      with part.open("wb") as file:
        file.writelines(fetch())
      data = part.read_bytes()  # as the disk has it
      if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise WrongBytesError(found)
      part.replace(self.folder / sha256)
    finally:
      self._forget(sha256)
    return data

  def _forget(self, newest: str) -> None:
    """Removes what is half fetched, which under the lock nobody is at, and what was used least recently."""
    kept = 0
    for path in sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True):
      kept += path.stat().st_size if _NAME.fullmatch(path.name) else 0
      is_old = _NAME.fullmatch(path.name) and kept > KEPT_BYTES and path.name != newest
      if is_old or path.name.endswith(_PART):
        path.unlink(missing_ok=True)

  @contextlib.contextmanager
  def _locked(self) -> Iterator[None]:
    with (self.folder / "lock").open("ab") as file:  # of the file as opened, so that threads exclude each other too
      fcntl.flock(file, fcntl.LOCK_EX)
      yield

  @contextlib.contextmanager
  def _explained(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise EncoderError(f"{self.folder}: an encoder cannot be kept there ({error.strerror}); {_REMEDY}") from error


class WrongBytesError(EncoderError):
  """What was fetched is not what `encoder.json` says; its message is the sha256 that it has."""


def _candidates() -> list[Path]:
  """Returns the folders to try, the best one first; where one is asked for, that alone."""
  if named := os.environ.get(VARIABLE):
    return [Path(named).expanduser() / "encoders"]
  temporary = Path(tempfile.gettempdir(), f"sorbus-encoders-{os.geteuid()}")  # straight in a folder with a sticky bit
  try:
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
  except RuntimeError:  # a user without a home
    return [temporary]
  return [home / "sorbus" / "encoders", temporary]


def _first_that_can_be_made(folders: list[Path]) -> Path:
  for folder in folders:
    try:
      folder.mkdir(mode=0o700, parents=True, exist_ok=True)
      return folder
    except OSError as error:  # a worker's home may be nowhere, or not its own
      why = error.strerror
  raise EncoderError(f"{folders[-1]}: an encoder cannot be kept there ({why}); {_REMEDY}")


def _private(folder: Path) -> Path:
  """Returns a folder; raises EncoderError if another user could put a program into it."""
  found = folder.lstat()
  wrong = (
    "is a link"
    if stat.S_ISLNK(found.st_mode)
    else f"belongs to user {found.st_uid}, not to us ({os.geteuid()})"
    if found.st_uid != os.geteuid()
    else "may be written by others"
    if found.st_mode & 0o022
    else None
  )
  if wrong:
    raise EncoderError(
      f"{folder}: {wrong}, and encoders are programs; remove it, `chmod 700` it, or set {VARIABLE} to a folder of yours"
    )
  return folder
