"""Which precision `auto` comes to, by the dataset, the processor and the self-test, and what is said of it."""

from dataclasses import replace

import pytest

from pipeline.choose_precision import choose_precision, warn_of_float32
from pipeline.dataset import Dataset
from pipeline.options import EmbedOptions
from tests.fake_encoder import FakeEncoder, make_vocabulary
from transforms.errors import EncoderError, UsageError
from transforms.self_test import SelfTestError

FAKE = FakeEncoder(make_vocabulary([]), 4)
SPEC = FAKE.spec
HAS_IT = ("fpu", "avx512_bf16")


def choose(dataset, precision, flags, error=3e-5):
  """The precision that comes of it, what was said, and which encoders were loaded for it."""
  said, loaded = [], []

  def load(spec):
    loaded.append(spec.precision)
    if isinstance(error, Exception):
      raise error
    return replace(FAKE.load(), self_test_error=error)

  options = EmbedOptions(inputs=("x",), encoder="e", dataset=str(dataset), precision=precision)
  chosen = choose_precision(options, SPEC, load, said.append, flags)
  assert chosen == SPEC.at(chosen.precision)
  return chosen.precision, said, loaded


def made(tmp_path, fingerprint):
  Dataset.open_or_create(f"{tmp_path}/ds", {"fingerprint": fingerprint, "tokenizer": {}})
  return tmp_path / "ds"


def test_by_default_it_is_the_encoder_as_it_was_frozen(tmp_path):
  options = EmbedOptions(inputs=("x",), encoder="e", dataset=str(tmp_path / "ds"))
  assert choose_precision(options, SPEC, pytest.fail, pytest.fail, ()) == SPEC


def test_what_is_asked_is_taken_untested(tmp_path):
  assert choose(tmp_path / "ds", "bfloat16", HAS_IT) == ("bfloat16", [], [])
  assert choose(tmp_path / "ds", "float32", HAS_IT) == ("float32", [], [])


def test_auto_is_bfloat16_where_the_processor_has_it_and_the_self_test_passes(tmp_path):
  assert choose(tmp_path / "ds", "auto", HAS_IT) == (
    "bfloat16",
    ["precision bfloat16: this processor has avx512_bf16; lowest cosine of the self-test 0.99997"],
    ["bfloat16"],
  )
  assert not (tmp_path / "ds").exists()


def test_auto_is_float32_elsewhere(tmp_path):
  assert choose(tmp_path / "ds", "auto", ("fpu",)) == (
    "float32",
    ["precision float32: this processor has none of amx_bf16, avx512_bf16"],
    [],
  )


def test_auto_is_float32_where_the_vectors_would_be_wrong(tmp_path):
  remedy = "this machine computes others than those it was frozen with; try another"
  wrong = SelfTestError(f"encoder 1: off by 0.01, more than 0.001: {remedy}")
  found, said, _ = choose(tmp_path / "ds", "auto", HAS_IT, wrong)
  assert found == "float32"
  assert said == [
    "precision float32: in bfloat16 its vectors are not good enough (encoder 1: off by 0.01, more than 0.001)"
  ]


def test_auto_is_float32_where_bfloat16_is_it_under_another_name(tmp_path):
  found, (said,), _ = choose(tmp_path / "ds", "auto", HAS_IT, 5e-13)
  assert found == "float32"
  assert said.startswith("precision float32: asked for bfloat16, TensorFlow computes the same here (TF_ENABLE_ONEDNN")


def test_bfloat16_that_is_none_is_warned_of():
  said = []
  for precision, error in (("bfloat16", 5e-13), ("bfloat16", 3e-5), ("float32", 0.0), ("bfloat16", None)):
    spec = SPEC.at(precision)
    warn_of_float32(replace(FAKE.load(), spec=spec, self_test_error=error), said.append)
  assert [line[:67] for line in said] == ["warning: precision bfloat16: TensorFlow computes float32 here, as s"]


def test_auto_does_not_hide_that_an_encoder_is_broken(tmp_path):
  with pytest.raises(EncoderError, match=r"^pip install$"):
    choose(tmp_path / "ds", "auto", HAS_IT, EncoderError("pip install"))


@pytest.mark.parametrize("flags", [HAS_IT, ()])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_auto_stays_with_the_datasets_whatever_the_machine(tmp_path, precision, flags):
  found, said, loaded = choose(made(tmp_path, SPEC.at(precision).fingerprint), "auto", flags)
  assert (found, said[0], loaded) == (precision, f"precision {precision}: the dataset's", [])
  is_slow = precision == "bfloat16" and not flags
  assert [line[:48] for line in said[1:]] == (["warning: this processor has no bfloat16 instruct"] if is_slow else [])


def test_a_dataset_of_another_encoder_decides_nothing(tmp_path):
  assert choose(made(tmp_path, "another"), "auto", HAS_IT)[0] == "bfloat16"


def test_what_there_is_not_is_refused():
  with pytest.raises(UsageError, match=r"^--precision float16: choose float32, bfloat16 or auto$"):
    EmbedOptions(inputs=("x",), encoder="e", dataset="d", precision="float16")
