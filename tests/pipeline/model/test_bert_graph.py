"""How the graph is drawn: right with every epsilon, nothing twice, and [CLS] alone where no other token is needed."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pipeline.model.bert_graph import Bert, build_graph
from pipeline.model.bert_numpy import bert_probabilities, bert_vector
from pipeline.model.fold_weights import FoldedWeights
from pipeline.model.read_checkpoint import read_checkpoint
from tests.tiny_bert import write_google_checkpoint
from transforms.encoder_spec import Head, Readout
from transforms.frozen_graph import FrozenGraph, parse, tf

IDS = np.array([[2, 9, 10, 11, 3], [2, 40, 3, 0, 0]], np.int32)
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)
TEXTS = [IDS[0], IDS[1, :3]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  return read_checkpoint(str(write_google_checkpoint(tmp_path_factory.mktemp("c"), heads=4, head=3)))


def vectors_of(tiny, config, readout, variables=None):
  variables = variables or tiny.variables
  frozen = FrozenGraph(*build_graph(variables, config, readout))
  return frozen.encode(IDS, MASK), np.array([bert_vector(variables, config, text, readout) for text in TEXTS])


@pytest.mark.parametrize("layers", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 1e-3, 0.1])
def test_whatever_the_epsilon_small_embeddings_are_normalised_with_it(tiny, layers, epsilon):
  small = {name: value * np.float32(0.02) for name, value in tiny.variables.items() if name.endswith("_embeddings")}
  config, variables = replace(tiny.config, layer_norm_eps=epsilon), tiny.variables | small
  found, expected = vectors_of(tiny, config, Readout("mean", layers), variables)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
  _, other = vectors_of(tiny, replace(config, layer_norm_eps=epsilon * 100), Readout("mean", layers), variables)
  assert epsilon == 1e-12 or np.abs(other - expected).max() > 1e-3  # it does show


@pytest.mark.parametrize("layers", [(0,), (2,), (1, 2)])
def test_cls_alone_is_the_first_of_all_tokens(tiny, layers):
  frozen = FrozenGraph(*build_graph(tiny.variables, tiny.config, Readout("cls", layers, "concat")))
  np.testing.assert_allclose(frozen.encode(IDS, MASK), frozen.encode_tokens(IDS, MASK)[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "pooler"])
def test_the_last_block_is_computed_for_cls_alone_where_nobody_reads_the_others(tiny, pooling):
  graph, names = build_graph(tiny.variables, tiny.config, Readout(pooling, (2,)))
  needed = tf.compat.v1.graph_util.extract_sub_graph(parse(graph), [names.output])
  with tf.Graph().as_default() as drawn:
    tf.import_graph_def(needed, name="")
  wide = [op.inputs[0] for op in drawn.get_operations() if op.type == "MatMul" and op.inputs[1].shape == (32, 128)]
  with tf.compat.v1.Session(graph=drawn) as session:
    found = session.run(wide, {"input_ids:0": IDS, "input_mask:0": MASK})
  assert [x.shape for x in found] == [(2 * 5, 32), (2, 32)]


@pytest.mark.parametrize("pooling", ["cls", "pooler", "mean"])
def test_no_weight_stands_in_the_graph_twice(tiny, pooling):
  readout = Readout(pooling, (2,))
  used = tiny.used(readout)
  graph, _ = build_graph(used, tiny.config, readout)
  assert len(graph) < sum(value.nbytes for value in used.values()) + 40_000


@pytest.mark.parametrize(("pooling", "layers"), [("mean", (1,)), ("mean", (2,)), ("cls", (2,)), ("pooler", (2,))])
def test_a_head_reads_the_last_layer_s_cls_whatever_is_pooled(tiny, pooling, layers):
  head = Head("softmax", ("a", "b", "c"))
  frozen = FrozenGraph(*build_graph(tiny.variables, tiny.config, Readout(pooling, layers), head))
  vectors, probabilities = frozen.encode_and_predict(IDS, MASK)
  expected = [bert_probabilities(tiny.variables, tiny.config, text, "softmax") for text in TEXTS]
  np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
  np.testing.assert_allclose(
    vectors, [bert_vector(tiny.variables, tiny.config, text, Readout(pooling, layers)) for text in TEXTS], atol=1e-5
  )


def test_over_variables_it_is_the_same_pass_through_which_gradients_go(tiny):
  used = tiny.used(Readout("pooler", (2,)), head=True)
  variables, dropped = {name: tf.Variable(value) for name, value in used.items()}, []
  with tf.GradientTape() as tape:
    weights = FoldedWeights(variables, tiny.config, 2, tf.concat)
    bert = Bert(weights, tiny.config, IDS, MASK, 2, lambda x: dropped.append(tuple(x.shape)) or x)
    probabilities = bert.probabilities(bert.pooler(bert.first(2)), "softmax")
    loss = tf.reduce_sum(probabilities[:, 0])
  expected = [bert_probabilities(tiny.variables, tiny.config, text, "softmax") for text in TEXTS]
  np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
  gradients = tape.gradient(loss, variables)
  moved = {name for name, gradient in gradients.items() if gradient is not None and np.any(gradient)}
  assert {name for name in used if "key/bias" not in name} <= moved  # a softmax does not feel that bias
  # Where Google has dropout: embeddings, then attention and both sums of each block; the last block again for [CLS].
  block, last = [(2, 4, 5, 5), (10, 32), (10, 32)], [(2, 4, 1, 5), (2, 32), (2, 32)]
  assert dropped == [(10, 32), *block, *block, *last, (2, 32)]


def ops_that_run(graph, output):
  """How often each op is in the graph that TensorFlow makes of it, a fused one with what is fused to it."""
  with tf.Graph().as_default() as drawn:
    tf.import_graph_def(parse(graph), name="")
  options = tf.compat.v1.RunOptions(output_partition_graphs=True)
  metadata = tf.compat.v1.RunMetadata()
  with tf.compat.v1.Session(graph=drawn) as session:
    session.run(f"{output}:0", {"input_ids:0": IDS, "input_mask:0": MASK}, options, metadata)
  nodes = [node for part in metadata.partition_graphs for node in part.node]
  return Counter(" ".join([node.op, *(op.decode() for op in node.attr["fused_ops"].list.s)]) for node in nodes)


@pytest.mark.parametrize(("activation", "fused"), [("gelu_erf", "GeluExact"), ("gelu_tanh", "GeluApproximate")])
def test_onednn_takes_layer_norms_activations_and_residual_sums_as_one_op_each(tiny, activation, fused):
  graph, names = build_graph(tiny.variables, replace(tiny.config, activation=activation), Readout("mean", (2,)))
  ops = ops_that_run(graph, names.output)
  if not any(op.startswith("_Mkl") for op in ops):
    pytest.skip("TensorFlow does not use oneDNN on this machine")
  expected = {
    "_MklLayerNorm": 1 + 2 * 2,
    "_MklNativeFusedMatMul BiasAdd": 2,  # query, key and value
    f"_MklNativeFusedMatMul BiasAdd {fused}": 2,
    "_MklNativeFusedMatMul BiasAdd Add": 2 * 2,
    "_MklTranspose": 2 * 2,
  }
  assert {op: ops[op] for op in expected} == expected
  assert ops["AddV2"] == 2 + 1  # the mask, and the positions
