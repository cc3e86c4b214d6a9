"""Every layer, combination and pooling: against Google's own outputs where they are at hand, else against NumPy."""

import json
from itertools import combinations

import numpy as np
import pytest

from pipeline.model.bert_graph import build_graph
from pipeline.model.bert_numpy import bert_vector
from pipeline.model.choose_readout import choose_readout
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.model.read_checkpoint import read_checkpoint
from tests.tiny_bert import (
  VOCABULARY,
  random_mix,
  random_variables,
  write_google_checkpoint,
  write_hugging_face_folder,
  write_variables,
)
from transforms.encoder import load_encoder
from transforms.encoder_spec import Readout
from transforms.errors import EncoderError, UsageError
from transforms.frozen_graph import FrozenGraph, tf

POOLINGS = [(p, False) for p in ("cls", "mean", "max", "mean-max", "last")]
POOLINGS += [(p, True) for p in ("mean", "max", "mean-max")]
TEXTS = ["the rain and the sun", "a", "it was not a tree", "白面子"]


# Each layer alone, each pair and all three, combined in every way that they can be; fewer where less is left to show.
SEVERAL = sorted({*combinations(range(3), 2), (0, 1, 2)})
EVERY = [((i,), "average") for i in range(3)]
EVERY += [(layers, how) for layers in SEVERAL for how in ("average", "sum", "concat")]
EVERY += [((1, 2), "fused")]
FEW = [((1,), "average"), ((0, 2), "concat"), ((1, 2), "fused")]


def graph_of(variables, config, readout):
  return FrozenGraph(*build_graph(variables, config, readout))


# The oracle: Google's code on TensorFlow 1.


@pytest.fixture(scope="module")
def google(shared_data):
  """The checkpoint with a table of only those words that the oracle's texts have, and the oracle with their ids."""
  checkpoint = read_checkpoint(str(shared_data / "checkpoints/bert_tiny_uncased_L-2_H-128_A-2"))
  with np.load(shared_data / "reference/bert_tiny_google_tf115.npz") as file:
    oracle = dict(file)
  used, ids = np.unique(oracle["input_ids"], return_inverse=True)
  table = {"bert/embeddings/word_embeddings": checkpoint.variables["bert/embeddings/word_embeddings"][used]}
  variables = checkpoint.variables | table | random_mix(hidden_size=128, layers=2, seed=5)
  mask = oracle["input_mask"].astype(np.int32)
  ids = ids.reshape(mask.shape).astype(np.int32)
  some = mask.sum(axis=1) > 2  # the others have no token of their own
  layers = [oracle[name].astype(np.float64)[some] for name in ("embedding_output", "layer_1", "layer_2")]
  return variables, checkpoint.config, ids[some], mask[some], layers


def combined(variables, layers, numbers, how):
  chosen = [layers[i] for i in numbers]
  if how == "fused":
    logits = [x @ variables[f"layer_logit{i}/kernel"] + variables[f"layer_logit{i}/bias"] for i, x in enumerate(chosen)]
    weights = np.exp(np.concatenate(logits, axis=2))  # [B, T, L]
    weights /= weights.sum(axis=2, keepdims=True)
    assert np.ptp(weights) > 0.5  # a mix that differs from token to token, not an average by another name
    return sum(x * weights[:, :, i : i + 1] for i, x in enumerate(chosen))
  return {"average": sum(chosen) / len(chosen), "sum": sum(chosen), "concat": np.concatenate(chosen, axis=2)}[how]


def pooled(hidden, mask, pooling, exclude):
  rows = []
  for x, length in zip(hidden, mask.sum(axis=1), strict=True):
    words = x[1 : length - 1] if exclude else x[:length]
    parts = {"mean": words.mean(axis=0), "max": words.max(axis=0), "cls": x[0], "last": x[length - 1]}
    rows.append(np.concatenate([parts[part] for part in ("mean", "max")]) if pooling == "mean-max" else parts[pooling])
  return np.array(rows)


@pytest.mark.parametrize(("pooling", "exclude"), POOLINGS)
def test_every_layer_and_combination_agrees_with_google_on_tensorflow_1(google, pooling, exclude):
  variables, config, ids, mask, layers = google
  for numbers, how in FEW if exclude else EVERY:
    expected = pooled(combined(variables, layers, numbers, how), mask, pooling, exclude)
    readout = Readout(pooling, numbers, how, exclude)
    vectors = graph_of(variables, config, readout).encode(ids, mask)
    assert vectors.shape == (len(ids), readout.width(128))
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=2e-5, err_msg=str(readout))
    for row in (0, 7):
      alone = bert_vector(variables, config, ids[row, : mask[row].sum()], readout)
      np.testing.assert_allclose(alone, expected[row], rtol=0, atol=2e-5, err_msg=str(readout))


# A random checkpoint, on any machine.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  return read_checkpoint(str(write_google_checkpoint(tmp_path_factory.mktemp("c"), heads=4, mix=True)))


@pytest.fixture(scope="module")
def batch():
  """Ids and mask [6, 24] with rows of 3 to 24 tokens; a text's own [SEP] in one."""
  generator, lengths = np.random.default_rng(3), (24, 3, 9, 4, 17, 5)
  ids = np.zeros((6, 24), np.int32)
  for row, length in enumerate(lengths):
    ids[row, :length] = generator.integers(5, len(VOCABULARY), length)
    ids[row, 0], ids[row, length - 1] = 2, 3
  ids[2, 4] = 3
  return ids, (np.arange(24) < np.array(lengths)[:, None]).astype(np.int32)


@pytest.mark.parametrize(("pooling", "exclude"), POOLINGS)
def test_every_layer_and_combination_equals_numpy_and_does_not_depend_on_the_batch(tiny, batch, pooling, exclude):
  ids, mask = batch
  for numbers, how in FEW if exclude else EVERY:
    readout = Readout(pooling, numbers, how, exclude)
    graph = graph_of(tiny.used(readout), tiny.config, readout)
    together, reverse = graph.encode(ids, mask), graph.encode(ids[::-1], mask[::-1])[::-1]
    rows = [ids[i, : mask[i].sum()] for i in range(6)]
    expected = np.array([bert_vector(tiny.variables, tiny.config, row, readout) for row in rows])
    alone = np.vstack([graph.encode(row[None], np.ones((1, len(row)), np.int32)) for row in rows])
    scale = max(1.0, np.abs(expected).max())
    assert np.abs(together - expected).max() < 1e-5, readout
    assert max(np.abs(together - alone).max(), np.abs(reverse - alone).max()) < 1e-6 * scale, readout


def test_what_stands_in_the_padding_changes_nothing(tiny, batch):
  ids, mask = batch
  for pooling, exclude in POOLINGS:
    readout = Readout(pooling, (1, 2), "concat", exclude)
    graph = graph_of(tiny.used(readout), tiny.config, readout)
    np.testing.assert_array_equal(graph.encode(ids, mask), graph.encode(np.where(mask == 1, ids, 40), mask))


@pytest.mark.parametrize(
  ("options", "width"),
  [
    ({"pooling": "max"}, 32),
    ({"pooling": "mean-max", "exclude_special_tokens": True}, 64),
    ({"pooling": "last", "layers": (0,)}, 32),
    ({"pooling": "cls", "layers": (0, 1, -1), "combine": "concat"}, 96),
    ({"pooling": "mean-max", "layers": ("first-last",), "combine": "concat"}, 128),
    ({"layers": (1, 2), "combine": "sum", "exclude_special_tokens": True}, 32),
    ({"combine": "fused"}, 32),
    ({"combine": "fused", "pooling": "mean-max"}, 64),
    ({"combine": "fused", "pooling": "pooler"}, 32),
  ],
)
def test_an_encoder_of_each_kind_is_frozen_and_passes_its_self_test(tmp_path, options, width):
  folder = write_google_checkpoint(tmp_path / "c", layers=3, mix=True, classifier=True)
  spec = freeze(str(folder), str(tmp_path / "e"), FreezeOptions(**options), lambda line: None)
  encoder, checkpoint = load_encoder(str(tmp_path / "e")), read_checkpoint(str(folder))
  assert encoder.spec == spec and spec.vector_size == width
  tokens = encoder.tokenizer.tokenise(TEXTS)
  rows = np.split(tokens.input_ids, tokens.offsets[1:-1])
  expected = [bert_vector(checkpoint.variables, spec.config, row, spec.readout) for row in rows]
  np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, rtol=0, atol=1e-5)


def test_the_graph_has_nothing_above_the_last_layer_used(tmp_path):
  folder = write_google_checkpoint(tmp_path / "c", layers=3, mix=True)
  for layers, highest in (((0,), -1), ((0, 1), 0), ((-2,), 1)):
    freeze(str(folder), str(tmp_path / str(highest)), FreezeOptions(layers=layers), lambda line: None)
    graph = tf.compat.v1.GraphDef.FromString((tmp_path / str(highest) / "encoder.pb").read_bytes())
    constants = {node.name for node in graph.node if node.op == "Const"}
    found = {i for i in range(3) for name in constants if name.startswith(f"bert/encoder/layer_{i}/")}
    assert found == set(range(highest + 1))
    assert not [name for name in constants if "layer_logit" in name or "pooler" in name]


# What is taken for granted, and what is refused.


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
  folder = tmp_path_factory.mktemp("layouts")
  return {
    "google": read_checkpoint(str(write_google_checkpoint(folder / "m", layers=3, mix=True))),
    "classifier": read_checkpoint(str(write_google_checkpoint(folder / "g", layers=3, classifier=True))),
    "hugging-face": read_checkpoint(str(write_hugging_face_folder(folder / "h", layers=3))),
  }


def test_what_is_not_asked_for(layouts):
  def chosen(layout, **wishes):
    return choose_readout(layouts[layout], **wishes)[0]

  assert chosen("google") == Readout("mean", (2,), "average", False)
  assert chosen("google", pooling="mean-max") == Readout("mean-max", (2,), "average", False)
  assert chosen("google", layers=(3, 1)) == Readout("mean", (1, 3), "average", False)
  assert chosen("google", combine="fused") == Readout("mean", (1, 2, 3), "fused", False)
  assert chosen("google", combine="fused", pooling="pooler") == Readout("pooler", (1, 2, 3), "fused", False)
  assert chosen("classifier") == Readout("pooler", (3,), "average", False)
  assert chosen("classifier", exclude_special_tokens=True) == Readout("mean", (2,), "average", True)
  assert chosen("classifier", layers=(0, 1), combine="concat") == Readout("mean", (0, 1), "concat", False)
  assert choose_readout(layouts["google"], combine="fused", exclude_special_tokens=True)[1] == (
    "pooling: mean, special tokens not counted (default with --combine)",
    "layers: 1 2 3 of 3 (a learned mix takes all)",
    "combine: fused (asked for)",
  )


@pytest.mark.parametrize(
  ("layout", "wishes", "message"),
  [
    (
      "google",
      {"pooling": "pooler", "combine": "sum"},
      "--combine does not go with --pooling pooler.*choose .*cls, me",
    ),
    ("google", {"pooling": "pooler", "layers": (3,)}, "--layers does not go with --pooling pooler"),
    ("google", {"pooling": "pooler", "layers": (3,), "combine": "fused"}, "--layers does not go with --pooling pooler"),
    (
      "google",
      {"pooling": "pooler", "exclude_special_tokens": True},
      "--exclude-special-tokens does not go with --pooling pooler.*; choose --pooling mean, max or mean-max$",
    ),
    (
      "google",
      {"pooling": "cls", "exclude_special_tokens": True},
      "with --pooling cls.*; choose --pooling mean, max or",
    ),
    ("google", {"pooling": "last", "exclude_special_tokens": True}, "with --pooling last.*; choose --pooling mean"),
    ("google", {"combine": "concat"}, "--combine concat: there is only layer 2 to combine; give --layers, such as 1 3"),
    ("google", {"combine": "average", "layers": (1,)}, "--combine average: there is only layer 1"),
    ("google", {"combine": "fused", "layers": (1, 2, 3)}, "--layers does not go with --combine fused, .*all, 1 to 3"),
    ("google", {"combine": "product"}, "--combine product: not known; choose average, sum, concat or fused"),
    ("hugging-face", {"combine": "fused"}, "is no Google checkpoint.*choose average, sum or concat"),
  ],
)
def test_what_does_not_go_together_is_refused_with_what_does(layouts, layout, wishes, message):
  with pytest.raises(UsageError, match=message):
    choose_readout(layouts[layout], **wishes)


def test_variables_of_the_mix_that_are_missing_or_misshapen_are_named(tmp_path):
  folder = write_google_checkpoint(tmp_path / "c", layers=2)

  def write(**changes):
    variables = random_variables(hidden_size=32, layers=2, seed=0) | random_mix(hidden_size=32, layers=2, seed=0)
    variables |= {name.replace("__", "/"): value for name, value in changes.items()}
    kept = {name: value for name, value in variables.items() if value is not None}
    write_variables(folder / "model.ckpt-100", kept, tf)

  def refused(message):
    with pytest.raises(EncoderError, match=message):
      freeze(str(folder), str(tmp_path / "e"), FreezeOptions(combine="fused"), lambda line: None)

  refused("has no layer_logit0/kernel, layer_logit0/bias, layer_logit1/kernel and 1 more, so it was not trained with")
  write(layer_logit1__bias=None)
  refused("has no layer_logit1/bias, so .*choose --combine average, sum or concat")
  write(layer_logit0__kernel=np.ones((32, 2), np.float32))
  refused(r"layer_logit0/kernel is \[32, 2\], a learned mix of layers needs \[32, 1\]")
  write(layer_logit1__bias=np.float32(1))
  refused(r"layer_logit1/bias is \[\], a learned mix of layers needs \[1\]")
  # Who does not ask for the mix is not held up by it.
  assert freeze(str(folder), str(tmp_path / "e"), FreezeOptions(), lambda line: None).combine == "average"


def test_the_self_test_of_an_encoder_without_special_tokens_has_no_empty_case(tmp_path):
  folder = write_google_checkpoint(tmp_path / "c", layers=2)
  options = FreezeOptions(pooling="mean-max", exclude_special_tokens=True, max_seq_length=3)
  freeze(str(folder), str(tmp_path / "e"), options, lambda line: None)
  test = json.loads((tmp_path / "e" / "encoder.json").read_text())["self_test"]
  assert [len(case) for case in test["cases"]] == [3, 3]
  assert np.isfinite(test["vectors"]).all()
