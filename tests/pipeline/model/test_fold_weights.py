"""What is multiplied into the weights changes their layout and scale, and not what they compute."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.model.fold_weights import FUSED_EPSILON, FoldedWeights
from pipeline.model.read_checkpoint import read_checkpoint
from tests.tiny_bert import write_google_checkpoint

BLOCK = "bert/encoder/layer_0"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  return read_checkpoint(str(write_google_checkpoint(tmp_path_factory.mktemp("c"), heads=4)))  # H = 32, D = 8


@pytest.fixture(scope="module")
def folded(tiny):
  return FoldedWeights(tiny.variables, replace(tiny.config, layer_norm_eps=1e-5), depth=2)


@pytest.fixture(scope="module")
def x():
  return np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)


def test_a_scaled_normalisation_with_the_fused_epsilon_is_the_model_s_own(folded, x):
  x = x.astype(np.float64) * 0.01  # so small that an epsilon shows
  centred = x - x.mean(axis=1, keepdims=True)
  expected = centred / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
  scaled = folded.scale * centred / np.sqrt((folded.scale * x).var(axis=1, keepdims=True) + FUSED_EPSILON)
  np.testing.assert_allclose(scaled, expected, rtol=1e-12)
  assert folded.scale == pytest.approx(10.0)


def test_an_epsilon_too_small_for_float32_leaves_the_scale_finite(tiny):
  assert FoldedWeights(tiny.variables, replace(tiny.config, layer_norm_eps=1e-300), 2).scale == pytest.approx(31622.78)


def test_one_product_gives_query_key_and_value_with_the_query_divided_by_the_root_of_d(tiny, folded, x):
  weights = folded.query_key_value(f"{BLOCK}/attention/self")
  found = np.split((folded.scale * x) @ weights["kernel"] + weights["bias"], 3, axis=1)
  for name, product, divisor in zip(("query", "key", "value"), found, (np.sqrt(8), 1, 1), strict=True):
    scope = f"{BLOCK}/attention/self/{name}"
    expected = x @ tiny.variables[f"{scope}/kernel"] + tiny.variables[f"{scope}/bias"]
    np.testing.assert_allclose(product, expected / divisor, rtol=0, atol=1e-5)


def test_what_is_read_from_the_stream_is_plain_and_what_is_written_is_in_its_scale(tiny, folded, x):
  for scope, taken, give, scale in (
    (f"{BLOCK}/intermediate/dense", folded.scale * x, folded.reading, 1.0),
    (f"{BLOCK}/attention/output/dense", x, folded.writing, folded.scale),
  ):
    weights = give(scope)
    expected = scale * (x @ tiny.variables[f"{scope}/kernel"] + tiny.variables[f"{scope}/bias"])
    np.testing.assert_allclose(taken @ weights["kernel"] + weights["bias"], expected, rtol=0, atol=1e-4)


def test_embeddings_have_the_token_type_in_the_positions(tiny, folded):
  weights = folded.embeddings("bert/embeddings")
  names = ("word_embeddings", "position_embeddings", "token_type_embeddings")
  words, places, types = (tiny.variables[f"bert/embeddings/{name}"] for name in names)
  np.testing.assert_allclose(weights["word_embeddings"], 10 * words, rtol=1e-6)
  np.testing.assert_allclose(weights["position_embeddings"], 10 * (places + types[0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  ("depth", "last"),
  [(0, "bert/embeddings/LayerNorm"), (1, f"{BLOCK}/output/LayerNorm"), (2, "bert/encoder/layer_1/output/LayerNorm")],
)
def test_only_the_last_layer_s_output_is_as_bert_has_it(tiny, folded, depth, last):
  weights = FoldedWeights(tiny.variables, replace(tiny.config, layer_norm_eps=1e-5), depth)
  scopes = [f"bert/encoder/layer_{i}/{part}/LayerNorm" for i in range(2) for part in ("attention/output", "output")]
  for scope in ("bert/embeddings/LayerNorm", *scopes):
    factor = 1 if scope == last else 10
    for name, value in weights.layer_norm(scope).items():
      np.testing.assert_allclose(value, factor * tiny.variables[f"{scope}/{name}"], rtol=1e-6)


def test_everything_is_float32(folded):
  for weights in (folded.embeddings("bert/embeddings"), folded.query_key_value(f"{BLOCK}/attention/self")):
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float32)}
