"""Commands of `sorbus` in real processes that start within milliseconds, to be killed at any moment.

They are forked from a server that has imported Beam once. Its children are reaped at once, so that a killed one is gone
and not a zombie, which would still look alive.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import pipeline.lock
from tests.failing_files import FailingFiles, die
from tests.integration import slow_embed

PATIENCE_SECONDS = 300.0
_ENCODE_SECONDS = 0.02
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["__main__", "tests.integration.forked_jobs"])


class ForkedJob:
  """One command in a process of its own; `log` is what it has printed."""

  def __init__(self, log: Path, argv: Sequence[object], before: Callable[[], None] | None = None):
    """Starts `sorbus ARGV` and returns once it has begun; `before` is called in its process, first."""
    self._log = log
    arguments = (str(log), [str(word) for word in argv], before)
    self.process = _server.Process(target=_run, args=arguments, daemon=True)
    self.process.start()
    while not log.exists() and self.process.exitcode is None:
      time.sleep(0.001)
    self.started = time.monotonic()

  @property
  def log(self) -> str:
    """All that the command printed."""
    return self._log.read_text(errors="replace")

  def kill_at(self, seconds: float, number: signal.Signals) -> bool:
    """Sends a signal so many seconds after the start; says whether the job was still there."""
    self.process.join(max(self.started + seconds - time.monotonic(), 0))
    if self.process.exitcode is not None:
      return False
    with contextlib.suppress(ProcessLookupError):
      os.kill(self.process.pid, number)
    return True

  def exit_code(self) -> int:
    """Waits for the end; negative for the signal that it died of."""
    self.process.join(PATIENCE_SECONDS)
    assert self.process.exitcode is not None, f"still running: {self.log}"
    return self.process.exitcode


def kill_at_operation(folder: Path, n: int) -> None:
  """Has this process killed at its n-th operation on a folder's files: given as `before`, with functools.partial."""
  FailingFiles(folder, die(n)).install(pytest.MonkeyPatch())


def _run(log: str, argv: list[str], before: Callable[[], None] | None) -> None:
  pipeline.lock._POLL_SECONDS = 0.1
  if before is not None:
    before()
  slow_embed.slow_encoder(_ENCODE_SECONDS)  # made now: from the moment there is a log, it is our command that is killed
  descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
  os.dup2(descriptor, 1)
  os.dup2(descriptor, 2)
  # Not `sys.exit`: a signal that comes after the end of the command would be taken for one in the middle of it.
  os._exit(slow_embed.run(_ENCODE_SECONDS, argv))
