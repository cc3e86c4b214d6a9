"""What `sorbus rewhiten` decides; what comes of it is in tests/integration/test_whitening_nights.py."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.dataset import Dataset
from pipeline.lock import DatasetLock, Owner
from pipeline.options import RewhitenOptions
from pipeline.rewhiten import plan_rewhiten, rewhiten
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, run_folder, write_shards
from transforms.errors import RunHeldError, UsageError

TEXTS = made_up_texts(30)
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 8, labels=("a", "b", "c"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  folder = tmp_path_factory.mktemp("made")
  inputs = write_shards(folder / "in", TEXTS, 1)
  options = {"n_components": 3, "max_rejected": 0.2, "max_shrink": 0.3, "threshold": 0.4, "buckets": 1, "threads": 1}
  return folder / "ds", embed_fake(ENCODER, folder / "ds", inputs, **options).manifest


@pytest.fixture
def edited(made, tmp_path):
  """A copy of the dataset whose manifest can be changed."""
  shutil.copytree(made[0], tmp_path / "ds")
  path = tmp_path / "ds/runs" / made[1]["run_id"] / "manifest.json"

  def edit(**changes):
    path.write_text(
      json.dumps({key: value | changes.get(key, {}) if key in changes else value for key, value in made[1].items()})
    )
    return tmp_path / "ds"

  return edit


def plan_of(dataset, **options):
  return plan_rewhiten(RewhitenOptions(dataset=str(dataset), **options)).run


def test_everything_but_the_whitening_is_as_in_the_source(made):
  dataset, manifest = made
  plan = plan_of(dataset)
  assert plan.publish.options == manifest["options"]
  assert (plan.publish.max_rejected, plan.publish.max_shrink, plan.publish.base_rows) == (0.2, 0.3, 30)
  assert (plan.publish.encoder, plan.publish.made_from) == (manifest["encoder"], manifest["run_id"])
  assert (plan.run.bits, plan.run.store.n_labels, plan.run.store.hidden_size) == (0, 3, 8)
  assert (plan.run.predictions.labels, plan.run.predictions.threshold) == (("a", "b", "c"), 0.4)
  assert (plan.fit.n_components, plan.fit.given, plan.fit.last.run_id) == (3, None, manifest["run_id"])
  gates = plan_of(dataset, max_rejected=0.0, max_shrink=0.1)
  assert (gates.publish.max_rejected, gates.publish.max_shrink) == (0.0, 0.1)
  assert gates.publish.options == {**manifest["options"], "max_rejected": 0.0, "max_shrink": 0.1}


@pytest.mark.parametrize(
  ("source", "asked", "fitted", "recorded"),
  [
    ({}, {"n_components": 5}, 5, (None, 5)),
    ({"options": {"n_components": 0.9}}, {}, 0.9, (None, 0.9)),
    ({"options": {"n_components": None}}, {}, 3, (None, None)),  # as many as it has
    ({"options": {"whitening": "fit"}}, {}, 3, ("fit", 3)),
    ({"options": {"whitening": "none", "n_components": None}, "whitening": {"asked": "none"}}, {}, None, (None, None)),
    ({"options": {"n_components": None}, "whitening": {"refused": "too few"}}, {}, None, (None, None)),
  ],
)
def test_how_many_components_are_fitted_and_what_the_next_night_compares(edited, source, asked, fitted, recorded):
  plan = plan_of(edited(**source), **asked)
  assert plan.fit.n_components == fitted
  assert (plan.publish.options["whitening"], plan.publish.options["n_components"]) == recorded


def test_none_or_a_file(made, tmp_path):
  none = plan_of(made[0], whitening="none")
  assert none.fit.given.is_none and none.publish.whitening == "none"
  assert (none.publish.options["whitening"], none.publish.options["n_components"]) == ("none", None)
  np.savez(tmp_path / "w.npz", kernel=np.eye(8), bias=np.ones(8))
  path = str(tmp_path / "w.npz")
  file = plan_of(made[0], whitening=path, n_components=2)
  assert file.fit.given.kernel.tolist() == np.eye(8)[:, :2].tolist() and file.publish.whitening == path
  assert (file.publish.options["whitening"], file.publish.options["n_components"]) == (path, 2)


def test_what_cannot_be_had_is_refused(made, tmp_path):
  with pytest.raises(UsageError, match=r"^--n-components 9: the encoder's vectors have 8"):
    plan_of(made[0], n_components=9)
  with pytest.raises(UsageError, match=r"^--whitening reuse: no such file; choose fit, none, or a whitening file"):
    plan_of(made[0], whitening="reuse")
  with pytest.raises(UsageError, match=r"no run 'nobody'"):
    plan_of(made[0], run_id="nobody")
  Dataset.open_or_create(str(tmp_path / "empty"), {"fingerprint": "x"})
  with pytest.raises(UsageError, match=r"nothing is published yet; name a run with --run"):
    plan_of(tmp_path / "empty")


def test_a_run_of_another_encoder_does_not_undo_a_migration(made, tmp_path):
  dataset = shutil.copytree(made[0], tmp_path / "ds")
  inputs = write_shards(tmp_path / "in", TEXTS, 1)
  other = FakeEncoder(make_vocabulary(TEXTS), 8, name="other")
  embed_fake(other, dataset, inputs, new_encoder=True, n_components=3, buckets=1, threads=1)
  old, new = made[1]["run_id"], other.spec.fingerprint[:16]
  with pytest.raises(UsageError, match=rf"^run {old} is of encoder .*, the published run of {new}; .*`sorbus publish"):
    plan_of(dataset, run_id=old)


def test_one_job_at_a_time_and_nothing_is_left(edited):
  dataset = edited()
  lock = DatasetLock(Dataset.open(str(dataset)).storage)
  number = lock.acquire(replace(Owner.here("embed"), host="elsewhere"))
  before = sorted((dataset / "runs").iterdir())
  with pytest.raises(RunHeldError, match="on elsewhere"):
    rewhiten(RewhitenOptions(dataset=str(dataset), threads=1))
  assert sorted((dataset / "runs").iterdir()) == before
  lock.release(number)


def test_what_a_head_gave_is_carried_over(made):
  dataset, source = made
  manifest = rewhiten(RewhitenOptions(dataset=str(dataset), n_components=2, threads=1)).manifest
  ours, theirs = (
    pq.read_table(run_folder(dataset, m) / "vectors").drop_columns(["vector"]) for m in (manifest, source)
  )
  assert ours.equals(theirs) and "labels" in ours.column_names
  assert Dataset.open(str(dataset)).published().run_id == manifest["run_id"]
