"""Vectors in float16 and int8, by the command line: night after night, searched, verified, compared, exported."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.report_sample import sample_rows
from pipeline.search import Searcher
from tests.integration.run_files import NIGHT, made_up_texts, matrix, published_runs, read_vectors, write_shards

TEXTS = made_up_texts(80)


@pytest.fixture
def night(tiny_encoder, tmp_path, capsys):
  """Embeds some texts with some flags; returns the manifest of what is published then."""

  def embed(texts, *flags):
    inputs = tmp_path / f"input-{len(list(tmp_path.iterdir()))}"
    write_shards(inputs, texts, 2)
    command = [*NIGHT, "--input", str(inputs), "--id-column", "id", "--encoder", tiny_encoder]
    assert main([*command, "--dataset", str(tmp_path / "dataset"), "--threads", "1", "--buckets", "4", *flags]) == 0
    return published(tmp_path / "dataset")

  return embed


def published(dataset):
  return json.loads((dataset / "runs" / published_runs(dataset)[-1] / "manifest.json").read_text())


def run_json(capsys, *command):
  capsys.readouterr()
  assert main([*command, "--json"]) == 0
  return json.loads(capsys.readouterr().out)


def stored(dataset, manifest):
  table = pq.read_table(dataset / "runs" / manifest["run_id"] / "vectors").sort_by("doc_id")
  return matrix(table["vector"])


def verify(dataset):
  assert main(["verify", str(dataset)]) == 0


def test_the_ranges_of_the_first_night_serve_the_next(night, tmp_path, capsys):
  dataset = tmp_path / "dataset"
  first = night(TEXTS[:60], "--vector-type", "int8", "--n-components", "8")
  assert first["vectors"] == {"type": "int8", "clipped": 0}
  before = stored(dataset, first)
  assert before.dtype == np.int8 and (np.abs(before).max(axis=0) == 127).all()
  verify(dataset)

  capsys.readouterr()
  second = night(TEXTS)  # of the type that the published run has
  assert (second["vectors"]["type"], second["options"]["vector_type"]) == ("int8", "int8")
  assert second["whitening"]["ranges"] == first["whitening"]["ranges"]
  assert (second["counts"]["new"], second["counts"]["unchanged"], second["counts"]["changed"]) == (20, 60, 0)
  assert second["vectors"]["clipped"] > 0
  assert f"int8; {second['vectors']['clipped']:,} values lay beyond their range" in capsys.readouterr().out
  assert (stored(dataset, second)[:60] == before).all()
  verify(dataset)
  difference = run_json(capsys, "diff", str(dataset), first["run_id"], second["run_id"])
  assert (difference["cosine"]["identical"], difference["incomparable"]) == (60, None)


def test_each_type_finds_a_text_by_itself_and_encodes_nothing_again(night, tmp_path, capsys):
  """Also after float32 nights between: the ranges stay in the whitening's file."""
  dataset, ranges = tmp_path / "dataset", set()
  for kind in ("float32", "int8", "float16", "float32", "int8"):
    manifest = night(TEXTS, "--vector-type", kind, "--n-components", "8")
    assert stored(dataset, manifest).dtype == kind and manifest["vectors"] == {"type": kind, "clipped": 0}
    searcher = Searcher.open(str(dataset), threads=1)
    for i in (0, 41):
      (hit,) = searcher.search(TEXTS[i], 1)
      assert hit.doc_id == f"{i:06d}" and hit.score == pytest.approx(1, abs=1e-3 if kind == "int8" else 1e-6)
    ranges.add(manifest["whitening"].get("ranges"))
    verify(dataset)
  assert len(ranges - {None}) == 1
  changes = [json.loads(path.read_text())["counts"] for path in sorted(dataset.glob("runs/*/manifest.json"))]
  assert [(c["encoded"], c["changed"]) for c in changes] == [(80, 0), *[(0, 80)] * 4]
  old, new = published_runs(dataset)[-2:]
  difference = run_json(capsys, "diff", str(dataset), old, new)  # float32 and int8: both as they are meant
  assert difference["cosine"]["identical"] == 0 and difference["cosine"]["lowest"] > 0.999
  capsys.readouterr()
  night(TEXTS, "--n-components", "8")
  assert "values lay" not in capsys.readouterr().out


def test_the_same_night_again_is_unchanged_also_without_the_flag(tiny_encoder, tmp_path, capsys):
  inputs = write_shards(tmp_path / "input", TEXTS, 2)
  command = [*NIGHT, "--input", str(inputs), "--id-column", "id", "--encoder", tiny_encoder, "--n-components", "8"]
  command += ["--dataset", str(tmp_path / "dataset"), "--threads", "1", "--buckets", "4"]
  for flags in (["--vector-type", "int8"], ["--vector-type", "int8"], []):
    assert main([*command, *flags]) == 0
  assert capsys.readouterr().out.count("unchanged: ") == 2 and len(published_runs(tmp_path / "dataset")) == 1


def test_rewhiten_changes_the_type_and_the_nights_keep_it(night, tmp_path):
  dataset = tmp_path / "dataset"
  night(TEXTS, "--n-components", "8")
  assert main(["rewhiten", "--no-report", str(dataset), "--vector-type", "int8"]) == 0
  made = published(dataset)
  assert (made["vectors"]["type"], made["counts"]["encoded"]) == ("int8", 0)
  verify(dataset)
  assert main(["rewhiten", "--no-report", str(dataset), "--n-components", "4"]) == 0
  fewer = published(dataset)
  assert (fewer["vectors"], fewer["whitening"]["n_components"]) == ({"type": "int8", "clipped": 0}, 4)
  assert night(TEXTS[:70])["vectors"]["type"] == "int8"
  assert main(["rewhiten", "--no-report", str(dataset), "--vector-type", "float32"]) == 0
  assert "vector_type" not in published(dataset)["options"]


@pytest.mark.parametrize("whitening", ["none", "foreign"])
def test_a_map_that_brings_no_ranges_keeps_those_that_were_measured(night, tmp_path, whitening):
  if whitening == "foreign":
    rng = np.random.default_rng(0)
    whitening = str(tmp_path / "blog.npz")
    np.savez(whitening, kernel=np.linalg.qr(rng.normal(size=(32, 32)))[0][:, :8], bias=np.zeros((1, 32)))
  first, second = (night(texts, "--vector-type", "int8", "--whitening", whitening) for texts in (TEXTS[:60], TEXTS))
  assert second["whitening"]["ranges"] == first["whitening"]["ranges"]
  assert (second["counts"]["unchanged"], second["counts"]["new"]) == (60, 20)


def test_an_export_has_float32_of_length_1_whatever_is_stored(night, tmp_path, capsys):
  plain = night(TEXTS, "--n-components", "8")
  _, expected = read_vectors(tmp_path / "dataset", plain)
  night(TEXTS, "--n-components", "8", "--vector-type", "int8")
  assert main(["export", str(tmp_path / "dataset"), str(tmp_path / "out"), "--to", "npy"]) == 0
  vectors = np.load(tmp_path / "out/vectors.npy")
  order = np.argsort(pq.read_table(tmp_path / "out/ids.parquet")["doc_id"].to_pylist())
  assert vectors.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
  np.testing.assert_allclose(vectors[order], expected, atol=0.01)


def test_a_report_shows_what_the_vectors_mean_and_not_their_whole_numbers(night, tmp_path):
  manifests = [night(TEXTS, "--n-components", "8", "--vector-type", kind) for kind in ("float32", "int8")]
  dataset = Dataset.open(str(tmp_path / "dataset"))
  plain, small = (sample_rows(dataset, manifest) for manifest in manifests)
  assert small.vectors.dtype == np.float32 and small.doc_ids == plain.doc_ids
  np.testing.assert_allclose(small.vectors, plain.vectors, atol=0.01)


def test_ranges_that_are_not_the_runs_are_refused(night, tmp_path, capsys):
  """Scores would be wrong, and nothing else would show it."""
  manifest = night(TEXTS, "--n-components", "8", "--vector-type", "int8")
  path = tmp_path / "dataset" / manifest["files"]["whitening"][0]["path"]
  with np.load(path) as file:
    arrays = {name: file[name] for name in file.files}
  np.savez(path, **arrays | {"ranges": 2 * arrays["ranges"]})
  assert main(["search", str(tmp_path / "dataset"), "rain"]) == 1
  assert "is not the whitening of the run" in capsys.readouterr().err
  assert main(["verify", str(tmp_path / "dataset")]) == 1


def test_a_type_that_is_none_is_refused(night, tmp_path, capsys):
  assert main(["embed", "--dataset", "d", "--vector-type", "int4"]) == 2
  assert "--vector-type" in capsys.readouterr().err


# --- real vectors

N_PARAGRAPHS, N_QUERIES = 2000, 100


@pytest.fixture(scope="module")
def novels(shared_data, tmp_path_factory):
  """Paragraphs of novels: (folder with `vectors`, their float32 run, query vectors, the ten ids nearest to each)."""
  folder = tmp_path_factory.mktemp("novels")
  checkpoint = shared_data / "checkpoints/bert_tiny_uncased_L-2_H-128_A-2"
  freeze(str(checkpoint), str(folder / "encoder"), FreezeOptions(pooling="mean", layers=(1, 2)), lambda line: None)
  lines = (shared_data / "corpora/en_novel_paragraphs.txt").read_text(encoding="utf-8").splitlines()
  lines = list(dict.fromkeys(lines))[: N_PARAGRAPHS + N_QUERIES]
  write_shards(folder / "input", lines[:N_PARAGRAPHS], 1)
  command = [*NIGHT, "--input", str(folder / "input"), "--id-column", "id", "--encoder", str(folder / "encoder")]
  assert main([*command, "--dataset", str(folder / "vectors"), "--threads", "1"]) == 0
  queries, (run_id,) = lines[N_PARAGRAPHS:], published_runs(folder / "vectors")
  searcher = Searcher.open(str(folder / "vectors"), threads=1)
  return folder, run_id, queries, np.stack([searcher.vector(query) for query in queries]), ten_nearest(folder, queries)


def ten_nearest(folder, queries):
  searcher = Searcher.open(str(folder / "vectors"), threads=1)
  return [{hit.doc_id for hit in searcher.search(query, 10)} for query in queries]


@pytest.mark.parametrize("to", ["npy", "faiss"])
def test_an_export_finds_what_search_finds(novels, tmp_path, to):
  faiss = pytest.importorskip("faiss")
  folder, run_id, _, vectors, expected = novels
  assert main(["export", str(folder / "vectors"), str(tmp_path / "out"), "--to", to, "--run", run_id]) == 0
  ids = np.array(pq.read_table(tmp_path / "out/ids.parquet")["doc_id"].to_pylist())
  if to == "npy":
    at = np.argsort(-(vectors @ np.load(tmp_path / "out/vectors.npy", mmap_mode="r").T))[:, :10]
  else:
    at = faiss.read_index(str(tmp_path / "out/index.faiss")).search(vectors, 10)[1]
  assert [set(row) for row in ids[at]] == expected


@pytest.mark.parametrize(("kind", "least"), [("float16", 0.99), ("int8", 0.97)])
def test_recall_against_float32(novels, kind, least):
  folder, run_id, queries, _, expected = novels
  assert main(["rewhiten", "--no-report", str(folder / "vectors"), "--run", run_id, "--vector-type", kind]) == 0
  found = ten_nearest(folder, queries)
  recall = np.mean([len(a & b) / 10 for a, b in zip(found, expected, strict=True)])
  print(f"recall@10 of {kind}: {recall:.4f}")
  assert least <= recall <= 1
