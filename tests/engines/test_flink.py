"""Jobs of ours on a real Flink, two TaskManagers: the dataset of the local runner, also when a part is killed.

`make test-flink` runs this. Jobs need Beam's job server; where that cannot be had each says so and is skipped.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.dataset import Dataset
from pipeline.verify import verify_run
from tests.conftest import REPOSITORY
from tests.engines.flink_cluster import is_alive, job_server, run_submit, wait_for
from tests.integration.run_files import (
  made_up_texts,
  published_runs,
  raw_files,
  read_vectors,
  run_folder,
  write_shards,
)
from tests.integration.slow_embed import TEXTS
from tests.integration.test_operations import commands
from tests.object_store import BUCKET, SECRET

N_PARAGRAPHS = 20_000
N_BUCKETS = 16  # of the slow jobs
SLOW = ["--id-column", "id", "--encoder", "fake", "--n-components", 8, "--whitening", "fit", "--buckets", N_BUCKETS]
SLOW += ["--token-budget", 128, "--flush-seconds", 0.1]
ENCODE_SECONDS = 0.5  # a batch of about seven texts: with two workers, twenty seconds in the middle


@pytest.fixture(scope="module", autouse=True)
def _job_server(flink):
  """Asked for first, so that the line that says it cannot be had is the reason of every skip.

  Before anything that takes time, so what the tests here share is of this module too, or asked for inside a test.
  """
  return job_server(flink.version)


def here(*words):
  """Runs `sorbus embed` on the local runner."""
  argv = [sys.executable, "-m", "pipeline", "embed", *map(str, words)]
  subprocess.run(argv, cwd=REPOSITORY, check=True, capture_output=True)


def there(flink, *words):
  """Runs the same on Flink, as a person would; returns what it says."""
  done = run_submit(flink, words)
  assert done.returncode == 0, done.stderr[-4000:]
  return done


def newest_manifest(dataset):
  """The manifest of the published run."""
  return json.loads((dataset / "runs" / published_runs(dataset)[-1] / "manifest.json").read_text())


def assert_same(one, other):
  """Two datasets of the same input: ids equal, counts equal, vectors within 1e-5; and the other one is whole."""
  first, second = newest_manifest(one), newest_manifest(other)
  assert second["counts"] == first["counts"]
  ids, vectors = read_vectors(one, first)
  other_ids, other_vectors = read_vectors(other, second)
  assert other_ids == ids
  np.testing.assert_allclose(other_vectors, vectors, rtol=0, atol=1e-5)
  checks = verify_run(Dataset.open(str(other)), second["run_id"])
  assert not [check for check in checks if not check.passed]


def test_the_page_as_it_stands(flink, request, tmp_path):
  up, submit, down = commands("On Flink")
  assert (up, down) == ("make flink-cluster", "make flink-down")
  (tmp_path / "encoder").symlink_to(request.getfixturevalue("tiny_encoder"))
  write_shards(tmp_path / "articles", made_up_texts(60), 2)
  script, *words = shlex.split(submit)
  assert script == "deploy/flink/submit.sh"
  done = run_submit(flink, words, tmp_path)
  assert (done.returncode, len(published_runs(tmp_path / "vectors"))) == (0, 1), done.stderr[-4000:]


@pytest.fixture(scope="module")
def demo():
  """The folder of `make demo`: a real encoder and a small corpus."""
  folder = REPOSITORY / "demo"
  if not (folder / "encoder").is_dir() or not (folder / "corpus").is_dir():
    pytest.skip("needs demo/encoder and demo/corpus: make demo/encoder demo/corpus")
  return folder


@pytest.fixture(scope="module")
def paragraphs(tmp_path_factory):
  """20,000 paragraphs, real ones where they are; and what the local runner makes of them."""
  corpus = REPOSITORY.parent / "shared/data/corpora/en_novel_paragraphs.txt"
  lines = corpus.read_text(encoding="utf-8").splitlines() if corpus.exists() else made_up_texts(N_PARAGRAPHS)
  return write_shards(tmp_path_factory.mktemp("paragraphs") / "input", lines[:N_PARAGRAPHS], 8)


@pytest.fixture(scope="module")
def local_paragraphs(paragraphs, demo, tmp_path_factory):
  """What the local runner makes of them, once for all versions of Flink."""
  dataset = tmp_path_factory.mktemp("paragraphs-here") / "dataset"
  here(*of_paragraphs(paragraphs, demo, dataset))
  return dataset


def of_paragraphs(paragraphs, demo, dataset):
  return ["--input", paragraphs, "--id-column", "id", "--encoder", demo / "encoder", "--dataset", dataset]


def test_the_demo(flink, demo, tmp_path):
  words = ["--input", demo / "corpus/*.jsonl", "--id-column", "id", "--keep-columns", "text"]
  words += ["--encoder", demo / "encoder", "--whitening", "fit"]
  here(*words, "--dataset", tmp_path / "here")
  there(flink, *words, "--dataset", tmp_path / "there")
  assert_same(tmp_path / "here", tmp_path / "there")


def test_twenty_thousand_paragraphs(flink, paragraphs, local_paragraphs, demo, tmp_path):
  done = there(flink, *of_paragraphs(paragraphs, demo, tmp_path / "there"))
  assert_same(local_paragraphs, tmp_path / "there")
  managers = flink.ask("taskmanagers")["taskmanagers"]
  assert len(managers) == 2
  print(done.stderr[-2000:])


class SlowJob:
  """A job on Flink with an encoder that takes its time, in a process of its own."""

  def __init__(self, flink, folder):
    self.dataset, self._log = folder / "there", folder / "log"
    inputs = write_shards(folder / "input", TEXTS, 3)
    self.words = ["--input", inputs, *SLOW, "--dataset"]
    argv = [sys.executable, "-m", "tests.integration.slow_embed", ENCODE_SECONDS, "embed", *self.words, self.dataset]
    argv += ["--runner", "FlinkRunner", "--", *flink.beam_options()]
    with self._log.open("wb") as log:
      self._process = subprocess.Popen([str(word) for word in argv], cwd=REPOSITORY, stderr=log, stdout=log)

  @property
  def is_in_the_middle(self):
    """Whether something is flushed, and the job still encodes."""
    self._assert_well()
    return len(raw_files(self.dataset)) >= 4

  @property
  def has_published(self):
    """Whether the run is published; its process may go on for a moment."""
    self._assert_well()
    return bool(published_runs(self.dataset))

  def _assert_well(self):
    assert not self._process.poll(), self._log.read_text()[-4000:]

  def finish(self):
    """Waits until the job has ended by itself, and well."""
    assert self._process.wait(timeout=600) == 0, self._log.read_text()[-4000:]

  def run_here(self, dataset):
    """Makes the same with the local runner, and at once."""
    argv = [sys.executable, "-m", "tests.integration.slow_embed", 0, "embed", *self.words, dataset]
    subprocess.run([str(word) for word in argv], cwd=REPOSITORY, check=True, capture_output=True)


def rows_stored(dataset):
  """Rows of all raw files, those that no record names among them: every vector that was ever flushed."""
  return sum(pq.read_metadata(path).num_rows for path in raw_files(dataset))


def test_a_python_worker_is_killed(flink, tmp_path):
  job = SlowJob(flink, tmp_path)
  wait_for(lambda: job.is_in_the_middle, "raw files of the first buckets")
  before, (killed, *_) = rows_stored(job.dataset), flink.workers()
  os.kill(killed, signal.SIGKILL)
  job.finish()
  assert not is_alive(killed)
  assert_tried_again_and_nothing_twice(job, before, tmp_path)


def assert_tried_again_and_nothing_twice(job, before, folder):
  job.run_here(folder / "here")
  assert_same(folder / "here", job.dataset)
  assert len(published_runs(job.dataset)) == 1
  distinct = newest_manifest(job.dataset)["counts"]["encoded"]
  assert 0 < before < distinct  # it was in the middle
  # What was flushed is not encoded again, but for what the surviving worker had in hand when the job was called back.
  in_hand = 2 * -(-distinct // N_BUCKETS)
  assert distinct <= rows_stored(job.dataset) <= distinct + in_hand


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


def files_of(dataset):
  """Every published file of the one run, with its bytes."""
  run = run_folder(dataset, newest_manifest(dataset))
  names = [*dataset.glob("published/*"), *run.glob("vectors/*"), *run.glob("*.npz"), run / "manifest.json"]
  return {str(path): Path(path).read_bytes() for path in names}


def test_a_task_manager_is_killed_in_the_middle(flink, tmp_path):
  """The other one has slots enough."""
  flink.mend()
  job = SlowJob(flink, tmp_path)
  wait_for(lambda: job.is_in_the_middle, "raw files of the first buckets")
  before = rows_stored(job.dataset)
  flink.kill("taskmanager-1")
  job.finish()
  assert_tried_again_and_nothing_twice(job, before, tmp_path)
