from dataclasses import replace

import numpy as np
import pytest

from tests.fake_encoder import make_spec
from transforms.encoder_spec import Head, SelfTest
from transforms.self_test import SelfTestError, check_probabilities, check_vectors, is_float32_in_fact, tolerance

# Two directions much alike, as the vectors of many encoders are: 1 - cosine is 5e-5 between them, and the spread 0.05.
VECTORS = np.array([[10.0, 0.05], [10.0, -0.05]])


def spec(precision, probabilities=()):
  test = SelfTest(((2, 5, 3), (2, 6, 3)), tuple(map(tuple, VECTORS.tolist())), 1e-4, probabilities)
  made = make_spec(("a", "b"), 2, 8).at(precision)
  return replace(made, self_test=test, head=Head("sigmoid", ("x", "y")) if probabilities else None)


def test_float32_is_held_to_an_absolute_error():
  assert tolerance(spec("float32")) == 1e-4
  assert check_vectors(spec("float32"), [1, 0], VECTORS[::-1] + 5e-5) == pytest.approx(5e-5)
  with pytest.raises(SelfTestError, match=r"self-test off by 0.0002 in vectors, more than 0.0001: .* TensorFlow$"):
    check_vectors(spec("float32"), [0, 1], VECTORS + 2e-4)


def test_bfloat16_is_held_to_the_direction():
  assert tolerance(spec("bfloat16")) == 1e-3
  apart = replace(spec("bfloat16"), self_test=SelfTest(((1,), (2,)), ((1.0, 0.0), (0.0, 1.0)), 1e-4))
  assert check_vectors(apart, [0], np.array([[1.0, 0.03]])) == pytest.approx(1 - (1 + 0.03**2) ** -0.5)
  with pytest.raises(SelfTestError, match=r"off by 0.00125 in 1 - cosine, more than 0.001: .* float32$") as caught:
    check_vectors(apart, [0], np.array([[1.0, 0.05]]))
  assert "ONEDNN" not in str(caught.value), "without it there is float32, under the name of bfloat16"


@pytest.mark.parametrize(("error", "known"), [(5e-13, True), (3e-6, False)])
def test_bfloat16_that_is_none_is_told_by_its_error(error, known):
  assert is_float32_in_fact(spec("bfloat16"), error) == known
  assert not is_float32_in_fact(spec("float32"), error)


@pytest.mark.parametrize("found", [VECTORS[::-1], VECTORS.mean(axis=0) + 0 * VECTORS, VECTORS * 1.01])
def test_bfloat16_does_not_take_one_text_for_another_nor_another_scale(found):
  with pytest.raises(SelfTestError, match=r"of the distance between vectors, more than 0\.2"):
    check_vectors(spec("bfloat16"), [0, 1], found)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("found", [VECTORS * np.nan, VECTORS * 0, VECTORS[:1]])
def test_what_is_no_vector_is_refused(precision, found):
  with pytest.raises(SelfTestError):
    check_vectors(spec(precision), [0, 1], found)


def test_probabilities_are_held_to_their_precision():
  rows = np.array([[0.5, 0.9], [0.1, 0.2]])
  both = {precision: spec(precision, tuple(map(tuple, rows.tolist()))) for precision in ("float32", "bfloat16")}
  for precision, good, bad in (("float32", 5e-5, 2e-4), ("bfloat16", 0.05, 0.11)):
    check_probabilities(both[precision], [0, 1], rows + good)
    with pytest.raises(SelfTestError, match="in probabilities"):
      check_probabilities(both[precision], [0, 1], rows + bad)
  with pytest.raises(SelfTestError, match=r"off by 0\.06 in probabilities, more than 0\.05"):
    check_probabilities(both["bfloat16"], [1], rows[1:] + 0.06)


def test_a_finding_is_without_the_remedy():
  with pytest.raises(SelfTestError) as caught:
    check_vectors(spec("bfloat16"), [0, 1], VECTORS * 2)
  assert caught.value.finding.endswith("of the distance between vectors, more than 0.2")
