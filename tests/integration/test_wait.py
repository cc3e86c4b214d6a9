"""`sorbus wait` on a job in another process: it ends as that does, also where that is killed."""

import json
import os
import signal
import subprocess
import sys

import pytest

from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.lock import DatasetLock
from tests.conftest import REPOSITORY
from tests.integration.run_files import published_runs, write_shards
from tests.integration.slow_embed import TEXTS
from tests.processes import wait_for
from transforms.storage import Storage


@pytest.fixture
def job(tmp_path):
  """A job of some seconds that has just taken the lock: (its process, dataset, run id)."""
  inputs, dataset = write_shards(tmp_path / "input", TEXTS, 2), tmp_path / "dataset"
  command = ["embed", "--input", inputs, "--id-column", "id", "--encoder", "fake", "--dataset", dataset]
  command += ["--threads", "2", "--buckets", "2", "--n-components", "16", "--token-budget", "256"]
  words = [sys.executable, "-m", "tests.integration.slow_embed", "0.1", *map(str, command)]
  process = subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  lock = DatasetLock(Storage.at(str(dataset)))
  try:
    _, owner = wait_for(lambda: process.poll() is None and lock.holder(), "the job holds the dataset")
    yield process, dataset, owner.run_id
  finally:
    process.kill()
    process.communicate()


def test_it_prints_what_embed_would_and_ends_as_it_does(job, capsys):
  process, dataset, run_id = job
  assert main(["wait", str(dataset), "--timeout", "2m", "--json"]) == 0
  captured = capsys.readouterr()
  assert captured.err.startswith(f"waiting for run {run_id}: ")
  assert json.loads(captured.out) == {"status": "published", "run": Dataset.open(str(dataset)).manifest(run_id)}
  assert process.wait(timeout=300) == 0 and published_runs(dataset) == [run_id]
  assert main(["wait", str(dataset), run_id]) == 0
  captured = capsys.readouterr()
  assert f"\npublished: {dataset}/runs/{run_id}/vectors\nreport: " in captured.out and "distinct" in captured.out
  assert captured.err == ""
  assert main(["wait", str(dataset)]) == 2
  assert "no run is made now" in capsys.readouterr().err


def test_a_job_that_was_killed_is_told_in_one_line(job, capsys):
  process, dataset, run_id = job
  os.kill(process.pid, signal.SIGKILL)
  process.wait(timeout=300)
  assert main(["wait", str(dataset), run_id]) == 1
  captured = capsys.readouterr()
  assert captured.out == "" and captured.err.count("\n") == 1
  assert f"process {process.pid} on" in captured.err and "run `sorbus embed` again" in captured.err
