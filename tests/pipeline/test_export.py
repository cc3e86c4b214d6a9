"""Exports: each vector as it was published, under its id; whole or not there; nothing of others is replaced."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.export import check_export, export_rows
from pipeline.published_rows import PublishedRows
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, read_vectors, run_folder, write_shards
from transforms.errors import StoreError, UsageError
from transforms.input_files import ReadOptions

N, K = 120, 8


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """(dataset, its manifest)."""
  folder, texts = tmp_path_factory.mktemp("export"), made_up_texts(N)
  outcome = embed_fake(
    FakeEncoder(make_vocabulary(texts), 16),
    folder / "dataset",
    write_shards(folder / "input", texts, 1),
    read=ReadOptions(id_column="id", keep_columns=("text",)),
    n_components=K,
    buckets=4,
    threads=1,
  )
  return folder / "dataset", outcome.manifest


def export(dataset, out, to, *flags):
  assert main(["export", str(dataset), str(out), "--to", to, *flags]) == 0


def by_id(ids, vectors):
  assert len(ids) == len(vectors) == N
  return {doc_id: vector.tobytes() for doc_id, vector in zip(ids["doc_id"].to_pylist(), vectors, strict=True)}


@pytest.fixture
def expected(published):
  ids, vectors = read_vectors(*published)
  return {doc_id: vector.tobytes() for doc_id, vector in zip(ids, vectors, strict=True)}


def test_npy_is_mapped_into_memory_and_row_i_has_id_i(published, expected, tmp_path):
  dataset, manifest = published
  export(dataset, tmp_path / "out", "npy")
  assert sorted(path.name for path in tmp_path.rglob("*")) == ["ids.parquet", "out", "vectors.npy"]
  vectors = np.load(tmp_path / "out/vectors.npy", mmap_mode="r")
  assert vectors.dtype == np.float32 and vectors.shape == (N, K)
  ids = pq.read_table(tmp_path / "out/ids.parquet")
  assert by_id(ids, vectors) == expected
  assert ids.column_names == ["doc_id", "n_tokens", "truncated", "n_unknown", "text_digest", "text"]
  assert ids.schema.metadata[b"sorbus.run_id"].decode() == manifest["run_id"]


def test_faiss_opens_its_index_and_finds_each_vector_by_itself(published, expected, tmp_path, capsys):
  faiss = pytest.importorskip("faiss")
  export(published[0], tmp_path / "out", "faiss", "--json")
  assert json.loads(capsys.readouterr().out) == {
    "files": ["ids.parquet", "index.faiss"],
    "folder": str(tmp_path / "out"),
    "n_components": K,
    "rows": N,
    "run_id": published[1]["run_id"],
  }
  index = faiss.read_index(str(tmp_path / "out/index.faiss"))
  vectors = index.reconstruct_n(0, N)
  assert by_id(pq.read_table(tmp_path / "out/ids.parquet"), vectors) == expected
  scores, rows = index.search(vectors, 1)
  assert rows[:, 0].tolist() == list(range(N)) and np.abs(scores - 1).max() < 1e-6


def test_an_export_is_replaced_when_asked_and_nothing_else_ever(published, tmp_path, capsys):
  pytest.importorskip("faiss")
  export(published[0], tmp_path / "out", "npy")
  assert main(["export", str(published[0]), str(tmp_path / "out"), "--to", "npy"]) == 2
  assert "holds an export already; give another folder, or --overwrite" in capsys.readouterr().err
  export(published[0], tmp_path / "out", "faiss", "--overwrite")
  assert {path.name for path in (tmp_path / "out").iterdir()} == {"ids.parquet", "index.faiss"}
  (tmp_path / "out/notes.txt").touch()
  with pytest.raises(UsageError, match=r"holds 'notes\.txt', which no export writes"):
    check_export(str(tmp_path / "out"), "npy", overwrite=True)


@pytest.mark.parametrize(
  ("out", "why"), [("s3://b/out", "give a local folder"), ("", "OUT is empty"), (__file__, "is a file")]
)
def test_a_place_that_is_none_is_refused(out, why):
  with pytest.raises(UsageError, match=why):
    check_export(out, "npy")


def test_without_faiss_it_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "faiss", None)  # which makes its import fail
  with pytest.raises(UsageError, match=r"^--to faiss: the package is not here; pip install 'sorbus\[faiss\]'$"):
    check_export(str(tmp_path / "out"), "faiss")


def test_a_damaged_shard_leaves_the_export_that_was_there(published, tmp_path):
  dataset, manifest = published
  target = tmp_path / "out"
  export(dataset, target, "npy")
  before = {path.name: path.read_bytes() for path in target.iterdir()}
  shard = sorted((run_folder(dataset, manifest) / "vectors").iterdir())[-1]
  good = shard.read_bytes()
  shard.write_bytes(good[:-9] + b"x" + good[-8:])
  try:
    with pytest.raises(StoreError, match="damaged"):
      export_rows(PublishedRows.of(Dataset.open(str(dataset))), target, "npy")
  finally:
    shard.write_bytes(good)
  assert [path.name for path in tmp_path.iterdir()] == ["out"]
  assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_a_run_without_vectors_is_refused(published, tmp_path):
  rows = PublishedRows.of(Dataset.open(str(published[0])))
  none = PublishedRows(rows.dataset, rows.manifest | {"files": {"vectors": []}})
  with pytest.raises(UsageError, match="has no vectors to export"):
    export_rows(none, tmp_path / "out", "npy")
