"""Processes that tests start, and how to wait for what they do."""

import contextlib
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
_PATIENCE_SECONDS = 300.0  # a busy machine brings up a job of a cluster in minutes


def free_port() -> int:
  """A port of this machine for a server that is about to start.

  None of those that the system deals out: it would give them to anybody's connection until the server is there.
  """
  while True:
    port = random.randrange(12_000, 32_000)
    with socket.socket() as server, contextlib.suppress(OSError):
      server.bind(("localhost", port))
      return port


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
  """A port of this machine where nobody listens, nor can anybody come to while the block runs."""
  with socket.socket() as taken:
    taken.bind(("localhost", 0))
    yield int(taken.getsockname()[1])


def wait_for(what: Callable[[], T], why: str, seconds: float = _PATIENCE_SECONDS) -> T:
  """Returns what the function gives as soon as that is true."""
  deadline = time.monotonic() + seconds
  while not (found := what()):
    assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {why}"
    time.sleep(0.05)
  return found


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
  """Waits until a process listens there."""

  def answers() -> bool:
    assert process.poll() is None, f"exit code {process.returncode}, and nobody on port {port}"
    with socket.socket() as client:
      return client.connect_ex(("localhost", port)) == 0

  wait_for(answers, f"somebody on port {port}")


def children(pid: int) -> list[int]:
  """The processes that a process has started."""
  said = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
  return [int(word) for word in said.split()]


def is_alive(pid: int) -> bool:
  """Whether there is such a process, and not only its exit code waiting to be read."""
  state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
  return bool(state) and not state.startswith("Z")
