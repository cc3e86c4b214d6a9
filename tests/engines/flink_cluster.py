"""A Flink cluster for tests: brought up and down by deploy/flink/cluster.sh as a person would, and hurt on the way."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.worker_pool import children

SCRIPTS = REPOSITORY / "deploy" / "flink"
CANNOT_BE_HAD = 69  # exit code of the scripts: Java, a package or the job server is missing, and their line says which
PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Cluster:
  """One that is up.

  Attributes:
    version: of Flink, such as "2.2".
    run: the folder of cluster.sh.
  """

  version: str
  run: Path

  @property
  def env(self) -> dict[str, str]:
    """What cluster.sh tells submit.sh."""
    return dict(line.split("=", 1) for line in (self.run / "env").read_text().splitlines())

  def pids(self) -> dict[str, int]:
    """The processes that were started, by name."""
    lines = (self.run / "pids").read_text().splitlines()
    return {line.split()[1]: int(line.split()[0]) for line in lines}

  def workers(self) -> list[int]:
    """The Python workers that the pool has started, and that are alive."""
    return children(self.pids()["worker-pool"])

  def ask(self, path: str) -> Any:
    """What Flink's REST interface says."""
    with urllib.request.urlopen(f"http://{self.env['FLINK_MASTER']}/v1/{path}", timeout=30) as reply:
      return json.load(reply)

  def kill(self, name: str) -> None:
    """Kills one of the processes at once."""
    os.kill(self.pids()[name], signal.SIGKILL)

  def mend(self) -> None:
    """Starts again what was killed, as the supervisor of a real cluster does."""
    script("cluster.sh", "mend", run=self.run)

  def submit_environment(self) -> dict[str, str]:
    """The environment in which submit.sh finds this cluster."""
    ours = {"SORBUS_FLINK_RUN": str(self.run), "SORBUS_PYTHON": sys.executable, "PYTHONPATH": str(REPOSITORY)}
    return {**os.environ, **ours}

  @property
  def words(self) -> list[str]:
    """What submit.sh gives to `sorbus embed`, for a job that it cannot start: one with an encoder of the tests."""
    master, pool = self.env["FLINK_MASTER"], self.env["WORKER_POOL"]
    options = [f"--flink_master={master}", f"--flink_version={self.version}", f"--environment_config={pool}"]
    options += [f"--flink_job_server_jar={job_server(self.version)}", "--parallelism=2"]
    return ["--runner", "FlinkRunner", "--", *options]


def script(*words: str, run: Path | None = None) -> str:
  """Runs a script of deploy/flink and returns what it prints; skips the test where what it needs cannot be had."""
  environment = {**os.environ, "SORBUS_PYTHON": sys.executable} | ({"SORBUS_FLINK_RUN": str(run)} if run else {})
  done = subprocess.run([SCRIPTS / words[0], *words[1:]], env=environment, capture_output=True, text=True)
  if done.returncode == CANNOT_BE_HAD:
    pytest.skip(done.stderr.strip().splitlines()[-1])
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout.strip()


def job_server(version: str) -> str:
  """The jar that makes a Flink job of a pipeline; skips the test where it cannot be had."""
  return script("fetch.sh", "job-server", version)


@contextmanager
def cluster_up(version: str, run: Path) -> Iterator[Cluster]:
  """Has a cluster up while the block runs, and sees that nothing of it is left."""
  script("cluster.sh", "up", version, run=run)
  cluster = Cluster(version, run)
  pids = [*cluster.pids().values()]
  try:
    yield cluster
  finally:
    pids += [worker for pid in pids for worker in children(pid)]
    script("cluster.sh", "down", run=run)
  left = [pid for pid in pids if is_alive(pid)]
  assert not left, left


def is_alive(pid: int) -> bool:
  """Whether there is such a process, and not only its exit code waiting to be read."""
  state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
  return bool(state) and not state.startswith("Z")


def wait_for(what: Callable[[], Any], why: str, seconds: float = PATIENCE_SECONDS) -> Any:
  """Returns what the function gives as soon as that is true."""
  deadline = time.monotonic() + seconds
  while time.monotonic() < deadline:
    if found := what():
      return found
    time.sleep(0.1)
  raise AssertionError(f"not within {seconds:.0f} s: {why}")


def run_submit(
  cluster: Cluster, words: Sequence[object], folder: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
  """Runs deploy/flink/submit.sh as a person would who is in that folder."""
  job_server(cluster.version)
  argv = [str(word) for word in (SCRIPTS / "submit.sh", *words)]
  return subprocess.run(argv, env=cluster.submit_environment(), cwd=folder, capture_output=True, text=True)
