"""Quiet engines, and small encoders."""

import logging

import pytest

from pipeline.model.freeze import FreezeOptions, freeze
from tests.tiny_bert import write_hugging_face_folder


@pytest.fixture(autouse=True, scope="session")
def quiet_beam():
  """A failed bundle logs pages; what fails on purpose should not bury what fails."""
  logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
  """The folder of an encoder with random weights, H = 32, frozen by ours."""
  return freeze_tiny(tmp_path_factory.mktemp("tiny-encoder"), seed=0)


@pytest.fixture(scope="session")
def other_encoder(tmp_path_factory):
  """Another one of the same width: nothing but the numbers tells its vectors from those of the first."""
  return freeze_tiny(tmp_path_factory.mktemp("other-encoder"), seed=1)


def freeze_tiny(folder, seed):
  checkpoint = write_hugging_face_folder(folder / "checkpoint", hidden_size=32, layers=1, seed=seed)
  freeze(str(checkpoint), str(folder / "encoder"), FreezeOptions(pooling="mean", layers=(1,)), lambda line: None)
  return str(folder / "encoder")
