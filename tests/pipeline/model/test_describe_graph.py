import pytest

from pipeline.model.describe_graph import describe_graph
from transforms.errors import EncoderError
from transforms.frozen_graph import tf


def write(path, build):
  with tf.Graph().as_default() as graph:
    build()
  path.write_bytes(graph.as_graph_def().SerializeToString())
  return str(path)


def old_style():
  ids = tf.compat.v1.placeholder(tf.int64, [None, 20], name="input_ids")
  mask = tf.compat.v1.placeholder(tf.int32, None, name="input_mask")
  table = tf.constant([[1.0, 2.0]] * 7, name="table")
  hidden = tf.gather(table, ids, name="hidden")
  tf.multiply(hidden, tf.cast(mask, tf.float32)[:, :, None], name="masked")
  tf.reduce_mean(hidden, axis=1, name="pooled")


def test_inputs_and_what_could_be_the_output(tmp_path):
  found = describe_graph(write(tmp_path / "g.pb", old_style))
  assert found["kind"] == "graph" and found["can_be_frozen"] and found["problems"] == []
  assert found["inputs"] == [
    {"name": "input_ids", "type": "int64", "shape": [None, 20]},
    {"name": "input_mask", "type": "int32", "shape": None},
  ]
  assert found["outputs"] == [{"name": "pooled", "type": "float32", "shape": [None, 2]}]
  assert found["defaults"] == {
    "input_ids": "input_ids",
    "input_mask": None,  # the output does not depend on it
    "token_type_ids": None,
    "output": "pooled",
    "output_why": "the only node that depends on the ids and is used by no other",
  }
  assert found["operations"]["Placeholder"] == 2 and found["nodes"] == sum(found["operations"].values())
  assert found["bytes"] == (tmp_path / "g.pb").stat().st_size


def test_an_operation_that_an_encoder_may_not_have_is_named(tmp_path):
  def reads_a_file():
    old_style()
    tf.io.read_file("/etc/hostname", name="thief")

  found = describe_graph(write(tmp_path / "g.pb", reads_a_file))
  assert not found["can_be_frozen"] and "node 'thief' is a ReadFile" in found["problems"][0]
  assert [tensor["name"] for tensor in found["inputs"]] == ["input_ids", "input_mask"]  # named, but not imported


def fed_by_nobody():
  old_style()
  keep_prob = tf.compat.v1.placeholder(tf.float32, [], name="keep_prob")
  tensor = tf.compat.v1.get_default_graph().get_tensor_by_name
  tf.multiply(tensor("pooled:0"), keep_prob, name="dropped")


def with_two_ends():
  old_style()
  hidden = tf.compat.v1.get_default_graph().get_tensor_by_name("hidden:0")
  tf.reduce_max(hidden, axis=1, name="largest")
  tf.reduce_all(hidden > 0, name="assertion")


def without_ids():
  tf.tanh(tf.compat.v1.placeholder(tf.float32, [None, 4], name="x"))


@pytest.mark.parametrize(
  ("build", "problem", "outputs"),
  [
    (fed_by_nobody, "the output dropped depends on keep_prob float32 [], which nothing here would feed", ["dropped"]),
    (with_two_ends, "which node is the vectors? Give --output NODE, such as: largest", ["largest", "pooled"]),
    (without_ids, "which input takes the token ids? Give --input-ids NAME, one of: x", []),
  ],
)
def test_what_freezing_would_refuse_is_a_problem(tmp_path, build, problem, outputs):
  found = describe_graph(write(tmp_path / "g.pb", build))
  assert not found["can_be_frozen"] and found["defaults"] is None
  [line] = found["problems"]
  assert line.startswith(f"{tmp_path}/g.pb: {problem}")
  assert [tensor["name"] for tensor in found["outputs"]] == outputs  # an assertion's bool is none


@pytest.mark.parametrize(("data", "words"), [(b"\xff" * 9, "not a TensorFlow GraphDef"), (b"", "has no node at all")])
def test_what_is_no_graph_is_refused(tmp_path, data, words):
  (tmp_path / "g.pb").write_bytes(data)
  with pytest.raises(EncoderError, match=words):
    describe_graph(str(tmp_path / "g.pb"))
  with pytest.raises(EncoderError, match=r"none.pb: cannot be read \(No such file"):
    describe_graph(str(tmp_path / "none.pb"))


def test_a_tensor_that_no_machine_holds_is_a_problem(tmp_path):
  found = describe_graph(write(tmp_path / "g.pb", lambda: tf.raw_ops.Fill(dims=[1 << 30], value=1.0)))
  assert not found["can_be_frozen"] and "node 'Fill' gives 4294967296 bytes or more" in found["problems"][0]
