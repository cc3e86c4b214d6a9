"""XLNet's graph against its NumPy pass: every length, padding on either side, every pooling, tied and untied."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.model.config_values import GOOGLE_ACTIVATIONS
from pipeline.model.xlnet_config import make_config
from pipeline.model.xlnet_graph import build_all_layers, build_graph
from pipeline.model.xlnet_numpy import layer_outputs, xlnet_vector
from pipeline.model.xlnet_variables import needed_shapes
from tests.tiny_xlnet import random_variables, xlnet_config
from transforms.encoder_spec import Readout
from transforms.frozen_graph import FrozenGraph, parse

V = 50
POOLINGS = [(p, False) for p in ("cls", "mean", "max", "mean-max", "last")]
POOLINGS += [(p, True) for p in ("mean", "max", "mean-max")]
# Untied and tied, both activations, heads that are not H wide together, one head, an epsilon that shows, a clamp.
CONFIGS = [
  {},
  {"untie_r": False, "ff_activation": "relu", "heads": 4, "layers": 3},
  {"d_head": 5, "heads": 3, "ff_activation": "tanh"},
  {"heads": 1, "layers": 1, "clamp_len": 4},
  {"layer_norm_eps": 0.1},
]


def made(seed=0, **config):
  stated = xlnet_config(vocab_size=V, **config)
  return make_config(Path("xlnet_config.json"), stated, GOOGLE_ACTIVATIONS, None), random_variables(stated, seed)


def graph_of(variables, config, readout):
  return FrozenGraph(*build_graph(variables, config, readout))


def batch_of(lengths, seed=1, *, left=0):
  """Ids and mask [N, T + left] of random texts, behind `left` places of padding."""
  generator = np.random.default_rng(seed)
  mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int32)
  ids = generator.integers(0, V, mask.shape).astype(np.int32)  # padding has ids of words
  return np.pad(ids, ((0, 0), (left, 0)), constant_values=7), np.pad(mask, ((0, 0), (left, 0)))


@pytest.mark.parametrize("stated", CONFIGS)
def test_every_layer_of_every_length_equals_numpy_alone_and_padded(stated):
  config, variables = made(**stated)
  graph = graph_of(variables, config, Readout("mean", tuple(range(config.layers + 1)), "concat"))
  lengths = (1, 2, 3, 4, 7, 12, 31, 64)
  for left in (0, 5):
    ids, mask = batch_of(lengths, left=left)
    together = graph.encode_tokens(ids, mask)
    for row, length in enumerate(lengths):
      text = ids[row, left : left + length]
      expected = np.hstack(list(layer_outputs(variables, config, text, config.layers)))
      alone = graph.encode_tokens(text[None], np.ones((1, length), np.int32))[0]
      np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-5)
      np.testing.assert_allclose(together[row, left : left + length], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layers", [(0,), (1,), (2,)])
def test_padding_on_the_left_is_padding_on_the_right(layers):
  config, variables = made()
  lengths = (9, 4, 6)
  ids, mask = batch_of(lengths)
  turned = [np.array([np.roll(row, 9 - n) for row, n in zip(x, lengths, strict=True)]) for x in (ids, mask)]
  for pooling, exclude in POOLINGS:
    readout = Readout(pooling, layers, exclude_special_tokens=exclude)
    graph = graph_of(variables, config, readout)
    expected = [xlnet_vector(variables, config, row[:n], readout) for row, n in zip(ids, lengths, strict=True)]
    np.testing.assert_allclose(graph.encode(ids, mask), expected, rtol=0, atol=1e-5, err_msg=str(readout))
    np.testing.assert_allclose(graph.encode(*turned), expected, rtol=0, atol=1e-5, err_msg=str(readout))


def test_cls_is_the_last_token_and_special_tokens_are_the_last_two():
  config, variables = made()
  ids = batch_of((6,))[0][0]
  *_, hidden = layer_outputs(variables, config, ids, 2)
  for pooling, expected in (("cls", hidden[5]), ("last", hidden[5])):
    np.testing.assert_array_equal(xlnet_vector(variables, config, ids, Readout(pooling, (2,))), expected)
  without = xlnet_vector(variables, config, ids, Readout("mean", (2,), exclude_special_tokens=True))
  np.testing.assert_allclose(without, hidden[:4].mean(axis=0), rtol=1e-12)


def test_the_last_token_is_of_another_segment_whatever_its_id():
  config, variables = made()
  ids = batch_of((6,))[0][0]
  other = variables | {"model/transformer/seg_embed": variables["model/transformer/seg_embed"][:, ::-1]}
  readout = Readout("mean", (1,))
  vectors = [graph_of(x, config, readout).encode(ids[None], np.ones((1, 6), np.int32)) for x in (variables, other)]
  assert np.abs(vectors[0] - vectors[1]).max() > 1e-2
  # Where there is one token, there is one segment.
  one = [graph_of(x, config, readout).encode(ids[None, :1], np.ones((1, 1), np.int32)) for x in (variables, other)]
  np.testing.assert_allclose(one[0], one[1], rtol=0, atol=1e-6)


def test_what_stands_in_the_padding_changes_nothing_to_the_bit():
  config, variables = made()
  ids, mask = batch_of((9, 2, 5), left=3)
  for pooling, exclude in POOLINGS:
    graph = graph_of(variables, config, Readout(pooling, (1, 2), "concat", exclude))
    some = slice(0, None, 2) if exclude else slice(None)  # the second has no token of its own
    expected = graph.encode(ids[some], mask[some])
    np.testing.assert_array_equal(graph.encode(np.where(mask == 1, ids, 40)[some], mask[some]), expected)


def test_all_layers_are_those_of_a_graph_for_each():
  config, variables = made()
  ids, mask = batch_of((9, 2, 5))
  found = FrozenGraph(*build_all_layers(variables, config, ("mean", "cls", "max"))).encode(ids, mask)
  expected = [
    graph_of(variables, config, Readout(pooling, (i,))).encode(ids, mask)
    for pooling in ("mean", "cls", "max")
    for i in range(3)
  ]
  np.testing.assert_allclose(found, np.hstack(expected), rtol=0, atol=1e-5)


def test_in_bfloat16_vectors_point_the_same_way():
  config, variables = made(hidden_size=64, heads=4)
  ids, mask = batch_of((40, 9, 23, 2))
  readout = Readout("mean", (2,))
  expected = np.array([xlnet_vector(variables, config, row[m > 0], readout) for row, m in zip(ids, mask, strict=True)])
  graph, names = build_graph(variables, config, readout)
  found = FrozenGraph(graph, names, precision="bfloat16").encode(ids, mask)
  cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
  assert cosines.min() > 0.999


@pytest.mark.parametrize(("layers", "depth"), [((0,), 0), ((0, 1), 1), ((2,), 2)])
def test_the_graph_has_nothing_above_the_last_layer_used_and_no_weight_twice(layers, depth):
  config, variables = made()
  used = {name: variables[name] for name in needed_shapes(config, depth)}
  graph, _ = build_graph(used, config, Readout("mean", layers))
  found = {node.name.split("/")[2] for node in parse(graph).node if "/layer_" in node.name}
  assert found == {f"layer_{i}" for i in range(depth)}
  assert len(graph) < sum(value.nbytes for value in used.values()) + 40_000
