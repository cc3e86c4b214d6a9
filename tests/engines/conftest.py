"""Clusters for the tests that need one, and the encoders of the other integration tests."""

import os

import pytest

from tests.engines.flink_cluster import cluster_up
from tests.integration.conftest import keep_signal_handler, quiet_beam, tiny_encoder  # noqa: F401  fixtures here too

VERSIONS = os.environ.get("SORBUS_FLINK", "").split()


@pytest.fixture(scope="module", params=VERSIONS or ["2.2"])
def flink(request, tmp_path_factory):
  """A Flink cluster whose workers know the object store of the tests; of each version that is asked for."""
  if not VERSIONS:
    pytest.skip("needs a Flink cluster, which takes a download and minutes: make test-flink")
  request.getfixturevalue("proxy")  # first, for its address is in the environment that the workers get
  with cluster_up(request.param, tmp_path_factory.mktemp(f"flink-{request.param}") / "run") as cluster:
    yield cluster
