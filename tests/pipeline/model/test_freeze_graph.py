import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.model.bert_numpy import bert_vector
from pipeline.model.foreign_graph import read_graph
from pipeline.model.freeze_graph import AskedEnds, GraphOptions, choose_pooling, freeze_graph, is_graph
from pipeline.model.graph_ends import find_ends
from pipeline.model.read_checkpoint import read_checkpoint
from tests.old_graph import OldGraph, old_variables, tf
from tests.tiny_bert import (
  VOCABULARY,
  write_google_checkpoint,
  write_hugging_face_folder,
  write_vocabulary,
)
from transforms.encoder import load_encoder
from transforms.encoder_spec import BertConfig, Readout
from transforms.errors import EncoderError, UsageError

VARIABLES = old_variables()
CONFIG = BertConfig(
  vocab_size=len(VOCABULARY),
  hidden_size=32,
  layers=2,
  heads=2,
  intermediate_size=128,
  max_position_embeddings=256,
  type_vocab_size=2,
  activation="gelu_tanh",
  layer_norm_eps=1e-12,
)
TOKENS = AskedEnds(output="bert/encoder/Reshape_3")


def write(folder, old, change=lambda definition: None):
  """Writes graph and vocabulary; returns their paths."""
  definition = old.freeze(VARIABLES)
  change(definition)
  (folder / "graph.pb").write_bytes(definition.SerializeToString())
  write_vocabulary(folder)
  return str(folder / "graph.pb"), str(folder / "vocab.txt")


def frozen(folder, old, **options):
  """Freezes a graph; returns spec, loaded encoder and the lines that were printed."""
  graph, vocab = write(folder, old)
  lines = []
  spec = freeze_graph(graph, str(folder / "e"), GraphOptions(vocab=vocab, **options), lines.append)
  return spec, load_encoder(str(folder / "e")), lines


def some_ids(*lengths):
  """Rows of random ids as one padded batch, int32 [B, T], with its mask."""
  generator = np.random.default_rng(1)
  mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int32)
  return generator.integers(5, len(VOCABULARY), mask.shape, dtype=np.int32) * mask, mask


def expected(ids, mask, readout):
  return [bert_vector(VARIABLES, CONFIG, row[: n.sum()], readout) for row, n in zip(ids, mask, strict=True)]


def test_a_graph_of_200_tokens_is_right_whatever_the_batch_the_order_and_the_threads(tmp_path):
  spec, encoder, lines = frozen(tmp_path, OldGraph())
  assert (spec.pooling, spec.max_seq_length, spec.vector_size) == ("in-graph", 200, 32)
  assert (spec.graph.inputs, spec.graph.output) == (("input_ids", "input_mask"), "bert/pooler/dense/Tanh")
  assert "layer normalisation: 10 means are over axis -1 now" in "\n".join(lines)
  ids, mask = some_ids(*np.random.default_rng(2).integers(3, 90, 64))
  together = encoder.encode(ids, mask)
  np.testing.assert_allclose(together, expected(ids, mask, Readout("pooler", (2,))), rtol=0, atol=1e-5)

  n = mask[0].sum()
  alone = encoder.encode(ids[:1, :n], mask[:1, :n])
  first_of_two = encoder.encode(ids[:2], mask[:2])[:1]
  last_of_64 = encoder.encode(ids[::-1], mask[::-1])[-1:]
  one_thread = load_encoder(str(tmp_path / "e"), threads=1).encode(ids[:2], mask[:2])[:1]
  with ThreadPoolExecutor(4) as pool:
    at_once = list(pool.map(lambda i: encoder.encode(ids[i : i + 1], mask[i : i + 1]), [0] * 8))
  for vector in (first_of_two, last_of_64, one_thread, together[:1], *at_once):
    np.testing.assert_allclose(vector, alone, rtol=0, atol=1e-6)


def test_bert_tiny_as_people_froze_it_agrees_with_google_on_tensorflow_1(shared_data, tmp_path):
  checkpoint = shared_data / "checkpoints/bert_tiny_uncased_L-2_H-128_A-2"
  definition = OldGraph(asserts=True).freeze(read_checkpoint(str(checkpoint)).variables)
  definition.versions.producer = 26  # TensorFlow 1.11
  (tmp_path / "graph.pb").write_bytes(definition.SerializeToString())
  options = GraphOptions(vocab=str(checkpoint / "vocab.txt"))
  freeze_graph(str(tmp_path / "graph.pb"), str(tmp_path / "e"), options, lambda line: None)
  with np.load(shared_data / "reference/bert_tiny_google_tf115.npz") as oracle:
    vectors = load_encoder(str(tmp_path / "e")).encode(oracle["input_ids"], oracle["input_mask"])
    np.testing.assert_allclose(vectors, oracle["pooled_output"], rtol=0, atol=1e-5)


def test_a_graph_of_any_length_with_int64_types_and_assertions_is_pooled_as_asked(tmp_path):
  old = OldGraph(
    names=("m/input_ids", "m/input_mask", "m/segment_ids"), dtype=tf.int64, shape=(None, None), asserts=True
  )
  spec, encoder, lines = frozen(
    tmp_path, old, asked=TOKENS, pooling="mean-max", exclude_special_tokens=True, max_seq_length=100
  )
  assert (spec.pooling, spec.vector_size, spec.max_seq_length, spec.source.kind) == ("mean-max", 64, 100, "graph")
  assert "token types: m/segment_ids int64 [?, ?], fed 0" in lines
  ids, mask = some_ids(100, 3, 17)
  readout = Readout("mean-max", (2,), exclude_special_tokens=True)
  np.testing.assert_allclose(encoder.encode(ids, mask), expected(ids, mask, readout), rtol=0, atol=1e-5)
  assert encoder.run_tokens(ids, mask).shape == (3, 100, 32)


def test_tokens_of_a_fixed_length_have_that_of_the_batch_and_mean_is_the_default(tmp_path):
  spec, encoder, lines = frozen(tmp_path, OldGraph(names=("input_ids", "attention_mask", None)), asked=TOKENS)
  assert "pooling: mean (default)" in lines
  ids, mask = some_ids(9, 4)
  assert encoder.run_tokens(ids, mask).shape == (2, 9, 32)
  np.testing.assert_allclose(encoder.encode(ids, mask), expected(ids, mask, Readout("mean", (2,))), rtol=0, atol=1e-5)

  before = (tmp_path / "e" / "encoder.pb").stat().st_mtime_ns
  options = GraphOptions(vocab=str(tmp_path / "vocab.txt"), asked=TOKENS)
  assert freeze_graph(str(tmp_path / "graph.pb"), str(tmp_path / "e"), options, lines.append) == spec
  assert "unchanged" in lines[-1] and (tmp_path / "e" / "encoder.pb").stat().st_mtime_ns == before
  assert str(tmp_path) not in (tmp_path / "e" / "encoder.json").read_text()


def refused(folder, old, change=lambda definition: None, **options):
  """Returns the one line with which a graph is refused; nothing is left behind."""
  graph, vocab = write(folder, old, change)
  with pytest.raises(UsageError) as caught:
    freeze_graph(graph, str(folder / "e"), GraphOptions(**{"vocab": vocab} | options), lambda line: None)
  assert sorted(path.name for path in folder.iterdir()) == ["graph.pb", "vocab.txt"]
  assert "\n" not in str(caught.value)
  return str(caught.value).replace(f"{folder}/", "")


def test_a_graph_whose_vectors_change_with_padding_is_refused(tmp_path):
  message = refused(tmp_path, OldGraph(names=("input_ids", None, None), shape=(None, None)), max_seq_length=30)
  assert message.startswith("graph.pb: has no input for a mask, and its vectors change when a text is padded")


def test_more_tokens_than_the_position_table_has_are_refused_with_how_many_it_has(tmp_path):
  message = refused(tmp_path, OldGraph(shape=(None, None)), max_seq_length=300)
  assert message.startswith(
    "--max-seq-length 300: graph.pb computes 256 tokens at most; choose a smaller --max-seq-length, 256 or less"
  )


def test_an_output_as_wide_as_the_text_is_long_is_refused(tmp_path):
  definition = OldGraph(shape=(None, None)).freeze(VARIABLES)
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(definition, name="")
    tf.reduce_max(graph.get_tensor_by_name(f"{TOKENS.output}:0"), 2, name="maxima")
  (tmp_path / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
  write_vocabulary(tmp_path)
  options = GraphOptions(vocab=str(tmp_path / "vocab.txt"), asked=AskedEnds(output="maxima"), max_seq_length=9)
  with pytest.raises(UsageError, match=r"graph\.pb: the width of maxima changes with the text's length"):
    freeze_graph(str(tmp_path / "graph.pb"), str(tmp_path / "e"), options, lambda line: None)


def small(vectors, mask):
  return vectors * 1e-5


def of_the_length_alone(vectors, mask):
  return vectors * 1e-9 + tf.cast(tf.reduce_sum(mask, 1, keepdims=True), tf.float32)


@pytest.mark.parametrize("spoil", [small, of_the_length_alone])
def test_vectors_that_say_nothing_of_what_stands_in_a_text_are_refused(tmp_path, spoil):
  def edit(definition):
    with tf.Graph().as_default() as graph:
      tf.import_graph_def(definition, name="")
      vectors, mask = (graph.get_tensor_by_name(f"{name}:0") for name in ("bert/pooler/dense/Tanh", "input_mask"))
      tf.identity(spoil(vectors, mask), name="spoilt")
    definition.CopyFrom(graph.as_graph_def())

  message = refused(tmp_path, OldGraph(shape=(None, None)), edit, asked=AskedEnds(output="spoilt"), max_seq_length=9)
  assert message.startswith("graph.pb: texts of 8 tokens have the same vector, within ")
  assert message.endswith("whatever stands in them; give another --output or --pooling")


def test_inputs_too_short_for_a_text_are_refused(tmp_path):
  message = refused(tmp_path, OldGraph(shape=(None, 2)))
  assert message.startswith("the graph's inputs take texts of 2 tokens; freeze it again with 3 or more")


def pooling_of(folder, trial, output=None, **options):
  """What an output of some shape, for two texts of 7 tokens, is pooled by; or the line that refuses it."""
  graph, _ = write(folder, OldGraph(shape=(None, None)))
  foreign = read_graph(graph)
  ends = find_ends(foreign.graph, AskedEnds(output=output))
  try:
    return choose_pooling(foreign, ends, trial, 7, GraphOptions(**options))[0].pooling
  except UsageError as error:
    return str(error)


def test_the_outputs_shape_decides_what_is_pooled(tmp_path):
  assert pooling_of(tmp_path, (2, 32)) == "in-graph"
  assert pooling_of(tmp_path, (2, 7, 32), TOKENS.output) == "mean"
  assert pooling_of(tmp_path, (2, 7, 32), TOKENS.output, pooling="last") == "last"
  for trial in ((2, 2, 32), (2, 0), (2, 7, 0), ()):
    assert pooling_of(tmp_path, trial).startswith(f"--output bert/pooler/dense/Tanh: gave {list(trial)} for 2 texts")


def test_tokens_that_are_not_apart_by_text_are_refused_with_the_node_where_they_are(tmp_path):
  output = "bert/encoder/layer_1/output/LayerNorm/batchnorm/add_1"
  assert pooling_of(tmp_path, (14, 32), output) == (
    f"--output {output}: gave [14, 32] for 2 texts, which is neither a vector a text, [2, H], nor a vector a token, "
    "[2, T, H]; give --output bert/encoder/Reshape_3, which is made of it"
  )


def test_a_vector_a_text_is_not_pooled(tmp_path):
  assert pooling_of(tmp_path, (2, 32), pooling="cls") == (
    "--pooling cls: bert/pooler/dense/Tanh gives one vector a text, with nothing to pool; leave it out, or give an "
    "--output with a vector a token, such as: bert/encoder/Reshape_3 float32 [?, ?, 32]; "
    "bert/encoder/Reshape_2 float32 [?, ?, 32]"
  )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"vocab": None}, "graph.pb: a graph has no vocabulary with it; give .* --vocab"),
    ({"pooling": "pooler"}, "--pooling pooler: of a graph, give .* --output bert/pooler/dense/Tanh"),
    ({"pooling": "median"}, "--pooling median: not known; choose cls, mean, max, mean-max, last"),
    ({"pooling": "cls", "exclude_special_tokens": True}, "--exclude-special-tokens does not go with --pooling cls"),
    ({"max_seq_length": 201}, "--max-seq-length 201: choose 3 to 200, the length that the graph's inputs have"),
    ({"max_seq_length": 2}, "--max-seq-length 2: choose 3 to 200"),
  ],
)
def test_options_that_cannot_be_are_refused(tmp_path, options, message):
  assert re.match(message, refused(tmp_path, OldGraph(), **options))


def test_the_vocabulary_is_held_to_the_embedding_table(tmp_path):
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "vocab.txt").write_text("\n".join([*VOCABULARY, "more"]))
  graph, _ = write(tmp_path, OldGraph())
  options = GraphOptions(vocab=str(tmp_path / "other" / "vocab.txt"))
  with pytest.raises(
    EncoderError, match=rf"{len(VOCABULARY) + 1} tokens, but the embedding table has {len(VOCABULARY)}"
  ):
    freeze_graph(graph, str(tmp_path / "e"), options, lambda line: None)


def test_what_is_a_graph_and_what_a_checkpoint(tmp_path):
  for name in ("saved", "hub"):
    (tmp_path / name / "variables").mkdir(parents=True)
    (tmp_path / name / "saved_model.pb").write_bytes(b"")
    (tmp_path / name / "variables" / "variables.index").write_bytes(b"")
  write_google_checkpoint(tmp_path / "google")
  (tmp_path / "google" / "saved_model.pb").write_bytes(b"")
  write_hugging_face_folder(tmp_path / "hub")
  found = {name: is_graph(str(tmp_path / name)) for name in ("saved", "hub", "google", "google/vocab.txt", "gone.pb")}
  assert found == {"saved": True, "hub": False, "google": False, "google/vocab.txt": False, "gone.pb": True}
