"""Fixtures of all tests."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
  """Real checkpoints and corpora that are too large, or not ours, to keep in the repository."""
  folder = REPOSITORY.parent / "shared" / "data"
  if not folder.is_dir():
    pytest.skip("needs the shared test data in ../shared/data beside the repository, which is not here")
  return folder
