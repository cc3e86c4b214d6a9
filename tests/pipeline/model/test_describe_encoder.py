import json
import shutil
from dataclasses import replace

import pytest

from pipeline.model.describe_encoder import describe_encoder
from pipeline.model.freeze import FreezeOptions, freeze
from tests.damage import flip
from tests.tiny_bert import VOCABULARY, write_google_checkpoint
from transforms.encoder import read_spec
from transforms.text_sample import Sample


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
  folder = tmp_path_factory.mktemp("encoder")
  checkpoint = str(write_google_checkpoint(folder / "checkpoint"))
  freeze(checkpoint, str(folder / "encoder"), FreezeOptions(layers=(0, 2), combine="concat"), lambda line: None)
  return folder / "encoder"


@pytest.fixture
def copy(frozen, tmp_path):
  """A copy of the encoder that a test may break."""
  return shutil.copytree(frozen, tmp_path / "copy")


def describe(folder, sample=None):
  return json.loads(json.dumps(describe_encoder(str(folder), sample and Sample(str(sample)))))


def test_an_encoder_and_its_checks(frozen):
  found, spec = describe(frozen), read_spec(str(frozen))
  assert found["kind"] == "encoder" and found["can_be_used"] and not found["problems"] + found["warnings"]
  assert (found["fingerprint"], found["vector_size"], found["max_seq_length"]) == (spec.fingerprint, 64, 64)
  assert found["readout"] == {
    "pooling": "mean",
    "layers": [0, 2],
    "combine": "concat",
    "exclude_special_tokens": False,
  }
  assert found["source"] == {"kind": "google", "name": "checkpoint/model.ckpt-100"} and found["head"] is None
  assert found["files"]["encoder.pb"] == {
    "bytes": (frozen / "encoder.pb").stat().st_size,
    "sha256": spec.graph_sha256,
    "as_frozen": True,
  }
  test = found["self_test"]
  assert 0 < test["error"] < test["tolerance"] == spec.self_test.tolerance and test["cases"] == 7
  assert found["vocabulary"]["tokens"] == len(VOCABULARY)


def test_an_encoder_is_described_by_url(frozen):
  assert describe(f"file://{frozen}")["can_be_used"]


@pytest.mark.parametrize("name", ["encoder.pb", "vocab.txt"])
def test_a_changed_file_is_named_and_the_rest_described(copy, name):
  flip(copy / name)
  found = describe(copy)
  assert [problem.split(":")[0] for problem in found["problems"]] == [f"{copy}/{name}"]
  assert {file: found["files"][file]["as_frozen"] for file in found["files"]} == {
    "encoder.pb": name != "encoder.pb",
    "vocab.txt": name != "vocab.txt",
  }
  assert found["self_test"] is None and not found["can_be_used"] and found["fingerprint"]


def test_every_changed_file_is_named_once(copy):
  for name in ("encoder.pb", "vocab.txt"):
    (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
  found = describe(copy)
  assert [problem.split(":")[0] for problem in found["problems"]] == [f"{copy}/encoder.pb", f"{copy}/vocab.txt"]


def test_a_spec_that_cannot_be_read_leaves_the_files(copy):
  (copy / "encoder.json").write_text("{}")
  (copy / "vocab.txt").unlink()
  found, whole = describe(copy), {"files", "kind", "path", "problems", "warnings", "can_be_used"}
  assert ["format version" in found["problems"][0], "vocab.txt: not there" in found["problems"][1]] == [True, True]
  assert found["files"]["encoder.pb"]["as_frozen"] is found["files"]["vocab.txt"] is None
  assert {key for key, value in found.items() if value is None} == found.keys() - whole


def test_a_self_test_that_fails_is_a_problem(copy):
  spec = read_spec(str(copy))
  first, *others = spec.self_test.vectors
  test = replace(spec.self_test, vectors=((first[0] + 1, *first[1:]), *others))
  (copy / "encoder.json").write_text(replace(spec, self_test=test).to_json())
  found = describe(copy)
  assert found["self_test"] is None and "self-test off by 1 in vectors" in found["problems"][0]


def test_a_sample(frozen, tmp_path):
  (tmp_path / "texts.txt").write_text("The rain É\n")
  found = describe(frozen, tmp_path / "texts.txt")["sample"]
  assert [(casing["lowercase"], casing["tokens"], casing["unknown"]) for casing in found["casings"]] == [(True, 3, 0)]
