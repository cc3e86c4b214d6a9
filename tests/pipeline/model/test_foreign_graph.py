import subprocess
import sys

import numpy as np
import pytest

from pipeline.model.foreign_graph import bounded_memory, read_graph
from tests.old_graph import OldGraph, old_variables, tf, v1
from transforms.errors import EncoderError, UsageError

VARIABLES = old_variables()


def write(folder, change=lambda definition: None, **old):
  definition = OldGraph(**old).freeze(VARIABLES)
  change(definition)
  (folder / "graph.pb").write_bytes(definition.SerializeToString())
  return str(folder / "graph.pb")


def grown(definition, draw):
  """Adds what `draw` draws to a graph."""
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(definition, name="")
    draw()
  definition.CopyFrom(graph.as_graph_def())


def call_a_function():
  @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
  def secret(x):
    return x

  secret(tf.constant(1.0))


@pytest.mark.parametrize(
  ("draw", "message"),
  [
    (lambda: tf.io.read_file("/etc/hostname"), r"graph\.pb: node 'ReadFile' is a ReadFile, which is not one of"),
    (lambda: v1.py_func(lambda: np.float32(1), [], tf.float32), r"graph\.pb: node 'PyFunc' is a PyFunc"),
    (lambda: v1.Variable(1.0, name="w", use_resource=True), r"graph\.pb: node 'w' is a VarHandleOp"),
    (lambda: v1.Variable(1.0, name="w", use_resource=False), r"graph\.pb: node 'w' is a VariableV2"),
    (lambda: tf.print("a secret"), r"graph\.pb: node '.*' is a (StringFormat|PrintV2)"),
    (lambda: tf.random.uniform([3]), r"graph\.pb: node '.*RandomUniform' is a RandomUniform"),
    (call_a_function, r"graph\.pb: brings a function, '.*secret.*'; freeze it inlined"),
  ],
)
def test_what_only_inference_does_not_need_is_refused_by_name_though_no_vector_depends_on_it(tmp_path, draw, message):
  with pytest.raises(EncoderError, match=message) as caught:
    read_graph(write(tmp_path, lambda definition: grown(definition, draw)))
  assert "\n" not in str(caught.value)


def test_a_function_library_beside_the_graphs_own_is_refused(tmp_path):
  def bring(definition):
    definition.library.function.add().signature.name = "first"
    definition.library.function.add().signature.name = "second"

  with pytest.raises(EncoderError, match="brings a function, 'first'"):
    read_graph(write(tmp_path, bring))


def test_an_assertion_does_not_hide_what_feeds_it(tmp_path):
  def draw():
    text = tf.io.read_file("/etc/hostname")
    with tf.control_dependencies([v1.Assert(tf.constant(True), [text])]):
      tf.identity(tf.constant(1.0))

  with pytest.raises(EncoderError, match="node 'ReadFile' is a ReadFile"):
    read_graph(write(tmp_path, lambda definition: grown(definition, draw)))


def test_what_is_no_graph_is_refused_in_one_line(tmp_path):
  place = tmp_path / "graph.pb"
  for data, message in (
    (b"", r"graph\.pb: has no node at all; is the file empty\?"),
    (b"\xff" * 40, r"graph\.pb: 40 bytes that are not a TensorFlow GraphDef"),
    (str(OldGraph().freeze(VARIABLES)).encode()[:200], r"graph\.pb: a GraphDef as text; .* as_text=False"),
  ):
    place.write_bytes(data)
    with pytest.raises(EncoderError, match=message):
      read_graph(str(place))
  with pytest.raises(EncoderError, match=r"gone\.pb: cannot be read \(No such file or directory\)"):
    read_graph(str(tmp_path / "gone.pb"))


def test_a_file_that_is_too_large_for_a_graph_is_not_read(tmp_path):
  with (tmp_path / "graph.pb").open("wb") as file:
    file.truncate(2**31)  # takes no room on the disk
  with pytest.raises(EncoderError, match=r"graph\.pb: 2147483648 bytes; a graph of more than 2146435071 cannot"):
    read_graph(str(tmp_path / "graph.pb"))


def test_a_graph_that_does_not_fit_together_is_refused(tmp_path):
  def cut(definition):
    next(node for node in definition.node if node.op == "Tanh").input[0] = "nowhere"

  with pytest.raises(EncoderError, match=r"graph\.pb: TensorFlow cannot import it \(.*nowhere.*\); freeze it again"):
    read_graph(write(tmp_path, cut))


def test_the_recipe_that_a_saved_model_is_refused_with_makes_a_graph_of_it(tmp_path):
  folder = tmp_path / "model"
  model = tf.Module()
  model.table = tf.Variable(np.ones((5, 4), np.float32))
  signature = [tf.TensorSpec([None, None], tf.int32, name="input_ids")]
  encode = tf.function(lambda input_ids: {"vector": tf.gather(model.table, input_ids)}, input_signature=signature)
  tf.saved_model.save(model, str(folder), signatures={"serving_default": encode})
  (tmp_path / "renamed.pb").write_bytes((folder / "saved_model.pb").read_bytes())
  for path in (folder, folder / "saved_model.pb", tmp_path / "renamed.pb"):
    with pytest.raises(UsageError, match=r"a SavedModel, which is not a frozen graph; make one of it, .*: python -c "):
      read_graph(str(path))
  with pytest.raises(UsageError) as caught:
    read_graph(str(folder))
  [program] = str(caught.value).split('python -c "')[1:]
  subprocess.run([sys.executable, "-c", program.removesuffix('"')], cwd=tmp_path, check=True, capture_output=True)
  graph = read_graph(str(tmp_path / "graph.pb")).graph
  assert [op.name for op in graph.get_operations() if op.type == "Placeholder"] == ["input_ids"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux holds a process to its memory")
def test_what_is_imported_cannot_take_all_memory():
  definition = v1.GraphDef()
  with bounded_memory(definition):
    assert np.empty(1 << 20).size
    with pytest.raises(MemoryError):
      np.empty(1 << 28)  # 2 GiB, of which nothing is used
  assert np.empty(1 << 28).size
