"""Heads from checkpoint to encoder: probabilities against formulas written out here, and against the NumPy pass."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.model.bert_numpy import bert_probabilities, bert_vector
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.model.read_checkpoint import read_checkpoint
from tests.tiny_bert import (
  random_head,
  random_variables,
  write_google_checkpoint,
  write_hugging_face_folder,
  write_variables,
)
from transforms.batching import pad_batch
from transforms.encoder import check_encoder, load_encoder
from transforms.encoder_spec import Readout
from transforms.errors import EncoderError
from transforms.frozen_graph import tf

TEXTS = ["the rain and the sun", "a", "it was not a tree", "白面子", "with the rain " * 30]
LABELS = 5


def softmax(logits):
  return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def sigmoid(logits):
  return 1 / (1 + np.exp(-logits))


ACTIVATIONS = {"softmax": softmax, "sigmoid": sigmoid}


def frozen(folder, target, **options):
  lines = []
  spec = freeze(str(folder), str(target), FreezeOptions(**options), lines.append)
  return spec, load_encoder(str(target)), lines


@pytest.fixture(scope="module")
def google(tmp_path_factory):
  return write_google_checkpoint(tmp_path_factory.mktemp("google") / "c", head=LABELS)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
  return write_google_checkpoint(tmp_path_factory.mktemp("mixed") / "c", head=LABELS, mix=True)


@pytest.fixture(scope="module")
def expected(google, tmp_path_factory):
  """Probabilities by a formula: the pooler's vectors, from an encoder of their own, times the weights as written."""
  _, encoder, _ = frozen(google, tmp_path_factory.mktemp("pooler") / "e", pooling="pooler")
  head = random_head(hidden_size=32, labels=LABELS, seed=0)
  logits = encoder.encode_texts(TEXTS).astype(np.float64) @ head["output_weights"].T + head["output_bias"]
  assert np.ptp(logits, axis=0).min() > 0.5  # from text to text, or a head of nothing but bias would pass
  return {kind: activate(logits) for kind, activate in ACTIVATIONS.items()}


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize(
  "readout",
  [
    {"pooling": "pooler"},
    {"pooling": "cls", "layers": (0,)},
    {"pooling": "mean-max", "layers": (0, 2), "combine": "concat", "exclude_special_tokens": True},
  ],
  ids=str,
)
def test_probabilities_stand_on_the_pooler_whatever_the_vector(google, expected, tmp_path, kind, readout):
  spec, encoder, _ = frozen(google, tmp_path / "e", head=kind, **readout)
  assert spec.labels == ("0", "1", "2", "3", "4") and spec.tensors.probabilities == f"loss/{kind.capitalize()}"
  probabilities = encoder.predict(TEXTS)
  assert probabilities.dtype == np.float32 and probabilities.shape == (len(TEXTS), LABELS)
  np.testing.assert_allclose(probabilities, expected[kind], rtol=0, atol=1e-6)
  tokens = encoder.tokenizer.tokenise(TEXTS)
  batch = pad_batch(tokens.input_ids, tokens.offsets, np.arange(len(TEXTS)))
  vectors, probabilities = encoder.encode_and_predict(*batch)
  np.testing.assert_allclose(probabilities, expected[kind], rtol=0, atol=1e-6)
  assert (vectors == encoder.encode(*batch)).all() and vectors.shape == (len(TEXTS), spec.vector_size)
  variables, rows = read_checkpoint(str(google)).variables, np.split(tokens.input_ids, tokens.offsets[1:-1])
  numpy = [bert_probabilities(variables, spec.config, row, kind) for row in rows]
  np.testing.assert_allclose(probabilities, numpy, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
def test_with_the_learned_mix_the_head_s_pooler_stands_on_that_of_cls(mixed, tmp_path, kind, pooling):
  spec, encoder, lines = frozen(mixed, tmp_path / "e", head=kind, combine="fused", pooling=pooling)
  assert [line for line in lines if line.startswith("note: the head stands on the mix of layers")]
  variables, tokens = read_checkpoint(str(mixed)).variables, encoder.tokenizer.tokenise(TEXTS)
  rows = np.split(tokens.input_ids, tokens.offsets[1:-1])
  mix = np.array([bert_vector(variables, spec.config, row, Readout("cls", (1, 2), "fused")) for row in rows])
  pooled = np.tanh(mix @ variables["bert/pooler/dense/kernel"] + variables["bert/pooler/dense/bias"])
  expected = ACTIVATIONS[kind](pooled @ variables["output_weights"].T + variables["output_bias"])
  np.testing.assert_allclose(encoder.predict(TEXTS), expected, rtol=0, atol=1e-6)
  _, on_last, _ = frozen(mixed, tmp_path / "last", head=kind, pooling="cls", layers=(1, 2))
  assert np.abs(on_last.predict(TEXTS) - expected).max() > 0.05
  if pooling == "pooler":
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), pooled, rtol=0, atol=1e-5)


def test_a_head_on_the_mix_has_a_fingerprint_that_one_on_the_last_layer_did_not(mixed, tmp_path):
  spec, _, _ = frozen(mixed, tmp_path / "e", head="sigmoid", combine="fused")
  other, _, _ = frozen(mixed, tmp_path / "o", head="sigmoid", layers=(1, 2))
  plain, _, _ = frozen(mixed, tmp_path / "p", combine="fused")
  assert spec.identity()["head_on"] == "mix"
  assert "head_on" not in other.identity() and "head_on" not in plain.identity()


def test_a_head_changes_no_vector(google, tmp_path):
  readout = {"pooling": "mean", "layers": (1,)}
  _, plain, _ = frozen(google, tmp_path / "plain", **readout)
  _, with_head, _ = frozen(google, tmp_path / "head", head="softmax", **readout)
  np.testing.assert_allclose(with_head.encode_texts(TEXTS), plain.encode_texts(TEXTS), rtol=0, atol=1e-6)


def test_both_layouts_of_the_same_weights_predict_the_same(google, tmp_path):
  options = {"pooling": "mean", "layers": (2,), "head": "sigmoid", "activation": "gelu_tanh"}
  names = {str(i): f"label {i}" for i in range(LABELS)}
  folder = write_hugging_face_folder(tmp_path / "h", head=LABELS, prefix="bert.", id2label=names)
  (tmp_path / "labels.json").write_text(json.dumps({name: int(i) for i, name in names.items()}))
  ours, _, _ = frozen(google, tmp_path / "g", labels=str(tmp_path / "labels.json"), **options)
  theirs, encoder, _ = frozen(folder, tmp_path / "e", **options)
  assert ours.fingerprint == theirs.fingerprint and theirs.labels == tuple(names.values())
  assert encoder.predict(["the rain"]).shape == (1, LABELS)


def test_the_fingerprint_is_over_head_weights_kind_and_labels(google, tmp_path):
  (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
  other = write_google_checkpoint(tmp_path / "other", head=LABELS)
  variables = random_variables(hidden_size=32, layers=2, seed=0) | random_head(hidden_size=32, labels=LABELS, seed=1)
  write_variables(other / "model.ckpt-100", variables, tf)
  ways = [
    (google, {}),
    (google, {"head": "softmax"}),
    (google, {"head": "sigmoid"}),
    (google, {"head": "sigmoid", "labels": str(tmp_path / "labels.txt")}),
    (other, {"head": "sigmoid"}),
  ]
  specs = [frozen(folder, tmp_path / f"{i}", layers=(1,), **options)[0] for i, (folder, options) in enumerate(ways)]
  assert len({spec.fingerprint for spec in specs}) == len(ways)
  assert len({spec.weights_sha256 for spec in specs}) == 3
  assert frozen(other, tmp_path / "plain", layers=(1,))[0].fingerprint == specs[0].fingerprint


def test_what_was_chosen_is_said(google, tmp_path):
  _, _, lines = frozen(google, tmp_path / "e", head="sigmoid", layers=(1,))
  assert "head: sigmoid over 5 labels, 0, 1, 2, 3, 4 (their names are not known: --labels gives them)" in lines
  assert "note: the head stands on the last layer, so all 2 are computed" in lines


def test_the_self_test_holds_probabilities(google, tmp_path):
  spec, encoder, _ = frozen(google, tmp_path / "e", head="softmax")
  assert np.array(spec.self_test.probabilities).shape == (len(spec.self_test.cases), LABELS)
  np.testing.assert_allclose(np.sum(spec.self_test.probabilities, axis=1), 1, rtol=0, atol=1e-8)
  check_encoder(encoder)
  rows = list(spec.self_test.probabilities)
  rows[2] = rows[2][::-1]
  wrong = replace(spec, self_test=replace(spec.self_test, probabilities=tuple(rows)))
  (tmp_path / "e" / "encoder.json").write_text(wrong.to_json())
  with pytest.raises(EncoderError, match=r"self-test off by .* in probabilities, more than 0.0001"):
    load_encoder(str(tmp_path / "e"))


@pytest.mark.parametrize(
  ("tensors", "self_test", "message"),
  [
    ({"probabilities": None}, {}, "head and tensors.probabilities do not go together"),
    ({}, {"probabilities": []}, "self_test.probabilities need 5 numbers for each case"),
  ],
)
def test_an_edited_head_is_refused(google, tmp_path, tensors, self_test, message):
  frozen(google, tmp_path / "e", head="softmax")
  path = tmp_path / "e" / "encoder.json"
  value = json.loads(path.read_text())
  value |= {"tensors": value["tensors"] | tensors, "self_test": value["self_test"] | self_test}
  path.write_text(json.dumps(value))
  with pytest.raises(EncoderError, match=message):
    load_encoder(str(tmp_path / "e"))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"output_bias": None}, "has no output_bias, so it was not trained as a classifier of sentences; leave --head out"),
    (
      {"output_weights": (32, 5)},
      r"output_weights is \[32, 5\] and output_bias \[5\], a head on the sentence has \[n_labels, 32\] and",
    ),
    ({"output_weights": (5, 31)}, r"output_weights is \[5, 31\] and output_bias \[5\]"),
    ({"output_bias": (4,)}, r"output_weights is \[5, 32\] and output_bias \[4\]"),
    ({"output_bias": ()}, r"output_bias \[\]"),
    ({"output_weights": (0, 32), "output_bias": (0,)}, r"output_weights is \[0, 32\]"),
    ({"bert/pooler/dense/bias": None}, "has no bert/pooler/dense/bias; leave --head out, which stands on it$"),
  ],
)
def test_a_head_that_is_not_whole_is_refused_where_it_is_asked_for(tmp_path, changes, message):
  folder = write_google_checkpoint(tmp_path / "c")
  variables = random_variables(hidden_size=32, layers=2, seed=0) | random_head(hidden_size=32, labels=LABELS, seed=0)
  for name, shape in changes.items():
    del variables[name]
    if shape is not None:
      variables[name] = np.zeros(shape, np.float32)
  write_variables(folder / "model.ckpt-100", variables, tf)
  with pytest.raises(EncoderError, match=message) as caught:
    frozen(folder, tmp_path / "e", head="softmax", pooling="mean")
  assert "\n" not in str(caught.value) and not (tmp_path / "e").exists()
  assert frozen(folder, tmp_path / "e", pooling="mean")[0].head is None  # without --head nobody minds
