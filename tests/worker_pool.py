"""A pool of Beam workers beside the tests, as one stands beside each machine of a cluster: real processes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import REPOSITORY

_START_SECONDS = 60.0


def free_port() -> int:
  """A port that nobody listens on now."""
  with socket.socket() as server:
    server.bind(("localhost", 0))
    return int(server.getsockname()[1])


@contextmanager
def worker_pool(
  environment: Mapping[str, str] | None = None, python: Sequence[str] = (sys.executable,), folder: Path = REPOSITORY
) -> Iterator[str]:
  """Runs a pool while the block does, and gives its address. It starts workers with the `python` that PATH names."""
  port = free_port()
  path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
  process = subprocess.Popen(
    [*python, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"],
    env={**os.environ, "PATH": path, **(environment or {})},
    cwd=folder,
    stdout=subprocess.DEVNULL,  # a worker that prints there would wait for somebody to read it
    start_new_session=True,
  )
  try:
    _wait_for(port, process)
    yield f"localhost:{port}"
  finally:
    process.terminate()
    process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
  deadline = time.monotonic() + _START_SECONDS
  while time.monotonic() < deadline and process.poll() is None:
    with socket.socket() as client:
      if client.connect_ex(("localhost", port)) == 0:
        return
    time.sleep(0.05)
  raise AssertionError(f"no worker pool on port {port} after {_START_SECONDS:.0f} s, exit code {process.poll()}")
