"""A file system that does what one is told at the n-th operation: fails, hangs, or takes the process with it.

Operations of Python's `os` and `io` on files of one folder are counted, whoever asks: so that what is tested is what
really is asked of the file system, and not what we think of it.
"""

import errno
import io
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_OPERATIONS = ("stat", "listdir", "scandir", "mkdir", "link", "replace", "rename", "unlink", "rmdir", "open")
Fault = Callable[[int, str], None]  # (number of the operation from 1, what it is) → may raise, or never return


def fail(first: int, stop: int | None = None, number: int = errno.EIO) -> Fault:
  """Operations from `first` on, until `stop`, fail with an error number; by default the one operation does."""
  stop = first + 1 if stop is None else stop

  def fault(n: int, what: str) -> None:
    if first <= n < stop:
      raise OSError(number, os.strerror(number), what)

  return fault


def hang(n_th: int, seconds: float) -> Fault:
  """The n-th operation takes its time."""
  return lambda n, what: time.sleep(seconds) if n == n_th else None


def die(n_th: int) -> Fault:
  """The process is killed at the n-th operation."""
  return lambda n, what: os.kill(os.getpid(), signal.SIGKILL) if n == n_th else None


class FailingFiles:
  """Counts the operations on a folder's files, in `operations`, and has `fault` called before each."""

  def __init__(self, folder: Path, fault: Fault = lambda n, what: None):
    self.operations: list[str] = []
    self._folder, self._fault, self._lock = str(folder), fault, threading.Lock()

  def install(self, patch: pytest.MonkeyPatch) -> None:
    """Puts itself between the program and the file system."""
    for name in _OPERATIONS:
      patch.setattr(os, name, self._counted(name, getattr(os, name)))
    fsync, file_open = os.fsync, io.open
    patch.setattr(os, "fsync", lambda descriptor: (self._meet("fsync", _path_of(descriptor)), fsync(descriptor))[1])
    patch.setattr(io, "open", lambda file, mode="r", *more, **named: self._open(file_open, file, mode, *more, **named))

  def _counted(self, name: str, function: Callable) -> Callable:
    def counted(path: Any = ".", *more: Any, **named: Any) -> Any:
      self._meet(name, path)
      return function(path, *more, **named)

    return counted

  def _open(self, file_open: Callable, file: Any, mode: str, *more: Any, **named: Any) -> Any:
    self._meet(f"open {mode}", file)
    if "b" not in mode or not self._is_ours(file):
      return file_open(file, mode, *more, **named)
    raw = _CountedFile(file, mode.replace("b", ""))
    raw.meet = lambda what: self._meet(what, file)
    return io.BufferedReader(raw) if "r" in mode else io.BufferedWriter(raw)

  def _is_ours(self, path: Any) -> bool:
    return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._folder)

  def _meet(self, what: str, path: Any) -> None:
    if self._is_ours(path):
      with self._lock:
        self.operations.append(f"{what} {os.fspath(path)}")
        n = len(self.operations)
      self._fault(n, self.operations[n - 1])


class _CountedFile(io.FileIO):
  """A file whose reads and writes are operations too."""

  meet: Callable[[str], None] = staticmethod(lambda what: None)

  def readinto(self, buffer: Any) -> Any:
    self.meet("read")
    return super().readinto(buffer)

  def readall(self) -> bytes:
    self.meet("read")
    return super().readall()

  def write(self, data: Any) -> Any:
    self.meet("write")
    return super().write(data)


def _path_of(descriptor: int) -> str:
  return str(Path(f"/proc/self/fd/{descriptor}").readlink())
