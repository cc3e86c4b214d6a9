import numpy as np
import pytest

from pipeline.model.adapt_graph import adapt_graph
from pipeline.model.graph_ends import AskedEnds, find_ends
from pipeline.model.graph_rewriting import prune
from tests.old_graph import tf, v1
from transforms.encoder_spec import IN_GRAPH, Readout
from transforms.frozen_graph import FrozenGraph, check_graph

IDS = np.array([[3, 1, 2, 0], [4, 5, 0, 0]], np.int32)
MASK = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32)


def adapted(draw, readout, *, dtype=tf.int32, shape=(None, None)):
  """Adapts a graph that `draw` makes of ids, mask and token types, all float32; returns it, loaded."""
  with tf.Graph().as_default() as graph:
    inputs = [v1.placeholder(dtype, shape, name) for name in ("input_ids", "input_mask", "segment_ids")]
    tf.identity(draw(*(tf.cast(x, tf.float32) for x in inputs)), "vectors")
  ends = find_ends(graph, AskedEnds(output="vectors"))
  definition = prune(graph.as_graph_def(), "vectors", [x.op.name for x in ends.inputs])
  data, names = adapt_graph(definition, ends, readout)
  check_graph(v1.GraphDef.FromString(data))
  return FrozenGraph(data, names)


def tokens(ids, mask, types):
  """[B, T, 3]: the id, whether it counts, and the row's length as the graph sees it."""
  length = tf.cast(tf.shape(ids)[1], tf.float32) * tf.ones_like(ids)
  return tf.stack([ids + 100 * types, mask, length], 2)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64, tf.float32])
def test_inputs_of_any_type_and_token_types_of_0(dtype):
  graph = adapted(tokens, Readout("mean", ()), dtype=dtype)
  assert graph.encode(IDS, MASK).tolist() == [[2, 1, 4], [4.5, 1, 4]]


@pytest.mark.parametrize(("pooling", "first"), [("mean", [2, 1, 6]), ("last", [2, 1, 6]), ("max", [3, 1, 6])])
def test_a_fixed_length_is_padded_inside_and_cut_off_again(pooling, first):
  graph = adapted(tokens, Readout(pooling, ()), shape=(None, 6))
  assert graph.encode(IDS, MASK)[0].tolist() == first
  assert graph.encode_tokens(IDS, MASK).tolist() == [
    [[3, 1, 6], [1, 1, 6], [2, 1, 6], [0, 0, 6]],
    [[4, 1, 6], [5, 1, 6], [0, 0, 6], [0, 0, 6]],
  ]


def test_one_vector_a_text_is_taken_as_it_is():
  graph = adapted(lambda ids, mask, types: tf.reduce_sum(tokens(ids, mask, types), 1), Readout(IN_GRAPH, ()))
  assert graph.encode(IDS, MASK).tolist() == [[6, 3, 16], [9, 2, 16]]


def test_names_in_the_graph_may_be_those_of_our_nodes():
  def draw(ids, mask, types):
    return tokens(ids, mask, types) + tf.identity(tf.zeros([1, 1, 3]), "bert/pooled")

  assert adapted(draw, Readout("cls", ())).encode(IDS, MASK)[:, 0].tolist() == [3, 4]
