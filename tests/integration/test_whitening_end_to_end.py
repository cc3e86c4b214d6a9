"""The published vectors are those of the formula, however the input is cut and the work is spread."""

import numpy as np
import pytest

from pipeline.embed import embed
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.options import EmbedOptions
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import (
  embed_fake,
  made_up_texts,
  read_raw,
  read_vectors,
  run_folder,
  write_shards,
)
from transforms.input_files import ReadOptions

BERT_TINY = "checkpoints/bert_tiny_uncased_L-2_H-128_A-2"
BY_ID = ReadOptions(id_column="id")
# (shards, buckets, threads, waves): each value of one with several of the others; 5 waves need 5 buckets.
SPREADS = [(1, 1, 1, 1), (7, 16, 2, 5), (64, 16, 1, 5), (64, 1, 2, 1), (1, 16, 2, 1), (7, 1, 1, 1)]


def bert_whitening(raw, n_components):
  """Su et al.'s formula in float64 on raw vectors [N, H]: unit vectors [N, K]."""
  raw = raw.astype(np.float64)
  u, s, _ = np.linalg.svd(np.cov(raw.T))
  reduced = (raw - raw.mean(axis=0)) @ (u @ np.diag(1 / np.sqrt(s)))[:, :n_components]
  return reduced / np.linalg.norm(reduced, axis=1, keepdims=True)


def turned_like(vectors, reference):
  """Gives each component [N, K] the sign that it has in the reference: an eigenvector's own is arbitrary."""
  return vectors * np.sign((vectors * reference).sum(axis=0))


def assert_whitened(dataset, manifest, texts, n_components):
  """The vectors of a run over texts with ids 0…N−1 are the formula's, and white before L2."""
  doc_ids, vectors = read_vectors(dataset, manifest)
  assert doc_ids == [f"{i:06d}" for i in range(len(texts))]
  raw = read_raw(dataset, texts)  # a repeated text as often as it occurs
  formula = bert_whitening(raw, n_components)
  assert vectors.shape == formula.shape
  np.testing.assert_allclose(turned_like(vectors, formula), formula, rtol=0, atol=1e-5)

  with np.load(dataset / manifest["files"]["whitening"][0]["path"]) as whitening:
    reduced = (raw.astype(np.float64) + whitening["bias"]) @ whitening["kernel"]
  np.testing.assert_allclose(np.cov(reduced.T), np.eye(n_components), rtol=0, atol=1e-6)
  unit = reduced / np.linalg.norm(reduced, axis=1, keepdims=True)
  np.testing.assert_allclose(vectors, unit, rtol=0, atol=1e-6)


@pytest.fixture(scope="session")
def bert_tiny(shared_data, tmp_path_factory):
  folder = str(tmp_path_factory.mktemp("bert-tiny") / "encoder")
  freeze(str(shared_data / BERT_TINY), folder, FreezeOptions(), lambda line: None)
  return folder


@pytest.fixture(scope="session")
def novel_paragraphs(shared_data):
  """20,000 paragraphs, 100 of them twice."""
  lines = (shared_data / "corpora/en_novel_paragraphs.txt").read_text("utf-8").split("\n")
  return lines[:19_900] + lines[:100]


def test_bert_tiny_on_novel_paragraphs_is_whitened_by_the_formula(bert_tiny, novel_paragraphs, tmp_path):
  """All runs are on one dataset: the first encodes, the others find its raw vectors, finer or coarser than theirs."""
  encoded = []
  for n_shards, buckets, threads, waves in [(64, 16, 2, 5), (7, 1, 1, 1), (1, 16, 2, 5)]:
    inputs = tmp_path / f"input-{n_shards}"
    options = EmbedOptions(
      inputs=(str(write_shards(inputs, novel_paragraphs, n_shards)),),
      encoder=bert_tiny,
      dataset=str(tmp_path / "dataset"),
      read=BY_ID,
      n_components=64,
      threads=threads,
      buckets=buckets,
      waves=waves,
    )
    outcome = embed(options)
    assert outcome.status == "published", outcome.manifest["verdicts"]
    assert_whitened(tmp_path / "dataset", outcome.manifest, novel_paragraphs, 64)
    encoded.append(outcome.manifest["counts"]["encoded"])
  assert encoded == [len(set(novel_paragraphs)), 0, 0]


@pytest.fixture(scope="module")
def fake_texts():
  """2,000 texts, 150 of them twice, one fifty times."""
  texts = made_up_texts(1_800)
  return texts + texts[:151] + texts[:1] * 49


@pytest.fixture(scope="module")
def first_vectors(fake_texts, tmp_path_factory):
  """Vectors with everything in one piece."""
  folder = tmp_path_factory.mktemp("one-piece")
  inputs = write_shards(folder / "input", fake_texts, 1)
  encoder = FakeEncoder(make_vocabulary(fake_texts), 32)
  outcome = embed_fake(encoder, folder / "dataset", inputs, read=BY_ID, n_components=16, buckets=1, waves=1, threads=1)
  return read_vectors(folder / "dataset", outcome.manifest)[1]


@pytest.mark.parametrize(("n_shards", "buckets", "threads", "waves"), SPREADS)
def test_the_formula_holds_however_the_work_is_spread(
  fake_texts, first_vectors, tmp_path, n_shards, buckets, threads, waves
):
  encoder = FakeEncoder(make_vocabulary(fake_texts), 32)
  inputs = write_shards(tmp_path / "input", fake_texts, n_shards)
  outcome = embed_fake(
    encoder,
    tmp_path / "dataset",
    inputs,
    read=BY_ID,
    n_components=16,
    buckets=buckets,
    threads=threads,
    waves=waves,
  )
  counts = outcome.manifest["counts"]
  assert outcome.status == "published", outcome.manifest["verdicts"]
  assert (counts["read"], counts["written"], counts["encoded"], counts["rejected"]) == (2_000, 2_000, 1_800, {})
  assert len(list(run_folder(tmp_path / "dataset", outcome.manifest).glob("records/*.jsonl"))) == waves
  assert_whitened(tmp_path / "dataset", outcome.manifest, fake_texts, 16)
  # Not even a sign differs: one rule fixes it.
  vectors = read_vectors(tmp_path / "dataset", outcome.manifest)[1]
  np.testing.assert_allclose(vectors, first_vectors, rtol=0, atol=1e-6)
