"""A process that keeps what it measures loaded, and works when it is told to: so rivals can work by turns."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any


class RivalError(Exception):
  """A rival cannot take part, and why."""


@contextlib.contextmanager
def left_out(name: str) -> Iterator[None]:
  """Lets the others go on without one that cannot take part, and says why."""
  try:
    yield
  except RivalError as error:
    print(f"left out: {name}: {error}", flush=True)


def serve(versions: Mapping[str, str], answer: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
  """Is the other end of a Rival: says what it is made of, and answers requests until nobody asks any more."""
  answers = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)  # libraries print as well
  print(json.dumps({"versions": versions}), file=answers)
  for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), file=answers)


class Rival:
  """A process that reads requests from stdin, a JSON object a line, and answers each with one on stdout."""

  def __init__(self, command: Sequence[str | Path], log: Path):
    """Starts it; what it writes to stderr goes to the file `log`.

    Raises:
      RivalError: there is no such program.
    """
    self._log = log
    try:
      with log.open("wb") as stderr:
        self._process = subprocess.Popen(
          command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, bufsize=1
        )
    except OSError as error:
      raise RivalError(f"{error.filename}: {error.strerror}") from error

  def ready(self) -> dict[str, Any]:
    """Waits until it is ready and returns what it says then.

    Raises:
      RivalError: it ended instead.
    """
    return self._read()

  def ask(self, **request: Any) -> dict[str, Any]:
    """Has one thing done and returns the answer.

    Raises:
      RivalError: it ended.
    """
    assert self._process.stdin
    with contextlib.suppress(BrokenPipeError):  # it says why in its log, which is read where the answer is missing
      self._process.stdin.write(f"{json.dumps(request)}\n")
    return self._read()

  def close(self) -> None:
    """Ends the process: it has no more requests to wait for."""
    self._process.communicate()

  def __enter__(self) -> "Rival":
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
  ) -> None:
    self.close()

  def _read(self) -> dict[str, Any]:
    assert self._process.stdout
    if line := self._process.stdout.readline():
      return dict(json.loads(line))
    self.close()
    said = self._log.read_text(errors="replace").strip().splitlines()
    raise RivalError(said[-1] if said else f"ended with code {self._process.returncode}, without a word")
