"""Jobs of ours on a real Flink, two TaskManagers: the dataset of the local runner, also when a part is killed.

`make test-flink` runs this. Jobs need Beam's job server; where that cannot be had each says so and is skipped.
"""

import os
import shlex
import signal

import fsspec
import pytest

from tests.engines.flink_cluster import job_server, run_submit
from tests.engines.jobs import (
  SlowJob,
  assert_same,
  assert_tried_again_and_nothing_twice,
  files_of,
  here,
  of_demo,
  of_paragraphs,
  rows_stored,
)
from tests.integration.run_files import made_up_texts, published_runs, write_shards
from tests.integration.test_operations import commands
from tests.object_store import BUCKET, SECRET
from tests.processes import is_alive, wait_for


@pytest.fixture(scope="module", autouse=True)
def _job_server(flink):
  """Asked for first, so that the line that says it cannot be had is the reason of every skip.

  Before anything that takes time, so what the tests here share is of this module too, or asked for inside a test.
  """
  return job_server(flink.version)


def there(flink, *words):
  """Runs the same on Flink, as a person would."""
  done = run_submit(flink, words)
  assert done.returncode == 0, done.stderr[-4000:]


def test_the_page_as_it_stands(flink, request, tmp_path):
  up, submit, down = commands("On Flink")
  assert (up, down) == ("make flink-cluster", "make flink-down")
  (tmp_path / "encoder").symlink_to(request.getfixturevalue("tiny_encoder"))
  write_shards(tmp_path / "articles", made_up_texts(60), 2)
  script, *words = shlex.split(submit)
  assert script == "deploy/flink/submit.sh"
  done = run_submit(flink, words, tmp_path)
  assert (done.returncode, len(published_runs(tmp_path / "vectors"))) == (0, 1), done.stderr[-4000:]


def test_the_demo(flink, demo, tmp_path):
  here(*of_demo(demo, tmp_path / "here"))
  there(flink, *of_demo(demo, tmp_path / "there"))
  assert_same(tmp_path / "here", tmp_path / "there")


def test_paragraphs(flink, paragraphs, local_paragraphs, demo, tmp_path):
  there(flink, *of_paragraphs(paragraphs, demo, tmp_path / "there"))
  assert_same(local_paragraphs, tmp_path / "there")
  managers = flink.ask("taskmanagers")["taskmanagers"]
  assert len(managers) == 2


def test_a_python_worker_is_killed(flink, tmp_path):
  job = SlowJob(flink, tmp_path)
  wait_for(lambda: job.is_in_the_middle, "raw files of the first buckets")
  before, (killed, *_) = rows_stored(job.dataset), flink.workers()
  os.kill(killed, signal.SIGKILL)
  job.finish()
  assert not is_alive(killed)
  assert_tried_again_and_nothing_twice(job, before, tmp_path)


def test_input_encoder_and_dataset_on_s3(flink, request, tmp_path):
  """Address and credentials are in the environment of the worker pool, and nowhere else."""
  tiny_encoder = request.getfixturevalue("tiny_encoder")
  inputs = write_shards(tmp_path / "input", made_up_texts(200), 2)
  s3, base = fsspec.filesystem("s3"), f"{BUCKET}/flink-{flink.version}"
  s3.put(str(inputs), f"{base}/input", recursive=True)
  s3.put(tiny_encoder, f"{base}/encoder", recursive=True)
  words = ["--id-column", "id", "--n-components", 8, "--input"]
  there(
    flink, *words, f"s3://{base}/input/*.jsonl", "--encoder", f"s3://{base}/encoder", "--dataset", f"s3://{base}/ds"
  )
  s3.invalidate_cache()
  s3.get(f"{base}/ds", str(tmp_path / "there"), recursive=True)
  here(*words, f"{inputs}/*.jsonl", "--encoder", tiny_encoder, "--dataset", tmp_path / "here")
  assert_same(tmp_path / "here", tmp_path / "there")
  kept = [path for path in tmp_path.rglob("*") if path.is_file()] + [*flink.run.glob("log/*")]
  assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


def test_a_failure_of_ours_is_one_line_and_is_told(flink, demo, tmp_path):
  (tmp_path / "input.jsonl").write_text('{"id": "1", "text": "a"}\n')
  words = ["--input", tmp_path / "input.jsonl", "--id-column", "id", "--encoder", demo / "encoder", "--dataset"]
  done = run_submit(flink, [*words, tmp_path / "ds", "--whitening", "fit"])  # of one document
  assert done.returncode != 0 and "Traceback" not in done.stderr
  assert not published_runs(tmp_path / "ds")


def test_a_task_manager_is_killed_when_the_run_is_published(flink, tmp_path):
  """Whether Flink still tries again or not: one run, published once, as it was."""
  job = SlowJob(flink, tmp_path)
  wait_for(lambda: job.has_published, "the run is published")
  files = files_of(job.dataset)
  flink.kill("taskmanager-1")
  job.finish()
  assert files_of(job.dataset) == files
  job.run_here(tmp_path / "here")
  assert_same(tmp_path / "here", job.dataset)
  assert len(published_runs(job.dataset)) == 1


def test_a_task_manager_is_killed_in_the_middle(flink, tmp_path):
  """The other one has slots enough."""
  flink.mend()
  job = SlowJob(flink, tmp_path)
  wait_for(lambda: job.is_in_the_middle, "raw files of the first buckets")
  before = rows_stored(job.dataset)
  flink.kill("taskmanager-1")
  job.finish()
  assert_tried_again_and_nothing_twice(job, before, tmp_path)
