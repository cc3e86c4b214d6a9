"""Jobs that are killed at random moments and started again, until they are done: what comes out is what would have.

`make test-kill` does it 40 times and prints where each kill hit; five are among the tests of every day. Every other
time two jobs are started at once.
"""

import functools
import json
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.command_line import INTERRUPTED
from pipeline.dataset import Dataset
from pipeline.verify import verify_run
from tests.integration.forked_jobs import PATIENCE_SECONDS, ForkedJob, kill_at_operation
from tests.integration.run_files import embed_fake, published_runs, read_vectors, run_folder
from tests.integration.slow_embed import TEXTS, slow_encoder
from transforms.errors import RunHeldError
from transforms.input_files import ReadOptions

N_RUNS = int(os.environ.get("SORBUS_KILLS", "5"))
N_TEXTS, N_SHARDS, N_EDITS, N_WAVES = 240, 3, 30, 2
MAX_KILLS = 2
N_OPERATIONS = 450  # on the dataset's files, of a run of this size: about
# Twice as often as the others: nothing of ours runs after it.
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
EMBED = {"read": ReadOptions(id_column="id"), "n_components": 8, "buckets": 4, "whitening": "fit"}
FLAGS = ["--id-column", "id", "--encoder", "fake", "--n-components", 8, "--whitening", "fit", "--buckets", 4]
FLAGS += ["--waves", N_WAVES, "--threads", 2, "--token-budget", 512, "--flush-seconds", 0.05]

hits: Counter[str] = Counter()


class Corpus:
  """An input that changes: `edit` gives some documents the text of the night after."""

  def __init__(self, folder: Path, generator: np.random.Generator):
    self.folder, self._generator = folder, generator
    self._texts = TEXTS[:N_TEXTS]
    folder.mkdir()
    self.write()

  def edit(self) -> None:
    """Changes the texts of some documents, drawn at random, to texts that were never there."""
    for i in self._generator.choice(N_TEXTS, N_EDITS, replace=False):
      self._texts[i] = f"{TEXTS[self._generator.integers(len(TEXTS))]} edited {self._generator.integers(1 << 30)}"
    self.write()

  def write(self) -> None:
    """Writes all shards."""
    for shard in range(N_SHARDS):
      rows = [{"id": f"{i:06d}", "text": self._texts[i]} for i in range(shard, N_TEXTS, N_SHARDS)]
      (self.folder / f"documents-{shard}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


class Scene:
  """A dataset, the corpus it is made of, and the jobs that are started on it and killed."""

  def __init__(self, folder: Path, generator: np.random.Generator, seconds: float):
    self.dataset, self.generator, self._seconds = folder / "dataset", generator, seconds
    self.corpus = Corpus(folder / "input", generator)
    self._logs = folder / "logs"
    self._logs.mkdir()

  def start(self, *more: object, die_at: int | None = None) -> ForkedJob:
    """Starts a job; one with `die_at` kills itself at that operation on the dataset's files."""
    log = self._logs / f"{len(list(self._logs.iterdir())):02d}"
    argv = ["embed", "--input", self.corpus.folder, "--dataset", self.dataset, *FLAGS, *more]
    return ForkedJob(log, argv, None if die_at is None else functools.partial(kill_at_operation, self.dataset, die_at))

  def kill(self, *more: tuple[object, ...]) -> list[int]:
    """Starts jobs at once and kills each at a moment of its own, or at an operation; returns their exit codes."""
    operations = [self._draw_operation() for _ in more]
    jobs = [self.start(*words, die_at=n) for words, n in zip(more, operations, strict=True)]
    moments = self.generator.uniform(0, 1.1 * self._seconds, len(jobs))
    moments[[n is not None for n in operations]] = PATIENCE_SECONDS
    numbers = [SIGNALS[i] for i in self.generator.integers(len(SIGNALS), size=len(jobs))]
    for i in np.argsort(moments):
      was_there = jobs[i].kill_at(moments[i], numbers[i])
      hits[stage(self.dataset) if was_there or jobs[i].exit_code() < 0 else "done already"] += 1
    codes = [job.exit_code() for job in jobs]
    for code, number, job in zip(codes, numbers, jobs, strict=True):
      assert code in (0, -number, -signal.SIGKILL, INTERRUPTED, RunHeldError.exit_code), (code, number, job.log)
      assert "Traceback" not in job.log, job.log
    return codes

  def _draw_operation(self) -> int | None:
    return int(self.generator.integers(1, N_OPERATIONS)) if self.generator.random() < 0.5 else None

  def assert_sound(self, before: list[str]) -> None:
    """Whatever hit: no published run went away, and the last one is whole."""
    after = published_runs(self.dataset)
    assert after[: len(before)] == before
    if after:
      checks = verify_run(Dataset.open(str(self.dataset)), after[-1])
      assert not [check for check in checks if not check.passed]


def stage(dataset: Path) -> str:
  """How far the newest run in a dataset has come."""
  newest = max(dataset.glob("runs/[0-9]*/plan.json"), default=None)
  if newest is None or newest.parent.name in published_runs(dataset):
    return "planning, or after publishing"
  run, waves = newest.parent, len(list(newest.parent.glob("records/wave-*")))
  if (run / "manifest.json").exists():
    return "publishing"
  if (run / "vectors").exists():
    return "writing vectors"
  return f"wave {waves}" if waves < N_WAVES else "whitening"


@pytest.fixture(scope="module")
def first_night(tmp_path_factory):
  """(a dataset of one published run, seconds that a job takes which nobody disturbs)."""
  folder = tmp_path_factory.mktemp("first-night")
  scene = Scene(folder, np.random.default_rng(0), 0.0)
  assert ForkedJob(folder / "warm", ["--version"]).exit_code() == 0  # the server has imported all
  started = time.monotonic()
  job = scene.start()
  assert job.exit_code() == 0, job.log
  return scene.dataset, time.monotonic() - started


@pytest.fixture(scope="module", autouse=True)
def report():
  """Says where the kills hit, and that not all hit the same."""
  yield
  print("\nkills by what they hit:", ", ".join(f"{name}: {n}" for name, n in sorted(hits.items())))


@pytest.mark.parametrize("seed", range(N_RUNS))
def test_what_is_killed_and_started_again_ends_as_if_nothing_had_happened(first_night, tmp_path, seed):
  generator = np.random.default_rng(seed)
  scene = Scene(tmp_path, generator, first_night[1])
  if seed % 4 >= 2:  # a night upon a published one
    shutil.copytree(first_night[0], scene.dataset)
    scene.corpus.edit()
  is_pair = seed % 2 == 1
  for _ in range(generator.integers(1, MAX_KILLS + 1)):
    before = published_runs(scene.dataset)
    codes = scene.kill((), ("--wait",) * generator.integers(2)) if is_pair else scene.kill(())
    assert is_pair or RunHeldError.exit_code not in codes, "the lock of a dead job was kept"
    scene.assert_sound(before)
    if generator.random() < 0.4:
      scene.corpus.edit()
  finish(scene, is_pair, wait=generator.random() < 0.5)
  assert_equals_undisturbed(scene, tmp_path / "undisturbed")


def finish(scene: Scene, is_pair: bool, wait: bool) -> None:
  """Lets one job, or two at once, go on to the end: one does the work."""
  before = published_runs(scene.dataset)
  jobs = [scene.start(), scene.start(*["--wait"] * wait)] if is_pair else [scene.start()]
  codes = [job.exit_code() for job in jobs]
  logs = "\n".join(job.log for job in jobs)
  allowed = {(0,), (0, 0), (0, 75), (75, 0)}
  assert tuple(codes) in allowed, (codes, logs)
  assert not wait or codes[-1] == 0, logs
  assert len(published_runs(scene.dataset)) - len(before) == logs.count("\npublished: ") <= 1, logs
  assert logs.count("published: ") + logs.count("unchanged: ") == codes.count(0), logs
  scene.assert_sound(before)


def assert_equals_undisturbed(scene: Scene, dataset: Path) -> None:
  """The published run is, row for row, that of a job on a new dataset that nobody kills.

  But for signs of whole components: a fit takes those of the run published before, and here there may be none.
  """
  expected = embed_fake(slow_encoder(0), dataset, scene.corpus.folder, **EMBED, threads=2)
  assert expected.status == "published"
  doc_ids, vectors = read_vectors(dataset, expected.manifest)
  published = {"run_id": published_runs(scene.dataset)[-1]}
  assert len(doc_ids) == N_TEXTS
  found_ids, found_vectors = read_vectors(scene.dataset, published)
  assert found_ids == doc_ids
  kernel = Dataset.open(str(dataset)).whitening(expected.manifest["run_id"]).kernel
  found_kernel = Dataset.open(str(scene.dataset)).whitening(published["run_id"]).kernel
  signs = np.sign((kernel * found_kernel).sum(axis=0))
  np.testing.assert_allclose(found_kernel, kernel * signs, rtol=0, atol=1e-8)
  np.testing.assert_allclose(found_vectors, vectors * signs.astype(np.float32), rtol=0, atol=1e-5)
  assert digests_of(scene.dataset, published) == digests_of(dataset, expected.manifest)


def digests_of(dataset, manifest):
  """(doc_id, text digest) of every document of a run, sorted."""
  table = pq.read_table(run_folder(dataset, manifest) / "documents", columns=["doc_id", "text_digest"])
  return sorted(zip(*table.to_pydict().values(), strict=True))
