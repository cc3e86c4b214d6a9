"""The one graph of a cluster, over real process boundaries: Beam's own job server, workers out of a pool."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.dataset import Dataset
from pipeline.embed import embed
from pipeline.lock import DatasetLock
from pipeline.options import EmbedOptions
from pipeline.wait import Follower
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import (
  embed_fake,
  made_up_texts,
  published_runs,
  raw_files,
  read_rejected,
  read_vectors,
  write_shards,
)
from tests.processes import wait_for
from tests.worker_pool import worker_pool
from transforms.errors import EngineError, InputFileError
from transforms.input_files import ReadOptions
from transforms.storage import Storage

TEXTS = made_up_texts(300)
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 16)
BY_ID = ReadOptions(id_column="id")


@pytest.fixture(scope="module")
def portable():
  """Options that send a run to the portable runner."""
  with worker_pool() as pool:
    flags = ("--job_endpoint=embed", f"--environment_config={pool.address}")
    yield {"runner": "PortableRunner", "beam_options": flags}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  """300 texts, 30 of them twice, and one that is empty."""
  return write_shards(tmp_path_factory.mktemp("portable") / "input", [*TEXTS, *TEXTS[:30], ""], 4)


@pytest.fixture(scope="module")
def night(inputs, tmp_path_factory):
  """A dataset made here, and its run's manifest."""
  dataset = tmp_path_factory.mktemp("night") / "ds"
  return dataset, embed_fake(ENCODER, dataset, inputs, read=BY_ID, buckets=8, threads=2, n_components=8).manifest


@pytest.fixture
def next_night(night, tmp_path):
  """A copy of it, for a second run."""
  return shutil.copytree(night[0], tmp_path / "ds")


def test_the_same_dataset_as_here(inputs, night, tmp_path, portable):
  (here, manifest), there = night, tmp_path / "there"
  remote = embed_fake(ENCODER, there, inputs, read=BY_ID, buckets=8, n_components=8, **portable)
  assert remote.status == "published"
  assert remote.manifest["counts"] == manifest["counts"]
  ids, vectors = read_vectors(here, manifest)
  remote_ids, remote_vectors = read_vectors(there, remote.manifest)
  assert remote_ids == ids and len(ids) == 330
  np.testing.assert_allclose(remote_vectors, vectors, atol=1e-5)
  assert [row["reason"] for row in read_rejected(there, remote.manifest)] == ["no tokens"]


def test_a_second_night_encodes_nothing_again(inputs, next_night, portable):
  outcome = embed_fake(ENCODER, next_night, inputs, read=BY_ID, buckets=4, **portable)
  counts = outcome.manifest["counts"]
  assert (outcome.status, counts["encoded"], counts["reused"]) == ("published", 0, 300)
  assert len(published_runs(next_night)) == 2


def test_a_store_that_was_damaged_is_found_by_a_worker_and_repaired(inputs, night, next_night, portable, capsys):
  damaged = raw_files(next_night)[3]
  lost = pq.ParquetFile(damaged).metadata.num_rows
  flip_vectors(damaged)
  outcome = embed_fake(ENCODER, next_night, inputs, read=BY_ID, buckets=8, **portable)
  counts = outcome.manifest["counts"]
  assert (outcome.status, counts["encoded"], counts["reused"]) == ("published", lost, 300 - lost)
  assert "wave 0 starts again and encodes them" in capsys.readouterr().err
  for before, after in zip(read_vectors(*night), read_vectors(next_night, outcome.manifest), strict=True):
    np.testing.assert_array_equal(after, before)


def test_a_detached_run_holds_the_dataset_until_it_is_done(inputs, tmp_path, portable):
  dataset = tmp_path / "ds"
  submitted = embed_fake(ENCODER, dataset, inputs, read=BY_ID, buckets=8, n_components=8, detach=True, **portable)
  assert (submitted.status, submitted.exit_code, list(submitted.manifest)) == ("submitted", 0, ["run_id"])
  lock = DatasetLock(Storage.at(str(dataset)))
  _, owner = lock.holder()
  assert (owner.run_id, owner.pid) == (submitted.manifest["run_id"], None)
  outcome = Follower(Dataset.open(str(dataset)), owner.run_id, timeout=300.0).wait()
  assert (outcome.status, outcome.manifest["counts"]["written"]) == ("published", 330)
  wait_for(lambda: lock.holder() is None, "the last step frees the lock")


def test_workers_that_have_another_folder_of_that_name_are_told(inputs, tmp_path, portable, monkeypatch):
  """As where a path of this machine is not mounted there: the job ends well, and nothing of it is here."""
  monkeypatch.setattr("transforms.run_plan.RunPlan.is_finished", lambda _: False)
  with pytest.raises(EngineError, match=f"^{tmp_path}/ds: the workers have finished, but nothing of it is here: "):
    embed_fake(ENCODER, tmp_path / "ds", inputs, read=BY_ID, buckets=1, n_components=8, **portable)


def test_an_error_of_a_worker_says_that_it_is_one(tmp_path, portable):
  def vanish(_):
    shutil.rmtree(texts)

  texts = write_shards(tmp_path / "input", TEXTS[:10], 1)
  asked = EmbedOptions(inputs=(str(texts),), encoder="fake", dataset=str(tmp_path / "ds"), read=BY_ID, **portable)
  with pytest.raises(InputFileError, match=r"^on a worker: documents-\S* is not there: mend it"):
    embed(asked, ENCODER.loaders(), ENCODER.spec, begun=vanish)


def flip_vectors(path):
  """Changes a byte of a vector: the digests beside it can be read as ever."""
  row_group, data = pq.ParquetFile(path).metadata.row_group(0), bytearray(path.read_bytes())
  names = [row_group.column(i).path_in_schema for i in range(row_group.num_columns)]
  column = row_group.column(next(i for i, name in enumerate(names) if name.startswith("vector")))
  data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
  path.write_bytes(data)
