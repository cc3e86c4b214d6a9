from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from transforms.encoder_spec import TensorNames
from transforms.errors import EncoderError
from transforms.frozen_graph import FrozenGraph, tf

NAMES = TensorNames("input_ids", "input_mask", "output")


def graph_bytes(build=None, ids_type=tf.int32):
  """A graph that gives each row's sum and count, unless `build` makes something else of its inputs."""
  graph = tf.Graph()
  with graph.as_default():
    ids = tf.compat.v1.placeholder(ids_type, [None, None], "input_ids")
    mask = tf.compat.v1.placeholder(tf.int32, [None, None], "input_mask")
    numbers = tf.cast(ids, tf.float32), tf.cast(mask, tf.float32)
    output = build(*numbers) if build else tf.stack([tf.reduce_sum(number, 1) for number in numbers], 1)
    tf.identity(output, name="output")
  return graph.as_graph_def().SerializeToString()


def test_encodes_any_batch_size_and_length():
  graph = FrozenGraph(graph_bytes(), NAMES)
  for shape in [(1, 2), (3, 7)]:
    ids = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    vectors = graph.encode(ids, np.ones_like(ids))
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[:, 0], ids.sum(axis=1))


def test_threads_share_one_session():
  graph = FrozenGraph(graph_bytes(), NAMES, threads=1)
  batches = [np.full((4, 8), i, np.int32) for i in range(100)]
  with ThreadPoolExecutor(8) as pool:
    results = list(pool.map(lambda ids: graph.encode(ids, np.ones_like(ids)), batches))
  assert [result[0, 0] for result in results] == [8 * i for i in range(100)]


def test_operations_that_do_more_than_compute_are_refused():
  def reads_a_file(ids, mask):
    size = tf.strings.length(tf.io.read_file("/etc/hostname"))
    return ids + tf.cast(size, tf.float32)

  with pytest.raises(EncoderError, match="node 'ReadFile' is a ReadFile"):
    FrozenGraph(graph_bytes(reads_a_file), NAMES)


def test_variables_are_refused():
  def has_a_variable(ids, mask):
    return ids * tf.compat.v1.get_variable("w", [], use_resource=False)

  with pytest.raises(EncoderError, match=r"node 'w.*' is a "):
    FrozenGraph(graph_bytes(has_a_variable), NAMES)


def test_a_function_library_is_refused():
  def calls_a_function(ids, mask):
    return tf.function(lambda x: x + 1)(ids)

  with pytest.raises(EncoderError, match="brings a function"):
    FrozenGraph(graph_bytes(calls_a_function), NAMES)


@pytest.mark.parametrize(
  ("names", "message"),
  [
    ({"output": "vector"}, "no node 'vector', which should be a float32"),
    ({"input_ids": "ids"}, "no node 'ids', which should be an int32"),
    ({"input_ids": "output"}, "node 'output' is float32"),
    ({"output": "input_ids"}, "node 'input_ids' is int32"),
  ],
)
def test_inputs_and_output_must_be_as_stated(names, message):
  with pytest.raises(EncoderError, match=message):
    FrozenGraph(graph_bytes(), replace(NAMES, **names))


def test_int64_inputs_are_refused():
  with pytest.raises(EncoderError, match="node 'input_ids' is int64"):
    FrozenGraph(graph_bytes(ids_type=tf.int64), NAMES)


@pytest.mark.parametrize("data", [b"", b"not a graph at all"])
def test_bytes_that_are_no_graph_are_refused(data):
  with pytest.raises(EncoderError, match="graph:"):
    FrozenGraph(data, NAMES)


def edited(change, build=None):
  """The bytes of a graph whose GraphDef `change` has spoilt."""
  definition = tf.compat.v1.GraphDef.FromString(graph_bytes(build))
  change(definition)
  return definition.SerializeToString()


def test_a_graph_frozen_on_another_machine_computes_here():
  def elsewhere(definition):
    for node in definition.node:
      node.device = "/job:worker/task:7/device:TPU:3"

  ids = np.ones((1, 2), np.int32)
  assert FrozenGraph(edited(elsewhere), NAMES).encode(ids, ids).tolist() == [[2, 2]]


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (lambda ids, mask: tf.reshape(ids, [7, -1]), "node 'Reshape' cannot be computed .*multiple of 7.*freeze again"),
    (lambda ids, mask: tf.fill([tf.shape(ids)[0] - 9, 2], 1.0), "node 'Fill' cannot be computed"),
    (
      lambda ids, mask: tf.tile(ids[:, :1], [tf.shape(ids)[0] * 10**9, 10**6]),
      "node 'Tile' cannot be computed .*; give a smaller --token-budget",
    ),
  ],
)
def test_what_cannot_be_computed_is_told_in_one_line_by_node(build, message):
  graph, ids = FrozenGraph(graph_bytes(build), NAMES), np.ones((2, 3), np.int32)
  with pytest.raises(EncoderError, match=message) as caught:
    graph.encode(ids, ids)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [[10**5, 10**5], [10**9, 10**9]])
def test_a_tensor_that_is_too_large_whatever_the_text_is_refused_before_it_is_made(shape):
  with pytest.raises(EncoderError, match=r"node 'Fill' gives 40+ bytes or more whatever the text"):
    FrozenGraph(graph_bytes(lambda ids, mask: ids + tf.reduce_sum(tf.raw_ops.Fill(dims=shape, value=1.0))), NAMES)


def add_constant(definition, dtype, *shape):
  node = definition.node.add(name="large", op="Const")
  node.attr["dtype"].type = node.attr["value"].tensor.dtype = dtype.as_datatype_enum
  for size in shape:
    node.attr["value"].tensor.tensor_shape.dim.add(size=size)
  node.attr["value"].tensor.half_val.append(0)


def test_a_constant_much_larger_than_what_is_stored_of_it_is_refused():
  for shape in [(10**12,), (10**15, 10**15), (2**25 + 100,)]:
    with pytest.raises(EncoderError, match=r"node 'large' is a constant of .* bytes, of which .* are stored"):
      FrozenGraph(edited(lambda definition, shape=shape: add_constant(definition, tf.float16, *shape)), NAMES)
  FrozenGraph(edited(lambda definition: add_constant(definition, tf.float16, 2**20)), NAMES)


def test_types_that_are_not_for_computing_are_refused():
  with pytest.raises(EncoderError, match="node 'large' has dtype string; an encoder computes with bool, int32"):
    FrozenGraph(edited(lambda definition: add_constant(definition, tf.string, 1)), NAMES)

  def casts_to_no_type(definition):
    next(node for node in definition.node if node.op == "Cast").attr["DstT"].type = 777

  with pytest.raises(EncoderError, match="node 'Cast' has DstT type 777"):
    FrozenGraph(edited(casts_to_no_type), NAMES)
