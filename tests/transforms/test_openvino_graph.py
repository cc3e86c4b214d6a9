"""OpenVINO behind the seam that TensorFlow's session stands behind: the same answers, the same refusals."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.transforms.test_frozen_graph import NAMES, graph_bytes
from transforms.errors import EncoderError
from transforms.frozen_graph import tf
from transforms.openvino_graph import OpenVinoGraph


def with_head(ids, mask):
  tf.identity(tf.stack([ids, mask], 2), name="hidden")
  tf.sigmoid(ids, name="probabilities")
  return tf.stack([tf.reduce_sum(ids, 1), tf.reduce_sum(mask, 1)], 1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_encodes_any_batch_size_and_length(precision):
  graph = OpenVinoGraph(graph_bytes(), **NAMES, precision=precision)
  assert graph.vector_size == 2
  for shape in [(1, 2), (3, 7), (2, 2)]:
    ids = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    vectors = graph.encode(ids, np.ones_like(ids))
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.stack([ids.sum(axis=1), np.full(shape[0], shape[1])], 1))


def test_every_output_is_there_and_stays_as_it_was():
  graph = OpenVinoGraph(graph_bytes(with_head), **NAMES, hidden="hidden", probabilities="probabilities")
  ids, mask = np.array([[1, 2, 3]], np.int32), np.array([[1, 1, 0]], np.int32)
  vectors, probabilities = graph.encode_and_predict(ids, mask)
  graph.encode_and_predict(ids * 5, mask)  # what a caller holds must not be the next one's buffer
  assert vectors.tolist() == graph.encode(ids, mask).tolist() == [[6, 2]]
  np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-ids)), rtol=1e-6)
  assert graph.encode_tokens(ids, mask).tolist() == [[[1, 1], [2, 1], [3, 0]]]


@pytest.mark.parametrize(
  ("build", "more"), [(None, {"probabilities": NAMES["output"]}), (lambda ids, mask: tf.ones([2, 3]), {})]
)
def test_outputs_that_are_none_of_their_own_are_refused(build, more):
  with pytest.raises(EncoderError, match=r"^graph: not output.* apart to OpenVINO, or constant; give --engine tensor"):
    OpenVinoGraph(graph_bytes(build), **NAMES, **more)


def test_two_names_of_one_tensor_are_two_outputs():
  graph = OpenVinoGraph(
    graph_bytes(lambda ids, mask: tf.identity(tf.identity(ids, name="probabilities"))),
    **NAMES,
    probabilities="probabilities",
  )
  ids = np.array([[1, 2, 3]], np.int32)
  assert [found.tolist() for found in graph.encode_and_predict(ids, ids)] == [[[1, 2, 3]]] * 2


def test_threads_have_a_request_each():
  graph = OpenVinoGraph(graph_bytes(), **NAMES, threads=1)
  batches = [np.full((4, 8), i, np.int32) for i in range(100)]
  with ThreadPoolExecutor(8) as pool:
    results = list(pool.map(lambda ids: graph.encode(ids, np.ones_like(ids)), batches))
  assert [result[0, 0] for result in results] == [8 * i for i in range(100)]


def test_a_graph_that_has_no_use_for_the_mask_computes():
  graph = OpenVinoGraph(graph_bytes(lambda ids, mask: ids * 2), **NAMES)
  ids = np.ones((1, 2), np.int32)
  assert graph.encode(ids, ids).tolist() == [[2, 2]]


@pytest.mark.parametrize(
  ("build", "names", "message"),
  [
    (lambda ids, mask: tf.py_function(lambda x: x, [ids], tf.float32), {}, "is a EagerPyFunc, which is not one of"),
    (lambda ids, mask: ids + tf.raw_ops.Fill(dims=[10**5, 10**5], value=1.0), {}, "gives 40000000000 bytes or more"),
    (None, {"output": "vector"}, "no node 'vector', which should be a float32"),
    (None, {"input_ids": "output"}, "node 'output' is float32"),
  ],
)
def test_what_tensorflow_must_not_see_openvino_does_not_see(build, names, message):
  with pytest.raises(EncoderError, match=message):
    OpenVinoGraph(graph_bytes(build), **(NAMES | names))


def test_bytes_that_are_no_graph_are_refused():
  with pytest.raises(EncoderError, match="graph:"):
    OpenVinoGraph(b"not a graph at all", **NAMES)


def test_what_cannot_be_computed_is_told_in_one_line():
  graph, ids = (
    OpenVinoGraph(graph_bytes(lambda ids, mask: tf.reshape(ids, [7, -1])), **NAMES),
    np.ones((2, 3), np.int32),
  )
  with pytest.raises(EncoderError, match=r"graph: cannot be computed by OpenVINO \(.+\); freeze again") as caught:
    graph.encode(ids, ids)
  assert "\n" not in str(caught.value)


def test_without_the_package_one_line_says_what_to_install():
  program = (
    "import sys; sys.modules['openvino'] = None\n"
    "from transforms.errors import EncoderError\n"
    "try: import transforms.openvino_graph\n"
    "except EncoderError as error: print(error)"
  )
  said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
  assert said.startswith("engine openvino: its package is not installed (") and "\n" not in said.strip()
  assert said.strip().endswith("pip install 'sorbus[openvino]'")
