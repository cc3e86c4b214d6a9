"""What is multiplied into an XLNet's weights changes their layout and scale, and not what they compute."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.model.config_values import GOOGLE_ACTIVATIONS
from pipeline.model.fold_xlnet import FoldedXlnet
from pipeline.model.xlnet_config import make_config
from tests.tiny_xlnet import random_variables, xlnet_config

SCOPE = "model/transformer/layer_1/rel_attn"
A, D = 4, 8


@pytest.fixture(scope="module", params=[True, False], ids=["untied", "tied"])
def folded(request):
  """An XLNet whose stream is 10 times as large, its variables, and the biases of its second block."""
  stated = xlnet_config(vocab_size=20, heads=A, untie_r=request.param, layer_norm_eps=1e-5)
  variables = random_variables(stated)
  config = make_config(Path("c"), stated, GOOGLE_ACTIVATIONS, None)
  biases = [variables[f"model/transformer/r_{name}_bias"] for name in "wrs"]
  return FoldedXlnet(variables, config, 2), variables, [x[1] if request.param else x for x in biases]


@pytest.fixture(scope="module")
def x():
  return np.random.default_rng(0).normal(size=(5, 32))


def test_one_product_gives_query_key_value_and_what_a_segment_counts(folded, x):
  weights, variables, (content, _, segment) = folded
  assert weights.scale == pytest.approx(10)
  folds = weights.projections(SCOPE)
  query, key, value, by_segment = np.split((10 * x) @ folds["kernel"] + folds["bias"], [32, 64, 96], axis=1)
  q, k, v = (np.einsum("th,had->tad", x, variables[f"{SCOPE}/{name}/kernel"]) for name in "qkv")
  np.testing.assert_allclose(query.reshape(5, A, D), (q + content) / np.sqrt(D), rtol=0, atol=1e-5)
  np.testing.assert_allclose(key.reshape(5, A, D), k, rtol=0, atol=1e-5)
  np.testing.assert_allclose(value.reshape(5, A, D), v, rtol=0, atol=1e-5)
  same, other = variables["model/transformer/seg_embed"][1]
  expected = ((q + segment) * (other - same)).sum(2) / np.sqrt(D)
  np.testing.assert_allclose(by_segment, expected, rtol=0, atol=1e-5)


def test_a_query_for_distances_has_the_other_bias(folded):
  weights, variables, (content, place, _) = folded
  folds = weights.distances(SCOPE)
  np.testing.assert_array_equal(folds["kernel"], variables[f"{SCOPE}/r/kernel"].reshape(32, A * D))
  np.testing.assert_allclose(folds["bias"][:, 0], (place - content) / np.sqrt(D), rtol=0, atol=1e-6)


def test_attention_s_output_and_the_words_are_in_the_stream_s_scale(folded, x):
  weights, variables, _ = folded
  expected = 10 * np.einsum("tad,had->th", x.reshape(5, A, D), variables[f"{SCOPE}/o/kernel"])
  np.testing.assert_allclose(x @ weights.output(SCOPE)["kernel"], expected, rtol=0, atol=1e-4)
  words = variables["model/transformer/word_embedding/lookup_table"]
  np.testing.assert_allclose(weights.embeddings("")["word_embeddings"], 10 * words, rtol=1e-6)


def test_without_a_block_the_words_are_as_they_stand(folded):
  _, variables, _ = folded
  config = make_config(Path("c"), xlnet_config(vocab_size=20), GOOGLE_ACTIVATIONS, None)
  found = FoldedXlnet(variables, config, 0).embeddings("")["word_embeddings"]
  np.testing.assert_array_equal(found, variables["model/transformer/word_embedding/lookup_table"])


def test_everything_is_float32(folded):
  weights, _, _ = folded
  for folds in (weights.projections(SCOPE), weights.distances(SCOPE), weights.output(SCOPE)):
    assert {value.dtype for value in folds.values()} == {np.dtype(np.float32)}
