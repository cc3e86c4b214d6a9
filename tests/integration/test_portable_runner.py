"""The one graph of a cluster, over real process boundaries: Beam's own job server, workers out of a pool."""

import numpy as np
import pytest

from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import (
  embed_fake,
  made_up_texts,
  published_runs,
  read_rejected,
  read_vectors,
  write_shards,
)
from tests.worker_pool import worker_pool
from transforms.input_files import ReadOptions

TEXTS = made_up_texts(300)
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 16)
BY_ID = ReadOptions(id_column="id")


@pytest.fixture(scope="module")
def portable():
  """Options that send a run to the portable runner."""
  with worker_pool() as address:
    flags = ("--job_endpoint=embed", f"--environment_config={address}")
    yield {"runner": "PortableRunner", "beam_options": flags}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  """300 texts, 30 of them twice, and one that is empty."""
  return write_shards(tmp_path_factory.mktemp("portable") / "input", [*TEXTS, *TEXTS[:30], ""], 4)


def test_the_same_dataset_as_here(inputs, tmp_path, portable):
  here, there = tmp_path / "here", tmp_path / "there"
  local = embed_fake(ENCODER, here, inputs, read=BY_ID, buckets=8, threads=2, n_components=8)
  remote = embed_fake(ENCODER, there, inputs, read=BY_ID, buckets=8, n_components=8, **portable)
  assert (local.status, remote.status) == ("published", "published")
  assert remote.manifest["counts"] == local.manifest["counts"]
  ids, vectors = read_vectors(here, local.manifest)
  remote_ids, remote_vectors = read_vectors(there, remote.manifest)
  assert remote_ids == ids and len(ids) == 330
  np.testing.assert_allclose(remote_vectors, vectors, atol=1e-5)
  assert [row["reason"] for row in read_rejected(there, remote.manifest)] == ["no tokens"]


def test_a_second_night_encodes_nothing_again(inputs, tmp_path, portable):
  embed_fake(ENCODER, tmp_path / "ds", inputs, read=BY_ID, buckets=8, n_components=8, threads=2)
  outcome = embed_fake(ENCODER, tmp_path / "ds", inputs, read=BY_ID, buckets=4, **portable)
  counts = outcome.manifest["counts"]
  assert (outcome.status, counts["encoded"], counts["reused"]) == ("published", 0, 300)
  assert len(published_runs(tmp_path / "ds")) == 2
