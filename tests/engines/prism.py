"""Prism, Beam's own portable engine, for tests: a job server in Go, and a pool of Python workers beside it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.worker_pool import WorkerPool, free_port, wait_for_port, worker_pool


@dataclass(frozen=True)
class Prism:
  """One that is up: the address of its job server, and its workers."""

  address: str
  pool: WorkerPool

  @property
  def words(self) -> list[str]:
    """What sends a job of `sorbus embed` to it."""
    beam = [f"--job_endpoint={self.address}", f"--environment_config={self.pool.address}"]
    return ["--runner", "PortableRunner", "--", *beam]

  def kill_worker(self) -> int:
    """Kills a Python worker at once, and returns which."""
    pid = self.pool.workers()[0]
    os.kill(pid, signal.SIGKILL)
    return pid


@contextmanager
def prism_up(program: Path, folder: Path) -> Iterator[Prism]:
  """Runs the engine and a pool of workers while the block does."""
  port = free_port()
  with (folder / "log").open("wb") as log:
    server = subprocess.Popen([program, f"-job_port={port}", "-serve_http=false"], stdout=log, stderr=log, cwd=folder)
  try:
    wait_for_port(port, server)
    with worker_pool() as pool:
      yield Prism(f"localhost:{port}", pool)
  finally:
    server.kill()
    server.wait()
