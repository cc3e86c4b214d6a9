"""Whitening over time: reused night after night, its drift recorded, fitted anew when asked, whole runs rewhitened."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.options import RewhitenOptions
from pipeline.rewhiten import rewhiten
from pipeline.verify import verify_run
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import (
  embed_fake,
  made_up_texts,
  published_runs,
  read_vectors,
  run_folder,
  write_shards,
)
from transforms.errors import UsageError
from transforms.input_files import ReadOptions

OLD, NEW = made_up_texts(200), made_up_texts(200, seed=1)
ENCODER = FakeEncoder(make_vocabulary([*OLD, *NEW]), 16)
EMBED = {"read": ReadOptions(id_column="id", keep_columns=("text",)), "buckets": 4, "threads": 1}


def write_night(folder, texts):
  shutil.rmtree(folder, ignore_errors=True)
  return write_shards(folder, texts, 2)


@pytest.fixture(scope="module")
def first_night(tmp_path_factory):
  folder = tmp_path_factory.mktemp("first")
  manifest = embed_fake(ENCODER, folder / "dataset", write_night(folder / "input", OLD), **EMBED).manifest
  return folder, manifest


@pytest.fixture
def night(first_night, tmp_path):
  """A dataset of one published run, its input, and the run's manifest."""
  shutil.copytree(first_night[0], tmp_path, dirs_exist_ok=True)
  return tmp_path / "dataset", tmp_path / "input", first_night[1]


def next_night(night, texts, **options):
  return embed_fake(ENCODER, night[0], write_night(night[1], texts), **(EMBED | options)).manifest


def whole(dataset, manifest):
  return [check for check in verify_run(Dataset.open(str(dataset)), manifest["run_id"]) if not check.passed] == []


def test_the_first_night_fits_and_measures_no_drift(night):
  whitening = night[2]["whitening"]
  assert (whitening["asked"], whitening["fitted_by"], night[2]["drift"]) == ("fit", night[2]["run_id"], None)
  assert night[2]["made_from"] is None


def test_later_nights_keep_the_vectors_of_unchanged_documents_to_the_bit(night):
  """Half is new, the rest lies in other buckets: rows of each text stand beside others, and at other places."""
  before = dict(zip(*read_vectors(night[0], night[2]), strict=True))
  second = next_night(night, [*OLD[:100], *NEW[:100]], buckets=1)
  third = next_night(night, [*OLD[:100], *NEW[:20]], buckets=16)
  for manifest in (second, third):
    assert manifest["whitening"] == {**night[2]["whitening"], "asked": "reuse"}
    assert manifest["drift"]["against"] in (night[2]["run_id"], second["run_id"])
    ids, vectors = read_vectors(night[0], manifest)
    after = dict(zip(ids, vectors, strict=True))
    assert all((after[f"{i:06d}"] == before[f"{i:06d}"]).all() for i in range(100))
    assert not (after["000100"] == before["000100"]).all()
  assert published_runs(night[0]) == [night[2]["run_id"], second["run_id"], third["run_id"]]


def test_an_identical_night_is_unchanged_after_a_reuse_and_after_a_new_fit(night):
  same = next_night(night, OLD)  # of another place than the first, so not unchanged
  assert (same["drift"]["mean"], same["drift"]["covariance"], same["drift"]["neighbours"]) == (0, 0, 0)
  assert embed_fake(ENCODER, night[0], night[1], again=False, **EMBED).status == "unchanged"
  rewhitened = rewhiten(RewhitenOptions(dataset=str(night[0]), threads=1)).manifest
  assert rewhitened["whitening"]["n_components"] == 15
  assert embed_fake(ENCODER, night[0], night[1], again=False, **EMBED).status == "unchanged"


def test_drift_of_the_old_is_recorded_where_a_new_one_is_fitted(night):
  reused, fitted = (next_night(night, [*OLD[:150], *NEW[:50]], whitening=w) for w in ("reuse", "fit"))
  assert fitted["drift"] == {**reused["drift"], "against": reused["run_id"]}
  assert fitted["whitening"]["fitted_by"] == fitted["run_id"] and fitted["whitening"]["asked"] == "fit"


def test_too_small_a_corpus_says_why_its_neighbours_are_unknown(night):
  drift = next_night(night, OLD[:80], max_shrink=1.0)["drift"]
  assert drift["neighbours"] is None and drift["mean"] > 0
  assert drift["reason"] == "80 texts are too few to compare neighbours, 100 are needed"


def test_above_the_limit_it_is_fitted_anew_and_below_it_is_not(night):
  at = next_night(night, [*OLD[:180], *NEW[:20]], refit_above=0.9)
  share = at["drift"]["neighbours"]
  above = next_night(night, [*OLD[:180], *NEW[:20]], refit_above=share - 1e-6)
  assert at["whitening"]["fitted_by"] == night[2]["run_id"]
  assert (above["whitening"]["fitted_by"], above["whitening"]["asked"]) == (above["run_id"], "reuse")
  assert above["whitening"]["count"] == 200 and whole(night[0], above)
  # Signs are those of the last, so that a component still means what it meant.
  mean_cosine = (read_vectors(night[0], at)[1] * read_vectors(night[0], above)[1]).sum(axis=1).mean()
  assert mean_cosine > 0.9


def test_what_was_published_without_a_whitening_stays_so(night):
  none = next_night(night, OLD, whitening="none")
  assert none["drift"] is None and none["whitening"]["fitted_by"] is None
  later = next_night(night, OLD)
  assert (later["whitening"]["asked"], later["whitening"]["n_components"], later["drift"]) == ("none", 16, None)
  with pytest.raises(
    UsageError, match=r"^--n-components 4: the published run has no whitening.* rewhiten .*whitening fit"
  ):
    next_night(night, OLD, n_components=4)


def test_a_whitening_that_is_lost_is_fitted_anew_and_that_is_said(night, capsys):
  next(night[0].glob("runs/*/whitening-*.npz")).unlink()
  with pytest.raises(UsageError, match=r"^--whitening reuse: .*whitening-.* is missing; .*--whitening fit$"):
    next_night(night, OLD, whitening="reuse")
  manifest = next_night(night, OLD)
  assert (manifest["whitening"]["asked"], manifest["drift"]) == ("fit", None)
  assert "warning: whitening fit, and not the published run's, so that all" in capsys.readouterr().err


def test_other_components_are_refused_with_both_and_the_remedy(night):
  refused = rf"^--n-components 4: the published run {night[2]['run_id']} has 15, .*rewhiten .*--n-components 4.*fit$"
  with pytest.raises(UsageError, match=refused):
    next_night(night, OLD, n_components=4)
  share = next_night(night, OLD, n_components=0.5, whitening="fit")["whitening"]["n_components"]
  assert share < 15
  assert next_night(night, OLD, n_components=0.5)["whitening"]["n_components"] == share
  assert next_night(night, OLD, n_components=share)["whitening"]["asked"] == "reuse"


def test_show_prints_drift(night, capsys):
  next_night(night, [*OLD[:150], *NEW[:50]])
  assert main(["show", str(night[0])]) == 0
  out = capsys.readouterr().out
  assert f"drift under the whitening of run {night[2]['run_id']}: mean 0." in out and "of 200 texts" in out


# --- rewhiten


def rows(dataset, manifest):
  table = pq.read_table(run_folder(dataset, manifest) / "vectors").sort_by("doc_id")
  return table.drop_columns(["vector"])


def test_rewhiten_makes_the_run_that_a_fit_would_make_without_input_or_encoder(night):
  dataset, inputs, _ = night
  drifted = next_night(night, [*OLD[:150], *NEW[:50], *OLD[:3]])
  fitted = next_night(night, [*OLD[:150], *NEW[:50], *OLD[:3]], whitening="fit", n_components=6)
  shutil.rmtree(inputs)
  outcome = rewhiten(RewhitenOptions(dataset=str(dataset), run_id=drifted["run_id"], n_components=6, threads=1))
  manifest = outcome.manifest
  assert outcome.status == "published" and published_runs(dataset)[-1] == manifest["run_id"]
  assert manifest["made_from"] == drifted["run_id"]
  assert rows(dataset, manifest).equals(rows(dataset, drifted))
  np.testing.assert_allclose(read_vectors(dataset, manifest)[1], read_vectors(dataset, fitted)[1], rtol=0, atol=1e-6)
  assert whole(dataset, manifest)
  assert manifest["whitening"]["fitted_by"] == manifest["run_id"] and manifest["drift"]["against"] == fitted["run_id"]
  counts = manifest["counts"]
  nothing_encoded = {"encoded": 0, "reused": 200, "encoded_tokens": 0, "computed_tokens": 0}
  same_as_published = {"new": 0, "changed": 0, "unchanged": 203, "gone": 0}  # the fit of the same moments, to the bit
  assert counts == drifted["counts"] | nothing_encoded | same_as_published
  assert manifest["inputs"] == drifted["inputs"] and manifest["raw_files"] == drifted["raw_files"]


def test_a_rewhitened_run_is_what_the_next_night_builds_on(night):
  dataset = night[0]
  again = rewhiten(RewhitenOptions(dataset=str(dataset), threads=1, n_components=0.6)).manifest
  later = next_night(night, OLD)
  assert later["whitening"]["fingerprint"] == again["whitening"]["fingerprint"]
  assert later["whitening"]["fitted_by"] == again["run_id"] == published_runs(dataset)[-2]
  assert rewhiten(RewhitenOptions(dataset=str(dataset), threads=1)).manifest["options"]["n_components"] is None


def test_rejected_documents_are_those_of_the_source_and_the_gates_hold(night):
  (night[1] / "bad.jsonl").write_text('{"id": "000001", "text": "once more"}\n{"id": "bad", "text": null}\n')
  first = embed_fake(ENCODER, night[0], night[1], max_rejected=0.05, **EMBED).manifest
  outcome = rewhiten(RewhitenOptions(dataset=str(night[0]), threads=1, max_rejected=0.0))
  assert (outcome.status, outcome.exit_code) == ("held back", 1)  # unless it is told, the source's own limits hold
  manifest = rewhiten(RewhitenOptions(dataset=str(night[0]), threads=1)).manifest
  assert manifest["counts"]["rejected"] == first["counts"]["rejected"] == {"duplicate id": 1, "null": 1}
  assert rows(night[0], manifest).equals(rows(night[0], first)) and whole(night[0], manifest)


def test_a_run_that_was_held_back_for_its_components_is_rewhitened_with_fewer(night):
  few = embed_fake(ENCODER, night[0].with_name("few"), write_night(night[1], OLD[:9]), **EMBED)
  assert few.status == "held back" and "--n-components 7" in few.manifest["verdicts"]["whitening"]["finding"]
  made = rewhiten(
    RewhitenOptions(dataset=str(night[0].with_name("few")), run_id=few.manifest["run_id"], n_components=7, threads=1)
  )
  assert made.status == "published" and made.manifest["counts"]["written"] == 9


def test_the_command_line_rewhitens(night, capsys):
  assert main(["rewhiten", str(night[0]), "--n-components", "4", "--threads", "1", "--json"]) == 0
  shown = json.loads(capsys.readouterr().out)
  assert (shown["status"], shown["run"]["whitening"]["n_components"]) == ("published", 4)
  assert main(["rewhiten", str(night[0]), "--whitening", "none", "--threads", "1"]) == 0
  assert "whitening none: 16 → 16 components" in capsys.readouterr().out
  assert main(["rewhiten", str(night[0]), "--run", "nothing"]) == 2
  assert main(["rewhiten", str(night[0]), "--n-components", "17"]) == 2
  assert main(["rewhiten", str(night[0]), "--n-components", "4", "--whitening", "none"]) == 2
  assert "--n-components with --whitening none" in capsys.readouterr().err
