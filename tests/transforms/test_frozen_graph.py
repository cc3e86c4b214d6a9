from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from transforms.errors import EncoderError
from transforms.frozen_graph import FrozenGraph, tf

NAMES = {"input_ids": "input_ids", "input_mask": "input_mask", "output": "output"}


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
  graph = FrozenGraph(graph_bytes(), **NAMES)
  assert graph.hidden_size == 2
  for shape in [(1, 2), (3, 7)]:
    ids = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    vectors = graph.encode(ids, np.ones_like(ids))
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[:, 0], ids.sum(axis=1))


def test_threads_share_one_session():
  graph = FrozenGraph(graph_bytes(), **NAMES, threads=1)
  batches = [np.full((4, 8), i, np.int32) for i in range(100)]
  with ThreadPoolExecutor(8) as pool:
    results = list(pool.map(lambda ids: graph.encode(ids, np.ones_like(ids)), batches))
  assert [result[0, 0] for result in results] == [8 * i for i in range(100)]


def test_operations_that_do_more_than_compute_are_refused():
  def reads_a_file(ids, mask):
    size = tf.strings.length(tf.io.read_file("/etc/hostname"))
    return ids + tf.cast(size, tf.float32)

  with pytest.raises(EncoderError, match="node 'ReadFile' is a ReadFile"):
    FrozenGraph(graph_bytes(reads_a_file), **NAMES)


def test_variables_are_refused():
  def has_a_variable(ids, mask):
    return ids * tf.compat.v1.get_variable("w", [], use_resource=False)

  with pytest.raises(EncoderError, match=r"node 'w.*' is a "):
    FrozenGraph(graph_bytes(has_a_variable), **NAMES)


def test_a_function_library_is_refused():
  def calls_a_function(ids, mask):
    return tf.function(lambda x: x + 1)(ids)

  with pytest.raises(EncoderError, match="brings a function"):
    FrozenGraph(graph_bytes(calls_a_function), **NAMES)


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
    FrozenGraph(graph_bytes(), **(NAMES | names))


def test_int64_inputs_are_refused():
  with pytest.raises(EncoderError, match="node 'input_ids' is int64"):
    FrozenGraph(graph_bytes(ids_type=tf.int64), **NAMES)


@pytest.mark.parametrize("data", [b"", b"not a graph at all"])
def test_bytes_that_are_no_graph_are_refused(data):
  with pytest.raises(EncoderError, match="graph:"):
    FrozenGraph(data, **NAMES)
