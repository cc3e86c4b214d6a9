import numpy as np
import pytest

from pipeline.model.graph_ends import AskedEnds, embedding_rows, find_ends
from tests.old_graph import OldGraph, old_variables, tf, v1
from transforms.errors import UsageError

VARIABLES = old_variables()
TABLE = np.ones((7, 4), np.float32)


def drawn(draw):
  with tf.Graph().as_default() as graph:
    draw()
  return graph


def frozen(**old):
  definition = OldGraph(**old).freeze(VARIABLES)
  return drawn(lambda: tf.import_graph_def(definition, name=""))


def names(graph, **asked):
  ends = find_ends(graph, AskedEnds(**asked))
  return [None if x is None else x.op.name for x in (ends.input_ids, ends.input_mask, ends.token_type_ids, ends.output)]


def ids(name="input_ids", dtype=tf.int32, shape=(None, None)):
  return v1.placeholder(dtype, shape, name)


@pytest.mark.parametrize(
  "inputs",
  [
    ("input_ids", "input_mask", "segment_ids"),
    ("module/input_word_ids", "module/input_mask", "module/input_type_ids"),
    ("serving_default_input_ids", "serving_default_attention_mask", "serving_default_token_type_ids"),
    ("Input-Token", None, "Input-Segment"),
    ("INPUT_IDS", None, None),
    ("Placeholder", None, None),
  ],
)
def test_inputs_are_known_by_their_names_and_ids_by_being_alone(inputs):
  graph = frozen(names=inputs, pooler=True)
  assert names(graph) == [*inputs, "bert/pooler/dense/Tanh"]


def test_inputs_and_output_may_be_named():
  graph = frozen(names=("a", "b", "c"))
  asked = {"input_ids": "a:0", "input_mask": "b", "token_type_ids": "c", "output": "bert/encoder/Reshape_2:0"}
  assert names(graph, **asked) == ["a", "b", "c", "bert/encoder/Reshape_2"]


def refused(graph, **asked):
  with pytest.raises(UsageError) as caught:
    find_ends(graph, AskedEnds(**asked))
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_inputs_that_cannot_be_told_are_listed():
  graph = frozen(names=("a", "b", None), shape=(None, 20))
  assert refused(graph) == (
    "which input takes the token ids? Give --input-ids NAME, one of: a int32 [?, 20]; b int32 [?, 20]"
  )
  assert "depends on b int32 [?, 20], which nothing here would feed; is it one of" in refused(graph, input_ids="a")
  assert refused(graph, input_ids="input_ids") == (
    "--input-ids input_ids: no input of the graph; it has: a int32 [?, 20]; b int32 [?, 20]"
  )


def test_of_two_models_in_a_graph_the_one_that_the_output_is_of_is_taken():
  def draw():
    for scope in ("query", "document"):
      tf.gather(TABLE, ids(f"{scope}/input_ids"), name=f"{scope}/vectors")

  graph = drawn(draw)
  message = "which of these is it? Give --input-ids NAME, one of: query/input_ids int32 [?, ?]; document/input_ids"
  assert refused(graph).startswith(message)
  assert names(graph, output="document/vectors") == ["document/input_ids", None, None, "document/vectors"]


def test_an_output_that_cannot_be_told_is_listed_the_likely_ones_first():
  graph = frozen(pooler=False, shape=(None, 20))
  assert refused(graph) == (
    "which node is the vectors? Give --output NODE, such as: "
    "bert/encoder/Reshape_3 float32 [?, 20, 32]; bert/encoder/Reshape_2 float32 [?, 20, 32]"
  )
  assert refused(graph, output="bert/encoder/Reshape_4").startswith(
    "--output bert/encoder/Reshape_4: the graph has no such node; did you mean bert/encoder/Reshape_"
  )


def test_no_more_than_a_dozen_are_listed():
  def draw():
    x = tf.gather(TABLE, ids())
    for i in range(20):
      tf.multiply(x, 1.0, name=f"vectors_{i:02}")

  message = refused(drawn(draw))
  assert message.endswith("vectors_08 float32 [?, ?, 4]; and 8 more") and message.count("float32") == 12


def test_the_only_end_of_a_graph_is_its_output():
  graph = drawn(lambda: tf.tanh(tf.gather(TABLE, ids()), name="tokens"))
  ends = find_ends(graph, AskedEnds())
  assert (ends.output.op.name, ends.fixed_length) == ("tokens", None)
  assert ends.output_why == "the only node that depends on the ids and is used by no other"


@pytest.mark.parametrize(
  ("draw", "message"),
  [
    (
      lambda: tf.gather(TABLE, ids(shape=(8, 20))),
      r"input input_ids int32 [8, 20]: takes 8 texts at a time, no more and no fewer; batches have any number",
    ),
    (
      lambda: tf.gather(TABLE, ids(shape=(None,)))[None],
      "input input_ids int32 [?]: an input takes a number for each token",
    ),
    (
      lambda: tf.gather(TABLE, ids()) * v1.placeholder(tf.float32, [], "keep_prob"),
      "the output mul depends on keep_prob float32 [], which nothing here would feed",
    ),
    (
      lambda: tf.gather(TABLE, ids()) * tf.cast(v1.placeholder(tf.bool, [], "is_training"), tf.float32),
      "the output mul depends on is_training bool [], which nothing here would feed",
    ),
  ],
)
def test_inputs_that_cannot_be_fed_are_refused(draw, message):
  assert refused(drawn(draw)).startswith(message)


def test_what_has_a_default_needs_no_feed():
  def draw():
    keep_prob = v1.placeholder_with_default(1.0, [], "keep_prob")
    tf.multiply(tf.gather(TABLE, ids()), keep_prob, name="vectors")

  assert names(drawn(draw))[-1] == "vectors"


def test_an_output_that_does_not_depend_on_an_input_is_refused():
  def draw():
    tf.gather(TABLE, ids(), name="vectors")
    tf.cast(ids("input_mask"), tf.float32, name="mask")

  message = "the output mask does not depend on the input input_ids; give another --output"
  assert refused(drawn(draw), output="mask", input_ids="input_ids") == message


def test_an_input_that_was_asked_for_is_not_left_out():
  def draw():
    tf.gather(TABLE, ids(), name="vectors")
    ids("mask")

  message = "the output vectors does not depend on the input mask; give another --output"
  assert refused(drawn(draw), input_ids="input_ids", input_mask="mask") == message


def test_inputs_of_different_lengths_are_refused():
  def draw():
    x = tf.gather(TABLE, ids(shape=(None, 20)))
    tf.reduce_sum(x, 1) + tf.cast(ids("input_mask", shape=(None, 30))[:, :1], tf.float32)

  message = "inputs of different lengths: input_ids int32 [?, 20]; input_mask int32 [?, 30]; freeze the graph again"
  assert refused(drawn(draw)).startswith(message)


@pytest.mark.parametrize(
  ("look_up", "rows"),
  [
    (lambda x: tf.gather(TABLE, x), 7),
    (lambda x: tf.gather(tf.identity(TABLE), tf.reshape(tf.expand_dims(tf.cast(x, tf.int64), -1), [-1])), 7),
    (lambda x: tf.matmul(tf.one_hot(tf.squeeze(x, 0), 9), np.ones((9, 4), np.float32)), 9),
    (lambda x: tf.cast(x * 2, tf.float32), None),
    (lambda x: tf.gather(x, [0]), None),
  ],
)
def test_the_embedding_table_is_found_behind_the_ids(look_up, rows):
  with tf.Graph().as_default():
    x = ids(shape=(1, 5))
    look_up(x)
    assert embedding_rows(x) == rows


@pytest.mark.parametrize("output", ["table", "input_ids", "input_mask"])
def test_an_output_that_is_computed_from_no_input_is_refused(output):
  def draw():
    vectors = tf.gather(tf.constant(TABLE, name="table"), ids())
    tf.identity(vectors * tf.cast(ids("input_mask"), tf.float32)[:, :, None], "vectors")

  assert refused(drawn(draw), output=output) == f"the output {output} is computed from no input; give another --output"
