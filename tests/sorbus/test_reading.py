"""The Python interface: what a run has, in pieces, is what its Parquet has; types are what the page says."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sorbus
from tests.conftest import REPOSITORY
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, read_vectors, write_shards
from transforms.input_files import ReadOptions

N, K = 120, 8


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """(dataset, the manifests of two runs of it)."""
  folder, texts = tmp_path_factory.mktemp("reading"), made_up_texts(N)
  encoder, inputs = FakeEncoder(make_vocabulary(texts), 16), write_shards(folder / "input", texts, 1)
  asked = {"read": ReadOptions(id_column="id", keep_columns=("text",)), "n_components": K, "buckets": 4, "threads": 1}
  few = embed_fake(encoder, folder / "dataset", inputs, limit=N - 20, **asked)
  return folder / "dataset", (few.manifest, embed_fake(encoder, folder / "dataset", inputs, **asked).manifest)


def test_the_published_run_and_an_older_one(published):
  folder, (first, second) = published
  dataset = sorbus.Dataset.open(str(folder))
  assert isinstance(dataset, sorbus.Dataset)
  run, older = dataset.run(), dataset.run(first["run_id"])
  assert (run.run_id, len(run), run.n_components) == (second["run_id"], N, K)
  assert (older.run_id, len(older)) == (first["run_id"], N - 20)
  assert run.manifest == second == dataset.manifest(run.run_id)
  with pytest.raises(sorbus.SorbusError, match="no run 'nothing'; `sorbus show` lists the runs"):
    dataset.run("nothing")


@pytest.mark.parametrize("which", [0, 1])
def test_its_vectors_are_those_that_are_published(published, which):
  folder, manifests = published
  run = sorbus.Dataset.open(str(folder)).run(manifests[which]["run_id"])
  pieces = list(run.vectors())
  ids = [doc_id for some, _ in pieces for doc_id in some]
  vectors = np.concatenate([vectors for _, vectors in pieces])
  assert ids == list(run.ids()) and vectors.dtype == np.float32
  order = np.argsort(ids)
  expected_ids, expected = read_vectors(folder, manifests[which])
  assert [ids[i] for i in order] == expected_ids
  np.testing.assert_array_equal(vectors[order], expected)


def test_batches_are_bounded_and_have_the_columns_asked_for(published):
  run = sorbus.Dataset.open(str(published[0])).run()
  batches = list(run.batches(["text", "doc_id"], max_rows=7))
  assert all(isinstance(batch, pa.RecordBatch) and 0 < batch.num_rows <= 7 for batch in batches)
  assert {tuple(batch.schema.names) for batch in batches} == {("text", "doc_id")}
  assert [doc_id for batch in batches for doc_id in batch["doc_id"].to_pylist()] == list(run.ids())
  assert {"doc_id", "vector", "text_digest", "text"} <= set(next(run.batches()).schema.names)
  with pytest.raises(sorbus.SorbusError, match=r"has no column 'title'; it has doc_id, vector, .*text"):
    next(run.batches(["doc_id", "title"]))


def test_columns_that_nobody_asks_for_are_not_read(published):
  run = sorbus.Dataset.open(str(published[0])).run()
  ids = list(run.ids())
  shard = published[0] / run.manifest["files"]["vectors"][0]["path"]
  whole, group = shard.read_bytes(), pq.read_metadata(shard).row_group(0)
  vector = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema.startswith("vector"))
  start = min(filter(None, (vector.dictionary_page_offset, vector.data_page_offset)))
  stop = start + vector.total_compressed_size
  shard.write_bytes(whole[:start] + b"\xff" * (stop - start) + whole[stop:])  # and its sha256 was found right
  try:
    assert list(run.ids()) == ids
    assert sum(batch.num_rows for batch in run.batches(["text"])) == N
    with pytest.raises(sorbus.SorbusError, match="damaged"):
      list(run.vectors())
  finally:
    shard.write_bytes(whole)


def test_a_run_can_be_a_key(published):
  run = sorbus.Dataset.open(str(published[0])).run()
  assert {run: 1, run.rows: 2}[run] == 1


def test_its_whitening_is_the_one_of_the_manifest(published):
  run = sorbus.Dataset.open(str(published[0])).run()
  assert run.whitening().fingerprint == run.manifest["whitening"]["fingerprint"]


def test_a_damaged_shard_is_told(published, tmp_path):
  run = sorbus.Dataset.open(str(published[0])).run()
  shard = published[0] / run.manifest["files"]["vectors"][0]["path"]
  whole = shard.read_bytes()
  shard.write_bytes(whole[:-1])
  try:
    with pytest.raises(sorbus.SorbusError, match="damaged"):
      list(run.vectors())
  finally:
    shard.write_bytes(whole)


def test_the_page_lists_what_there_is_to_import():
  page = (REPOSITORY / "docs/python.md").read_text(encoding="utf-8")
  assert not [name for name in sorbus.__all__ if name != "__version__" and f"`{name}" not in page]


def test_importing_it_brings_neither_beam_nor_tensorflow():
  program = "import sys, sorbus; sys.exit(bool({'apache_beam', 'tensorflow'} & sys.modules.keys()))"
  subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)


def test_its_types_are_for_type_checkers(tmp_path):
  (tmp_path / "use.py").write_text(
    "import sorbus\n"
    "run = sorbus.Dataset.open('ds').run()\n"
    "reveal_type(run)\nreveal_type(sorbus.Encoder.open('e').encode_texts(['a']))\nreveal_type(run.search('a'))\n"
  )
  for package in ("pipeline", "sorbus", "transforms"):
    assert (REPOSITORY / package / "py.typed").exists()
  mypy = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(tmp_path / "use.py")]
  done = subprocess.run(mypy, cwd=REPOSITORY, capture_output=True, text=True)
  types = [
    line.partition('Revealed type is "')[2].rstrip('"') for line in done.stdout.splitlines() if "Revealed" in line
  ]
  assert types[0] == "sorbus.reading.Run" and types[1].startswith("numpy.ndarray")
  assert types[2] == "builtins.list[pipeline.search.Hit]" or types[2] == "list[pipeline.search.Hit]"
