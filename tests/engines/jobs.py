"""Jobs for the tests of engines: run here and there, hurt in the middle, and compared."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline.dataset import Dataset
from pipeline.verify import verify_run
from tests.conftest import REPOSITORY
from tests.integration.run_files import (
  published_runs,
  raw_files,
  read_vectors,
  run_folder,
  write_shards,
)
from tests.integration.slow_embed import TEXTS

N_BUCKETS = 16  # of the slow jobs
SLOW = ["--id-column", "id", "--encoder", "fake", "--n-components", 8, "--whitening", "fit", "--buckets", N_BUCKETS]
SLOW += ["--token-budget", 128, "--flush-seconds", 0.1]
ENCODE_SECONDS = 0.5  # a batch of about seven texts: with two workers, twenty seconds in the middle


def here(*words):
  """Runs `sorbus embed` on the local runner."""
  argv = [sys.executable, "-m", "pipeline", "embed", *map(str, words)]
  subprocess.run(argv, cwd=REPOSITORY, check=True, capture_output=True)


def newest_manifest(dataset):
  """The manifest of the published run."""
  return json.loads((dataset / "runs" / published_runs(dataset)[-1] / "manifest.json").read_text())


def assert_same(one, other):
  """Two datasets of the same input: ids equal, counts equal, vectors within 1e-5; and the other one is whole."""
  assert newest_manifest(other)["counts"] == newest_manifest(one)["counts"]
  assert_same_rows(one, other)


def assert_same_rows(one, other):
  """The same, of datasets that were come by in another number of runs: what was encoded and what reused may differ."""
  first, second = newest_manifest(one), newest_manifest(other)
  ids, vectors = read_vectors(one, first)
  other_ids, other_vectors = read_vectors(other, second)
  assert other_ids == ids
  np.testing.assert_allclose(other_vectors, vectors, rtol=0, atol=1e-5)
  checks = verify_run(Dataset.open(str(other)), second["run_id"])
  assert not [check for check in checks if not check.passed]


def of_paragraphs(paragraphs, demo, dataset):
  return ["--input", paragraphs, "--id-column", "id", "--encoder", demo / "encoder", "--dataset", dataset]


class SlowJob:
  """A job on an engine with an encoder that takes its time, in a process of its own."""

  def __init__(self, engine, folder):
    self.dataset, self._log = folder / "there", folder / "log"
    self.words = ["--input", write_shards(folder / "input", TEXTS, 3), *SLOW, "--dataset"]
    self.start(engine, ENCODE_SECONDS)

  def start(self, engine, encode_seconds):
    """Starts it, for the first time or once more."""
    argv = [sys.executable, "-m", "tests.integration.slow_embed", encode_seconds, "embed", *self.words, self.dataset]
    argv += engine.words
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
    assert not self._process.poll(), self.said[-4000:]

  def finish(self):
    """Waits until the job has ended by itself, and well."""
    assert self.end() == 0, self.said[-4000:]

  def end(self):
    """Waits until the job has ended, and returns its exit code."""
    return self._process.wait(timeout=600)

  @property
  def said(self):
    """What it has printed."""
    return self._log.read_text()

  def run_here(self, dataset):
    """Makes the same with the local runner, and at once."""
    argv = [sys.executable, "-m", "tests.integration.slow_embed", 0, "embed", *self.words, dataset]
    subprocess.run([str(word) for word in argv], cwd=REPOSITORY, check=True, capture_output=True)


def rows_stored(dataset):
  """Rows of all raw files, those that no record names among them: every vector that was ever flushed."""
  return sum(pq.read_metadata(path).num_rows for path in raw_files(dataset))


def assert_tried_again_and_nothing_twice(job, before, folder):
  job.run_here(folder / "here")
  assert_same(folder / "here", job.dataset)
  assert len(published_runs(job.dataset)) == 1
  distinct = newest_manifest(job.dataset)["counts"]["encoded"]
  assert 0 < before < distinct  # it was in the middle
  # What was flushed is not encoded again, but for what the surviving worker had in hand when the job was called back.
  in_hand = 2 * -(-distinct // N_BUCKETS)
  assert distinct <= rows_stored(job.dataset) <= distinct + in_hand


def files_of(dataset):
  """Every published file of the one run, with its bytes."""
  run = run_folder(dataset, newest_manifest(dataset))
  names = [*dataset.glob("published/*"), *run.glob("vectors/*"), *run.glob("*.npz"), run / "manifest.json"]
  return {str(path): Path(path).read_bytes() for path in names}
