import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from pipeline.choose_whitening import choose_whitening
from pipeline.dataset import Dataset
from pipeline.options import EmbedOptions
from pipeline.planning import find_published
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, write_shards
from transforms.errors import UsageError

TEXTS = made_up_texts(30)
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  folder = tmp_path_factory.mktemp("made")
  inputs = write_shards(folder / "in", TEXTS, 1)
  outcome = embed_fake(ENCODER, folder / "ds", inputs, n_components=0.8, buckets=1, threads=1)
  return str(folder / "ds"), outcome.manifest


def choose(dataset, spec=ENCODER.spec, **options):
  asked = EmbedOptions(inputs=("x",), encoder="e", dataset=dataset, **options)
  return choose_whitening(asked, spec, find_published(dataset))


def test_where_nothing_is_published_the_encoder_decides(tmp_path):
  dataset = str(tmp_path / "new")
  chosen = choose(dataset)
  assert (chosen.asked, chosen.problem, chosen.fit.given, chosen.fit.last) == ("fit", None, None, None)
  assert choose(dataset, replace(ENCODER.spec, for_cosine=True)).asked == "none"
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("for_cosine", [False, True])
def test_what_is_published_is_reused_with_all_that_is_known_of_it(made, for_cosine):
  dataset, manifest = made
  chosen = choose(dataset, replace(ENCODER.spec, for_cosine=for_cosine), refit_above=0.4)
  fit, K = chosen.fit, manifest["whitening"]["n_components"]
  assert (chosen.asked, chosen.problem) == ("reuse", None)
  assert fit.given.fingerprint == fit.last.whitening.fingerprint == manifest["whitening"]["fingerprint"]
  assert (fit.given_by, fit.last.run_id, fit.last.asked) == (manifest["run_id"], manifest["run_id"], "fit")
  assert (fit.n_components, fit.last.n_components, fit.refit_above) == (K, 0.8, 0.4)
  assert choose(dataset, n_components=0.8).fit.n_components == 0.8
  assert choose(dataset, n_components=K).fit.n_components == K
  with pytest.raises(UsageError, match=r"^--n-components 0\.7: the published run"):
    choose(dataset, n_components=0.7)


def test_what_is_published_meanwhile_does_not_mix_with_what_was(made, tmp_path):
  shutil.copytree(made[0], tmp_path / "ds")
  published = find_published(str(tmp_path / "ds"))
  inputs = write_shards(tmp_path / "in", TEXTS[:20], 1)
  other = embed_fake(ENCODER, tmp_path / "ds", inputs, whitening="fit", n_components=3, buckets=1, threads=1)
  asked = EmbedOptions(inputs=("x",), encoder="e", dataset=str(tmp_path / "ds"))
  assert choose_whitening(asked, ENCODER.spec, published).fit.last.run_id == made[1]["run_id"]
  assert Dataset.open(asked.dataset).published().run_id == other.manifest["run_id"]


def test_fit_and_none_know_of_the_last_for_its_signs_and_drift(made):
  fit = choose(made[0], whitening="fit", n_components=3).fit
  assert (fit.given, fit.n_components, fit.last.run_id) == (None, 3, made[1]["run_id"])
  none = choose(made[0], whitening="none").fit
  assert none.given.is_none and none.given_by is None


def test_a_whitening_file_has_to_be_there(tmp_path):
  dataset, path = str(tmp_path / "new"), str(tmp_path / "w.npz")
  with pytest.raises(UsageError, match=rf"^--whitening {path}: no such file; choose fit, none, or a whitening file$"):
    choose(dataset, whitening=path)
  with pytest.raises(UsageError, match=rf"^--whitening {tmp_path}: cannot be read \(Is a directory\)"):
    choose(dataset, whitening=str(tmp_path))
  np.savez(path, kernel=np.eye(8), bias=np.ones(8))
  chosen = choose(dataset, whitening=path, n_components=2)
  assert (chosen.asked, chosen.fit.given.n_components) == (path, 2)


def test_another_encoders_whitening_is_not_taken_and_that_is_said(made):
  other = FakeEncoder(make_vocabulary(TEXTS), 8, name="other").spec
  chosen = choose(made[0], other)
  assert (chosen.asked, chosen.fit.given, chosen.fit.last) == ("fit", None, None)
  assert chosen.problem.startswith(f"run {made[1]['run_id']} was made by another encoder (")
  with pytest.raises(UsageError, match=r"^--whitening reuse: run .* another encoder .*leave it out or give"):
    choose(made[0], other, whitening="reuse")
  assert choose(made[0], other, whitening="fit").problem is None


def test_a_damaged_manifest_is_a_problem_and_no_error(made, tmp_path):
  shutil.copytree(made[0], tmp_path / "ds")
  path = tmp_path / "ds/runs" / made[1]["run_id"] / "manifest.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | {"whitening": {}}))
  chosen = choose(str(tmp_path / "ds"))
  assert chosen.asked == "fit" and "has no 'whitening.asked'" in chosen.problem
