"""`diff_runs` over runs made by hand: rows, cosines, and moments against the formulas of docs/numerics.md."""

import hashlib
import io
import json

import numpy as np
import pytest
from rich.console import Console

from pipeline import diff
from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.diff import diff_runs, mean_shift, show_diff, spectrum_shift
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, read_vectors, run_folder, write_shards
from transforms.errors import StoreError, UsageError
from transforms.input_files import ReadOptions
from transforms.moments import Moments

N = 60
TEXTS = made_up_texts(N + 2)
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 16)
EMBED = {"read": ReadOptions(id_column="id"), "whitening": "none", "threads": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """A dataset and the manifests of four runs: the first, one with edits, one whitened, one of fewer components."""
  folder = tmp_path_factory.mktemp("diff")
  edited = [*TEXTS[:5], TEXTS[N], *TEXTS[6:N], TEXTS[N + 1]]  # document 5 has another text; one more at the end
  inputs = [write_shards(folder / "1", TEXTS[:N], 2), write_shards(folder / "2", edited, 3)]
  (inputs[1] / "documents-00000-of-00003.jsonl").write_text(
    "".join((inputs[1] / "documents-00000-of-00003.jsonl").read_text().splitlines(keepends=True)[1:])  # without 0
  )
  fit = {"whitening": "fit", "n_components": 4}
  options = [{"buckets": 4}, {"buckets": 8}, {"buckets": 1} | fit, {"buckets": 2} | fit]
  dataset = folder / "dataset"
  manifests = [
    embed_fake(ENCODER, dataset, inputs[min(i, 1)], **(EMBED | options[i])).manifest for i in range(len(options))
  ]
  return Dataset.open(str(dataset)), dataset, manifests


def compare(runs, old, new):
  return diff_runs(runs[0], runs[2][old]["run_id"], runs[2][new]["run_id"])


def test_rows(runs):
  there, back = compare(runs, 0, 1)["rows"], compare(runs, 1, 0)["rows"]
  assert there == {"old": 60, "new": 60, "added": 1, "removed": 1, "changed": 1, "same": 58}
  assert back == there
  assert compare(runs, 0, 0)["rows"] == {"old": 60, "new": 60, "added": 0, "removed": 0, "changed": 0, "same": 60}


@pytest.mark.parametrize("sample", [10_000, 7])
def test_cosines_are_those_of_the_published_vectors(runs, monkeypatch, sample):
  monkeypatch.setattr(diff, "SAMPLE", sample)
  _, dataset, manifests = runs
  (old_ids, old), (new_ids, new) = (read_vectors(dataset, m) for m in manifests[:2])
  common = sorted(set(old_ids) & set(new_ids))
  common.sort(key=lambda i: hashlib.blake2b(i.encode(), digest_size=16).digest())
  pairs = [(old[old_ids.index(i)], new[new_ids.index(i)]) for i in common[:sample]]
  cosines = [float(a.astype(np.float64) @ b) for a, b in pairs]
  found = compare(runs, 0, 1)["cosine"]
  assert found["documents"] == len(pairs) == min(59, sample)
  np.testing.assert_allclose([found["mean"], found["lowest"]], [np.mean(cosines), np.min(cosines)], atol=1e-6)
  assert found["identical"] == sum((a == b).all() for a, b in pairs) >= min(58, sample) - 1
  same = compare(runs, 0, 0)["cosine"]
  np.testing.assert_allclose([same["mean"], same["lowest"], same["identical"]], [1, 1, min(60, sample)])


def test_vectors_of_other_widths_are_not_compared_but_rows_and_moments_are(runs):
  found = compare(runs, 1, 2)
  assert found["cosine"] is None and found["incomparable"] == "the vectors have 16 and 4 components"
  assert found["rows"]["same"] == 60
  assert found["moments"] == pytest.approx({"mean_shift": 0.0, "spectrum_shift": 0.0}, abs=1e-12)
  assert compare(runs, 2, 3)["cosine"]["identical"] >= 0 and compare(runs, 2, 3)["incomparable"] is None


def test_vectors_of_other_encoders_are_not_compared(runs, tmp_path):
  """A dataset can hold runs of two encoders while one replaces the other."""
  dataset, _, manifests = runs
  edited = json.loads(json.dumps(manifests[1])) | {"run_id": "other"}
  edited["encoder"]["fingerprint"] = "f" * 64
  dataset.storage.write("runs/other/manifest.json", json.dumps(edited).encode())
  found = diff_runs(dataset, manifests[0]["run_id"], "other")
  dataset.storage.remove_folder("runs/other")
  assert found["cosine"] is None and found["moments"] is None
  assert found["incomparable"] == f"the encoders differ ({manifests[0]['encoder']['fingerprint'][:12]} and {'f' * 12})"
  assert found["rows"]["same"] == 58


def test_moments_of_two_runs(runs):
  _, dataset, manifests = runs
  old, new = (
    Moments.from_bytes(next(run_folder(dataset, m).glob("moments-*.npz")).read_bytes()) for m in manifests[:2]
  )
  found = compare(runs, 0, 1)["moments"]
  assert found == {"mean_shift": mean_shift(old, new), "spectrum_shift": spectrum_shift(old, new, 16)}
  assert 0 < found["mean_shift"] < 0.1 and 0 < found["spectrum_shift"] < 0.5


def test_the_mean_moves_in_units_of_the_spread():
  vectors = np.random.default_rng(0).normal(size=(500, 6)) * [3, 2, 1, 1, 1, 0.5]
  old = Moments.from_vectors(vectors)
  spread = np.sqrt(vectors.var(axis=0, ddof=1).sum())
  assert mean_shift(old, Moments.from_vectors(vectors + np.eye(6)[4] * 2)) == pytest.approx(2 / spread)
  assert mean_shift(old, Moments.from_vectors(vectors * 5 + 7)) == pytest.approx(
    np.linalg.norm(vectors.mean(axis=0) * 4 + 7) / spread
  )


def test_the_spectrum_shifts_by_its_largest_ratio():
  vectors = np.random.default_rng(1).normal(size=(500, 4))
  vectors = (vectors - vectors.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(vectors.T)).T)  # covariance I
  old = Moments.from_vectors(vectors * [8, 4, 2, 1])
  new = Moments.from_vectors(vectors * [8, 5, 2, 0.1])
  assert spectrum_shift(old, new, 3) == pytest.approx(2 * np.log(5 / 4))
  assert spectrum_shift(old, new, 4) == pytest.approx(2 * np.log(10)) == pytest.approx(spectrum_shift(new, old, 4))
  flat = Moments.from_vectors(vectors * [8, 4, 2, 1e-9])  # under what float32 resolves: not divided by
  assert spectrum_shift(old, flat, 4) == pytest.approx(0, abs=1e-9)


def test_a_shard_that_is_gone_is_named(runs, tmp_path):
  dataset, folder, manifests = runs
  path = folder / manifests[0]["files"]["vectors"][0]["path"]
  path.rename(tmp_path / "kept")
  with pytest.raises(StoreError, match=r"vectors/part-00000-of-00004-.*: missing or damaged .*sorbus verify"):
    compare(runs, 0, 1)
  (tmp_path / "kept").rename(path)
  with pytest.raises(UsageError, match="no run 'nothing'"):
    diff_runs(dataset, "nothing", manifests[0]["run_id"])


def test_the_command_line(runs, capsys):
  _, dataset, manifests = runs
  old, new = manifests[2]["run_id"], manifests[3]["run_id"]
  assert main(["diff", str(dataset), old, "published", "--json"]) == 0
  shown = json.loads(capsys.readouterr().out)
  assert shown.keys() == {"dataset", "old", "new", "rows", "cosine", "moments", "incomparable", "same_whitening"}
  assert (shown["old"], shown["new"]) == (old, new)
  assert main(["diff", str(dataset), old, new]) == 0
  assert "of all 60 common documents" in capsys.readouterr().out
  assert main(["diff", str(dataset), old, "nothing"]) == 2


def test_what_is_printed():
  difference = {
    "old": "r1",
    "new": "r2",
    "rows": {"old": 20_000, "new": 20_100, "added": 300, "removed": 200, "changed": 50, "same": 19_750},
    "cosine": {"documents": 10_000, "mean": 0.998, "lowest": 0.25, "identical": 9_900},
    "moments": {"mean_shift": 0.0123, "spectrum_shift": 0.2},
    "incomparable": None,
    "same_whitening": True,
  }
  console = Console(file=io.StringIO(), width=120)
  show_diff(difference, console)
  assert [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()] == [
    "r1 → r2",
    " rows              20,100  20,000 before",
    "   added              300",
    "   removed            200",
    "   changed             50  have another text",
    "   same            19,750",
    " mean cosine     0.998000  of 10,000 of 19,800 common documents",
    " lowest cosine   0.250000  9,900 are the same to the bit",
    " mean shift        0.0123  of the raw vectors, in root-mean-square distances from the mean",
    " spectrum shift    0.2000  largest |ln(new / old)| of a leading variance",
  ]
  show_diff({**difference, "same_whitening": False}, console)
  last = console.file.getvalue().splitlines()[-1]
  assert last == "the whitenings differ, and so does every vector: the cosines say little of the documents"


def test_runs_of_two_whitenings_are_said_to_be(runs):
  assert compare(runs, 0, 1)["same_whitening"] and not compare(runs, 1, 2)["same_whitening"]
