"""A pool of Beam workers beside the tests, as one stands beside each machine of a cluster: real processes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

_START_SECONDS = 60.0
# As text, for a worker's user may not be allowed to read the checkout.
_PROGRAM = (REPOSITORY / "deploy/flink/worker_pool.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class WorkerPool:
  """One that is up: its address, and the process that starts the workers."""

  address: str
  pid: int

  def workers(self) -> list[int]:
    """The workers that it has started, and that are there."""
    return children(self.pid)


def free_port() -> int:
  """A port that nobody listens on now."""
  with socket.socket() as server:
    server.bind(("localhost", 0))
    return int(server.getsockname()[1])


@contextmanager
def worker_pool(
  environment: Mapping[str, str] | None = None, python: Sequence[str] = (sys.executable,), folder: Path = REPOSITORY
) -> Iterator[WorkerPool]:
  """Runs a pool, on loopback, while the block does. It starts workers with the `python` that PATH names."""
  port = free_port()
  path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
  process = subprocess.Popen(
    [*python, "-c", _PROGRAM, str(port)],
    env={**os.environ, "PATH": path, **(environment or {})},
    cwd=folder,
    stdout=subprocess.DEVNULL,  # a worker that prints there would wait for somebody to read it
    start_new_session=True,
  )
  try:
    wait_for_port(port, process)
    yield WorkerPool(f"localhost:{port}", process.pid)
  finally:
    process.terminate()  # it takes its workers along
    process.wait()


def children(pid: int) -> list[int]:
  """The processes that a process has started."""
  said = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
  return [int(word) for word in said.split()]


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
  """Waits until a process listens there."""
  deadline = time.monotonic() + _START_SECONDS
  while time.monotonic() < deadline and process.poll() is None:
    with socket.socket() as client:
      if client.connect_ex(("localhost", port)) == 0:
        return
    time.sleep(0.05)
  raise AssertionError(f"nobody on port {port} after {_START_SECONDS:.0f} s, exit code {process.poll()}")
