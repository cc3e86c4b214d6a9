import subprocess
import sys

import pytest

from pipeline.dataset import Dataset
from pipeline.describe_path import describe_path
from tests.tiny_bert import write_google_checkpoint
from transforms.errors import UsageError


@pytest.fixture
def dataset(tmp_path):
  Dataset.open_or_create(str(tmp_path / "ds"), {"fingerprint": "ab", "tokenizer": {}})
  return str(tmp_path / "ds")


def test_datasets_and_models_are_told_apart(dataset, tmp_path):
  assert describe_path(dataset)["kind"] == "dataset"
  assert describe_path(str(write_google_checkpoint(tmp_path / "c")))["kind"] == "google"


def test_a_dataset_does_not_wait_for_tensorflow(dataset):
  program = (
    f"import sys; from pipeline.describe_path import describe_path; describe_path({dataset!r});"
    "sys.exit('tensorflow' in sys.modules)"
  )
  subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("option", ["sample", "text_column", "bert_config", "vocab"])
def test_an_option_for_models_is_refused_for_a_dataset(dataset, option):
  with pytest.raises(UsageError, match=f"^--{option.replace('_', '-')}: .*/ds is a dataset"):
    describe_path(dataset, **{option: "x"})


@pytest.mark.parametrize("path", ["", "none", "x" * 300 + "/y", "memory://x.txt"])
def test_what_is_none_of_these_is_told_what_there_could_be(tmp_path, path):
  with pytest.raises(UsageError) as caught:
    describe_path(f"{path}" if "://" in path else f"{tmp_path}/{path}")
  assert "dataset.json" in str(caught.value) or "cannot be read (File name too long)" in str(caught.value)
  assert ("nothing is there; " in str(caught.value)) == (path in ("none", "memory://x.txt"))


def test_what_can_be_no_place_is_told_why():
  with pytest.raises(UsageError, match=r"^s4://bucket/x: cannot be opened \(Protocol not known: s4\)"):
    describe_path("s4://bucket/x")
  with pytest.raises(UsageError, match=r"^s3://\*\*\*@bucket/x: has a secret in it"):
    describe_path("s3://key:pa55@bucket/x")
