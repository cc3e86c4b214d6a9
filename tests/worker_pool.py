"""A pool of Beam workers beside the tests, as one stands beside each machine of a cluster: real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.processes import children, free_port, wait_for_port

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
