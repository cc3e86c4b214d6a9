"""Two attempts at one run at once, as when an engine takes a worker for lost that lives: one counts, whole."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import graph
from pipeline.dataset import Dataset
from pipeline.embed import outcome, run_on_cluster
from pipeline.embed_plan import start_run
from pipeline.engines import choose_engine
from pipeline.graph import EmbedCorpus, Loaders
from pipeline.options import EmbedOptions
from pipeline.planning import plan_run
from pipeline.run_pipeline import run_pipeline
from pipeline.verify import verify_run
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, published_runs, run_folder, write_shards
from tests.processes import wait_for
from transforms.errors import StoreError
from transforms.input_files import ReadOptions
from transforms.wordpiece import Wordpiece

TEXTS = made_up_texts(400)
VOCABULARY = make_vocabulary(TEXTS)
ENCODER = FakeEncoder(VOCABULARY, 16)
EMBED = {"read": ReadOptions(id_column="id"), "n_components": 8, "buckets": 4, "threads": 2, "max_rejected": 0.1}


class _SlowWordpiece(Wordpiece):
  """Reads one piece, and the next once the gate is open."""

  gate: Path
  calls = 0

  def tokenise(self, texts):
    self.calls += 1
    if self.calls > 1:
      wait_at(self.gate)
    return super().tokenise(texts)


class ZombieEncoder(FakeEncoder):
  """Its vectors differ in the last bits, as another machine's do, and it waits where it is told to."""

  def __init__(self, waits: str, gate: Path):
    super().__init__(VOCABULARY, 16)
    self.waits, self.gate = waits, gate

  def encode(self, input_ids, input_mask):
    if self.waits == "encoding":
      wait_at(self.gate)
    vectors = super().encode(input_ids, input_mask)
    return np.nextafter(vectors, np.float32(np.inf))

  def load_tokenizer(self):
    wordpiece = super().load_tokenizer()
    if self.waits == "reading":
      wordpiece = _SlowWordpiece(VOCABULARY, self.spec.tokenizer, self.spec.max_seq_length)
      wordpiece.gate = self.gate
    return wordpiece


def wait_at(gate):
  reached(gate).touch()
  wait_for(gate.exists, str(gate))


def reached(gate):
  return gate.with_suffix(".reached")


@pytest.fixture(scope="module")
def first_night(tmp_path_factory):
  """A dataset of half the texts."""
  folder = tmp_path_factory.mktemp("first")
  embed_fake(ENCODER, folder / "dataset", write_shards(folder / "input", TEXTS[:200], 2), **EMBED)
  return folder / "dataset"


@pytest.fixture
def plan(first_night, tmp_path):
  """A second night, planned and not begun: two texts of three are new, one is empty, one id is there twice."""
  dataset = tmp_path / "dataset"
  shutil.copytree(first_night, dataset)
  inputs = write_shards(tmp_path / "second", [*TEXTS[100:], "", TEXTS[0]], 6)
  (inputs / "again.jsonl").write_text((inputs / "documents-00000-of-00006.jsonl").read_text().splitlines(True)[0])
  options = EmbedOptions(inputs=(str(inputs),), encoder="fake", dataset=str(dataset), **EMBED)
  plan = plan_run(options, ENCODER.spec, 0, choose_engine(threads=2))
  return start_run(plan, options, lambda _: None)


def attempt(plan, loaders: Loaders):
  """Runs all of it, as an engine does when it tries a job again."""
  with run_pipeline(choose_engine(["--direct_running_mode=multi_threading"], threads=2)) as p:
    _ = p | EmbedCorpus(plan.run, replace(plan.waves[0], known=None), plan.slices, loaders, plan.publish, plan.fit)


def check_whole(plan, dataset):
  """The run is published once, as `sorbus verify` has it, and its folders hold what its manifest names."""
  found = outcome(plan)
  assert (found.status, found.manifest["counts"]["written"]) == ("published", 301)
  assert [check for check in verify_run(Dataset(plan.run.storage), plan.run.run_id) if not check.passed] == []
  assert len(published_runs(dataset)) == 2 and plan.publish.n_slices == len(plan.slices) == 7
  folder = run_folder(dataset, found.manifest)
  there = {path for pattern in ("*/*.parquet", "*/*.jsonl", "*.npz") for path in folder.glob(pattern)}
  named = {file["path"] for files in found.manifest["files"].values() for file in files}
  assert {str(path.relative_to(dataset)) for path in there} == named


@pytest.mark.parametrize("waits", ["reading", "encoding", "nowhere"])
def test_a_zombie_changes_nothing(plan, tmp_path, monkeypatch, waits):
  """It goes on once the run is published, having read a part of the input or all of it, and dies before its end."""
  dataset, gate = tmp_path / "dataset", tmp_path / "gate"
  with ThreadPoolExecutor(1) as pool:
    zombie = pool.submit(attempt, plan, ZombieEncoder(waits, gate).loaders())
    if waits != "nowhere":
      # One that comes late finds every text encoded, and waits for nothing.
      wait_for(reached(gate).exists, "the zombie waits")
    attempt(plan, ENCODER.loaders())
    if waits == "nowhere":
      zombie.result()
    else:
      monkeypatch.setattr(graph, "finish_run", die)
      gate.touch()
      with pytest.raises(StoreError, match="killed"):
        zombie.result()
  check_whole(plan, dataset)


def test_what_died_before_it_published_is_carried_on_by_an_attempt_that_reads_nothing(plan, tmp_path, monkeypatch):
  with monkeypatch.context() as patched:
    patched.setattr(Dataset, "publish", die)
    with pytest.raises(StoreError, match="killed"):
      attempt(plan, ENCODER.loaders())
  with monkeypatch.context() as patched:  # as the driver hears of it, which finds a manifest and no verdict on it
    patched.setattr("pipeline.embed.repaired", die)
    with pytest.raises(StoreError, match="killed"):
      run_on_cluster(plan, ENCODER.loaders(), choose_engine(threads=2), detach=False)
  attempt(plan, ENCODER.loaders())
  check_whole(plan, tmp_path / "dataset")


def die(*_, **__):
  raise StoreError("killed")
