"""`sorbus gc` over nights of the whole job: what is kept verifies, keeps its vectors, and is not encoded again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import collect_garbage
from pipeline.command_line import main
from pipeline.lock import DatasetLock, Owner
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import (
  embed_fake,
  made_up_texts,
  published_runs,
  raw_files,
  read_raw,
  read_vectors,
  write_shards,
)
from transforms.input_files import ReadOptions
from transforms.storage import Storage

TEXTS = made_up_texts(80)
EMBED = {"read": ReadOptions(id_column="id"), "n_components": 8, "threads": 1}
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 16)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  folder, manifests = tmp_path_factory.mktemp("gc"), []
  for number, buckets in enumerate((2, 8, 4)):
    inputs = write_shards(folder / f"night{number}", TEXTS[10 * number : 60 + 10 * number], 2)
    manifests.append(embed_fake(ENCODER, folder / "dataset", inputs, **EMBED, buckets=buckets).manifest)
  return folder / "dataset", manifests


@pytest.fixture
def nights(made, tmp_path):
  """A dataset of three published runs, each with other texts and buckets, and their manifests."""
  return Path(shutil.copytree(made[0], tmp_path / "dataset")), made[1]


def files(dataset):
  return {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file() and "locks" not in path.parts}


def test_what_is_kept_verifies_and_the_next_night_encodes_nothing_that_is_live(nights, tmp_path, capsys):
  dataset, (first, second, third) = nights
  vectors = {m["run_id"]: read_vectors(dataset, m) for m in (second, third)}
  raw = read_raw(dataset, TEXTS[10:])
  assert main(["gc", str(dataset), "--keep-runs", "2"]) == 0
  out = capsys.readouterr().out
  assert "runs removed" in out and first["run_id"] in out and out.splitlines()[-1].startswith("freed ")
  assert published_runs(dataset) == [m["run_id"] for m in (first, second, third)]
  for manifest in (second, third):
    assert main(["verify", str(dataset), "--run", manifest["run_id"]]) == 0
    assert (read_vectors(dataset, manifest)[1] == vectors[manifest["run_id"]][1]).all()
  assert read_raw(dataset, TEXTS[10:]).tobytes() == raw.tobytes()
  inputs = write_shards(tmp_path / "night3", TEXTS[10:], 3)
  outcome = embed_fake(ENCODER, dataset, inputs, **EMBED, buckets=4)
  assert (outcome.status, outcome.manifest["counts"]["encoded"]) == ("published", 0)
  assert main(["publish", str(dataset), second["run_id"]]) == 0


def test_a_run_that_was_removed_is_told_as_such(nights, capsys):
  dataset, (first, *_) = nights
  assert main(["gc", str(dataset), "--keep-runs", "1"]) == 0
  capsys.readouterr()
  gone = first["run_id"]
  for command in (
    ["show", str(dataset), "--run", gone],
    ["verify", str(dataset), "--run", gone],
    ["publish", str(dataset), gone],
  ):
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"run {gone} was removed by `sorbus gc`" in error
  assert main(["show", str(dataset), "--json"]) == 0
  assert gone not in [line["run_id"] for line in json.loads(capsys.readouterr().out)["runs"]]


def test_a_dry_run_says_the_same_and_removes_nothing(nights, capsys):
  dataset, manifests = nights
  before = files(dataset)
  assert main(["gc", str(dataset), "--keep-runs", "1", "--dry-run", "--json"]) == 0
  planned = json.loads(capsys.readouterr().out)
  assert files(dataset) == before
  assert main(["gc", str(dataset), "--keep-runs", "1", "--dry-run"]) == 0
  assert capsys.readouterr().out.splitlines()[-1].startswith("would free about ")
  assert main(["gc", str(dataset), "--keep-runs", "1", "--json"]) == 0
  done = json.loads(capsys.readouterr().out)
  assert (planned["status"], done["status"]) == ("planned", "done")
  assert (
    planned["runs"]
    == done["runs"]
    == {
      "kept": [manifests[2]["run_id"]],
      "removed": [m["run_id"] for m in manifests[:2]],
      "unfinished": [],
    }
  )
  assert planned["raw"]["rows_dropped"] == done["raw"]["rows_dropped"] == 20
  assert done["raw"]["damaged"] == {} and done["raw"]["rewritten"] == 2 and done["raw"]["written"] == 4
  freed = sum(map(len, before.values())) - sum(map(len, files(dataset).values()))
  notes = sum(path.stat().st_size for path in (dataset / "removed").iterdir())
  assert done["bytes_freed"] == freed + notes
  assert main(["gc", str(dataset), "--keep-runs", "1"]) == 0
  assert capsys.readouterr().out.splitlines()[-1] == "freed nothing: every run and file is still needed"


def test_it_is_refused_while_another_job_holds_the_dataset(nights, capsys):
  dataset, _ = nights
  before = files(dataset)
  DatasetLock(Storage.at(str(dataset))).acquire(replace(Owner.here("embed"), host="elsewhere"))
  assert main(["gc", str(dataset), "--keep-runs", "1"]) == 75
  assert "`sorbus embed`" in capsys.readouterr().err
  assert files(dataset) == before


def test_a_lock_that_was_taken_over_stops_it(nights, capsys, monkeypatch):
  dataset, _ = nights
  before = files(dataset)
  plan_garbage = collect_garbage.plan_garbage

  def slow_plan(*args, **kwargs):
    lock = DatasetLock(Storage.at(str(dataset)), clock=lambda: 1e11)
    monkeypatch.setattr(Owner, "is_known_dead", lambda _: True)
    lock.acquire(Owner.here("embed"))
    return plan_garbage(*args, **kwargs)

  monkeypatch.setattr(collect_garbage, "plan_garbage", slow_plan)
  assert main(["gc", str(dataset), "--keep-runs", "1"]) == 75
  assert "taken it over" in capsys.readouterr().err
  assert files(dataset) == before


def test_a_damaged_raw_file_is_warned_of(nights, capsys):
  dataset, _ = nights
  path = next(path for path in raw_files(dataset) if path.name.startswith("0-"))
  path.write_bytes(path.read_bytes()[:-1])
  assert main(["gc", str(dataset), "--keep-runs", "1"]) == 0
  assert f"warning: left as it is: raw/{path.parent.name}/{path.name}: damaged" in capsys.readouterr().err
  assert path.exists()
