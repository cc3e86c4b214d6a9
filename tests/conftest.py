"""Fixtures of all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flaky_proxy import FlakyProxy
from tests.gcs_server import running_gcs
from tests.object_store import bucket_behind_proxy, running_server

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
  """Real checkpoints and corpora that are too large, or not ours, to keep in the repository."""
  folder = REPOSITORY.parent / "shared" / "data"
  if not folder.is_dir():
    pytest.skip("needs the shared test data in ../shared/data beside the repository, which is not here")
  return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
  """The port of an S3 server in this process."""
  with running_server() as port:
    yield port


@pytest.fixture(scope="module")
def proxy(s3_server: int) -> Iterator[FlakyProxy]:
  """What stands before an object store that all of this process reaches meanwhile; reliable until told otherwise."""
  with bucket_behind_proxy(s3_server) as flaky:
    yield flaky


@pytest.fixture(scope="session")
def gcs() -> Iterator[FlakyProxy]:
  """What stands before a Google Cloud Storage that this process reaches from then on; reliable until told otherwise."""
  with running_gcs() as flaky:
    yield flaky
