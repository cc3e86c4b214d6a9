"""Publishing a run that is there: back to an older one, on to one that was held back, never to a damaged one."""

import shutil
from pathlib import Path

import pytest

from pipeline.dataset import Dataset
from pipeline.publish_run import publish_run
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, published_runs, raw_files, write_shards
from transforms.errors import RunHeldError, StoreError, UsageError
from transforms.input_files import ReadOptions


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
  """A dataset of three runs: two published, one held back because a text has no token."""
  folder = tmp_path_factory.mktemp("nights")
  inputs = write_shards(folder / "input", made_up_texts(30), 1)
  options = {"n_components": 4, "buckets": 2, "threads": 1, "read": ReadOptions(id_column="id")}
  encoder = FakeEncoder(make_vocabulary([]), hidden_size=8)
  runs = [embed_fake(encoder, folder / "dataset", inputs, **options).manifest["run_id"] for _ in range(2)]
  (inputs / "bad.jsonl").write_text('{"id": "e", "text": " "}\n')
  held = embed_fake(encoder, folder / "dataset", inputs, **options)
  assert held.status == "held back"
  return folder / "dataset", [*runs, held.manifest["run_id"]]


@pytest.fixture
def copy(nights, tmp_path):
  folder = Path(shutil.copytree(nights[0], tmp_path / "dataset"))
  return folder, Dataset.open(str(folder)), nights[1]


def test_a_rollback_publishes_the_older_run_under_a_new_number(copy):
  folder, dataset, (first, second, _) = copy
  assert published_runs(folder) == [first, second]
  entry = publish_run(dataset, first)
  assert (entry.number, entry.run_id, entry.base) == (3, first, 2)
  assert published_runs(folder) == [first, second, first]
  assert dataset.published() == entry


def test_the_published_run_stays_under_its_number(copy):
  folder, dataset, (first, second, _) = copy
  assert publish_run(dataset, second).number == 2
  assert published_runs(folder) == [first, second]


def test_a_run_that_was_held_back_needs_a_decision(copy):
  _, dataset, (*_, held) = copy
  with pytest.raises(
    UsageError, match=r"was held back \(rejected\): 1 of 31 .*; publish it all the same with --anyway"
  ):
    publish_run(dataset, held)
  assert publish_run(dataset, held, anyway=True).run_id == held


def test_a_damaged_run_is_never_published(copy):
  folder, dataset, (first, second, _) = copy
  path = next((folder / "runs" / first / "vectors").iterdir())
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(StoreError, match=rf"run {first} is not whole \(files: .*{path.name} was changed"):
    publish_run(dataset, first, anyway=True)
  assert published_runs(folder) == [first, second]


def test_a_run_whose_raw_vectors_are_lost_is_published_and_the_loss_is_told(copy):
  folder, dataset, (first, *_) = copy
  for path in raw_files(folder):
    path.unlink()
  said = []
  assert publish_run(dataset, first, say=said.append).run_id == first
  (line,) = said
  assert line.startswith(f"warning: raw vectors of run {first} are lost") and "30 texts have no vector" in line


def test_of_two_at_once_the_second_is_told(copy, monkeypatch):
  folder, dataset, (first, second, held) = copy

  def overtaken(*args):
    monkeypatch.undo()
    publish_run(dataset, held, anyway=True)
    return []

  monkeypatch.setattr("pipeline.publish_run.verify_run", overtaken)
  with pytest.raises(RunHeldError, match=f"run {held} was published at the same moment"):
    publish_run(dataset, first)
  assert published_runs(folder) == [first, second, held]


def test_a_run_that_is_not_there_is_refused(copy):
  with pytest.raises(UsageError, match="no run 'nothing'"):
    publish_run(copy[1], "nothing")
