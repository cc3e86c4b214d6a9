"""Clusters for the tests that need one, and the encoders of the other integration tests."""

import os
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.engines.flink_cluster import cluster_up
from tests.engines.jobs import here, of_paragraphs
from tests.engines.prism import prism_up
from tests.integration.conftest import quiet_beam, tiny_encoder  # noqa: F401  fixtures here too
from tests.integration.run_files import made_up_texts, write_shards

N_PARAGRAPHS = int(os.environ.get("SORBUS_PARAGRAPHS", 20_000))
VERSIONS = os.environ.get("SORBUS_FLINK", "").split()


@pytest.fixture(scope="module", params=VERSIONS or ["2.2"])
def flink(request, tmp_path_factory):
  """A Flink cluster whose workers know the object store of the tests; of each version that is asked for."""
  if not VERSIONS:
    pytest.skip("needs a Flink cluster, which takes a download and minutes: make test-flink")
  request.getfixturevalue("proxy")  # first, for its address is in the environment that the workers get
  with cluster_up(request.param, tmp_path_factory.mktemp(f"flink-{request.param}") / "run") as cluster:
    yield cluster


@pytest.fixture(scope="module")
def prism(tmp_path_factory):
  """Beam's own portable engine: a job server that is no Python and no process of ours, with a pool of workers."""
  program = os.environ.get("SORBUS_PRISM")
  if not program:
    pytest.skip("needs Prism, which Go builds in minutes: make test-prism")
  with prism_up(Path(program), tmp_path_factory.mktemp("prism")) as engine:
    yield engine


@pytest.fixture(scope="module")
def demo():
  """The folder of `make demo`: a real encoder and a small corpus."""
  folder = REPOSITORY / "demo"
  if not (folder / "encoder").is_dir() or not (folder / "corpus").is_dir():
    pytest.skip("needs demo/encoder and demo/corpus: make demo/encoder demo/corpus")
  return folder


@pytest.fixture(scope="module")
def paragraphs(tmp_path_factory):
  """Paragraphs, 20,000 unless fewer are asked for; real ones where they are."""
  corpus = REPOSITORY.parent / "shared/data/corpora/en_novel_paragraphs.txt"
  lines = corpus.read_text(encoding="utf-8").splitlines() if corpus.exists() else made_up_texts(N_PARAGRAPHS)
  return write_shards(tmp_path_factory.mktemp("paragraphs") / "input", lines[:N_PARAGRAPHS], 8)


@pytest.fixture(scope="module")
def local_paragraphs(paragraphs, demo, tmp_path_factory):
  """What the local runner makes of them, once for all versions of Flink."""
  dataset = tmp_path_factory.mktemp("paragraphs-here") / "dataset"
  here(*of_paragraphs(paragraphs, demo, dataset))
  return dataset
