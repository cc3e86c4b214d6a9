"""The cluster that `make flink-cluster` brings up is what deploy/flink says, also when a part of it is killed.

Needs no Beam: the job is a small one of Flink's own. Jobs of ours are in test_flink.py.
"""

import shutil
import subprocess
import time

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.engines.flink_cluster import SCRIPTS, script, wait_for
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, write_shards
from transforms.input_files import ReadOptions

CONFIG = yaml.safe_load((SCRIPTS / "config.yaml").read_text())
MEMORY = {"jobmanager.memory.process.size", "taskmanager.memory.process.size"}
N, MILLISECONDS = 2000, 20  # of SlowSum: at parallelism 2, twenty seconds


@pytest.fixture(scope="module")
def slow_sum(flink, tmp_path_factory):
  """The jar of tests/engines/SlowSum.java."""
  if not shutil.which("javac"):
    pytest.skip("needs a JDK to compile its job, and there is no javac")
  folder, home = tmp_path_factory.mktemp("slow-sum"), script("fetch.sh", "flink", flink.version)
  source = REPOSITORY / "tests/engines/SlowSum.java"
  subprocess.run(["javac", "--release", "11", "-cp", f"{home}/lib/*", "-d", folder, source], check=True)
  subprocess.run(["jar", "cf", "slow.jar", *(path.name for path in folder.glob("*.class"))], cwd=folder, check=True)
  return folder / "slow.jar"


def start_slow_sum(flink, jar, folder):
  folder.mkdir()
  home = script("fetch.sh", "flink", flink.version)
  argv = [f"{home}/bin/flink", "run", "--detached", "-m", flink.env["FLINK_MASTER"], "-p", "2", "-c", "SlowSum"]
  subprocess.run([*argv, jar, str(N), str(MILLISECONDS), folder], check=True, capture_output=True)
  (job,) = [job for job in flink.ask("jobs/overview")["jobs"] if job["state"] not in ("FINISHED", "FAILED")]
  return job["jid"]


def sums(folder):
  return {int(path.name): int(path.read_text() or 0) for path in folder.iterdir()}


def test_it_is_what_the_configuration_says(flink):
  overview = flink.ask("overview")
  assert overview["flink-version"].startswith(f"{flink.version}.")
  assert (overview["taskmanagers"], overview["slots-total"]) == (2, 4)
  print(f"{resident_megabytes(flink):.0f} MB resident without a job")
  held = {entry["key"]: entry["value"] for entry in flink.ask("jobmanager/config")}
  assert {key: held.get(key) for key in CONFIG} == {key: _as_flink_shows(value) for key, value in CONFIG.items()}


def resident_megabytes(flink):
  pids = ",".join(str(pid) for pid in flink.pids().values())
  said = subprocess.run(["ps", "-o", "rss=", "-p", pids], capture_output=True, text=True).stdout
  return sum(int(word) for word in said.split()) / 1024


def _as_flink_shows(value):
  return str(value).lower() if isinstance(value, bool) else str(value)


def test_it_listens_on_loopback_only(flink):
  said = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout
  pids = flink.pids().values()
  ours = [line.split()[3] for line in said.splitlines() if any(f"pid={pid}," in line for pid in pids)]
  assert len(ours) >= 4  # JobManager, TaskManagers, pool
  assert not [address for address in ours if "127.0.0.1" not in address and "[::1]" not in address]


def test_its_pool_runs_jobs_and_takes_its_workers_along(flink, tmp_path):
  """Beam's own job server stands in for Flink's: the workers are the cluster's."""
  texts = made_up_texts(100)
  inputs = write_shards(tmp_path / "input", texts, 2)
  options = {"read": ReadOptions(id_column="id"), "buckets": 4, "n_components": 8}
  flags = ("--job_endpoint=embed", f"--environment_config={flink.env['WORKER_POOL']}")
  outcome = embed_fake(
    FakeEncoder(make_vocabulary(texts), 16),
    tmp_path / "ds",
    inputs,
    runner="PortableRunner",
    beam_options=flags,
    **options,
  )
  assert (outcome.status, outcome.manifest["counts"]["encoded"]) == ("published", 100)
  said = (flink.run / "log/worker-pool.out").read_text()
  assert "from apache_beam.runners.worker.sdk_worker import SdkHarness" in said  # a process, as its command is logged


def test_a_job_whose_task_manager_is_killed_is_tried_again_on_the_other(flink, slow_sum, tmp_path):
  """What the configuration promises without Beam: slots enough, both TaskManagers used, another try, RocksDB."""
  job = start_slow_sum(flink, slow_sum, tmp_path / "sums")
  wait_for(lambda: len(sums(tmp_path / "sums")) == 10, "the job is in the middle")
  used = [manager["slotsNumber"] - manager["freeSlots"] for manager in flink.ask("taskmanagers")["taskmanagers"]]
  assert used == [1, 1]
  assert list(flink.run.glob("tmp/**/*.sst")) or list(flink.run.glob("tmp/**/db")), "no state of RocksDB"
  started = time.monotonic()
  flink.kill("taskmanager-1")
  wait_for(lambda: flink.ask(f"jobs/{job}")["state"] == "RESTARTING", "Flink misses it")
  missed = time.monotonic()
  wait_for(lambda: flink.ask(f"jobs/{job}")["state"] == "FINISHED", "another try")
  print(f"missed after {missed - started:.1f} s, done {time.monotonic() - missed:.1f} s later")
  assert sums(tmp_path / "sums") == {i: sum(range(i or 10, N + 1, 10)) for i in range(10)}
  (told,) = flink.ask(f"jobs/{job}/exceptions")["exceptionHistory"]["entries"]  # one try, not two
  assert "Connection unexpectedly closed by remote task manager" in told["stacktrace"].splitlines()[0]
  flink.mend()
  assert flink.ask("overview")["slots-available"] == 4
