"""`Encoder.encode_spans`: against the layers of the NumPy forward pass."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.model.bert_numpy import layer_outputs
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.model.read_checkpoint import read_checkpoint
from tests.tiny_bert import write_google_checkpoint
from transforms.encoder import load_encoder
from transforms.errors import UsageError

TEXT = "Rain, the SUN-tree: 白面 raining"
SPANS = {(0, 4): [1], (10, 18): [4, 5, 6], (20, 22): [8, 9], (12, 26): [4, 5, 6, 7, 8, 9, 10], (28, 29): [11]}
# What the tokens' vectors are, from the layers [T, 32].
CHOICES = {
  "second to last": (FreezeOptions(pooling="mean"), lambda layers: layers[1]),
  "cls of the last": (FreezeOptions(pooling="cls", layers=(2,)), lambda layers: layers[2]),
  "max of a concatenation": (
    FreezeOptions(pooling="max", layers=(0, 2), combine="concat"),
    lambda layers: np.hstack([layers[0], layers[2]]),
  ),
  "last of an average": (
    FreezeOptions(pooling="last", layers=(1, 2)),
    lambda layers: (layers[1] + layers[2]) / 2,
  ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  return write_google_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def frozen(checkpoint, folder, options):
  freeze(str(checkpoint), str(folder / "encoder"), options, lambda line: None)
  return load_encoder(str(folder / "encoder"), threads=1)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_span_is_the_mean_of_its_tokens_in_the_layers_that_are_pooled(checkpoint, tmp_path, choice):
  options, tokens_of = CHOICES[choice]
  encoder = frozen(checkpoint, tmp_path, options)
  read = read_checkpoint(str(checkpoint))
  ids = encoder.tokenizer.tokenise([TEXT]).input_ids
  assert len(ids) == 13
  tokens = tokens_of(list(layer_outputs(read.variables, read.config, ids, 2)))
  [whole] = encoder.encode_texts([TEXT])
  found = encoder.encode_spans(TEXT, list(SPANS))
  assert found.vectors.shape == (5, encoder.spec.vector_size)
  for vector, similarity, rows in zip(found.vectors, found.similarities, SPANS.values(), strict=True):
    expected = tokens[rows].mean(axis=0)
    np.testing.assert_allclose(vector, expected, rtol=0, atol=1e-5)
    cosine = expected @ whole / np.linalg.norm(expected) / np.linalg.norm(whole)
    assert similarity == pytest.approx(cosine, abs=1e-5)
  assert np.ptp(found.similarities) > 0.05


def test_the_whole_text_is_like_itself(checkpoint, tmp_path):
  encoder = frozen(checkpoint, tmp_path, FreezeOptions(pooling="mean", exclude_special_tokens=True))
  found = encoder.encode_spans(TEXT, [(0, len(TEXT)), (0, 4)])
  np.testing.assert_allclose(found.vectors[0], encoder.encode_texts([TEXT])[0], atol=1e-6)
  assert found.similarities[0] == pytest.approx(1, abs=1e-6) and found.similarities[1] < 0.95


def test_a_word_differs_with_its_text_and_a_cut_text_with_what_is_kept(checkpoint, tmp_path):
  encoder = frozen(checkpoint, tmp_path, FreezeOptions(pooling="mean", max_seq_length=6))
  [river], [money] = (encoder.encode_spans(text, [(4, 8)]).vectors for text in ("the tree", "sun tree"))
  assert np.linalg.norm(river - money) > 0.1
  long = "the tree and it, not the sun"
  np.testing.assert_array_equal(
    encoder.encode_spans(long, [(4, 8)]).vectors, encoder.encode_spans(long[:15], [(4, 8)]).vectors
  )
  with pytest.raises(ValueError, match="only the first 15 of 28 characters were kept, as 6 tokens"):
    encoder.encode_spans(long, [(25, 28)])


def test_padding_of_a_graph_with_fixed_length_does_not_count(checkpoint, tmp_path):
  encoder = frozen(checkpoint, tmp_path, FreezeOptions(pooling="mean"))
  run_tokens = encoder.run_tokens
  padded = replace(encoder, run_tokens=lambda *batch: np.pad(run_tokens(*batch), ((0, 0), (0, 9), (0, 0))))
  np.testing.assert_array_equal(
    padded.encode_spans(TEXT, list(SPANS)).vectors, encoder.encode_spans(TEXT, list(SPANS)).vectors
  )


@pytest.mark.parametrize("pooling", ["pooler", "mean-max"])
def test_texts_and_tokens_that_cannot_be_compared_are_refused(checkpoint, tmp_path, pooling):
  encoder = frozen(checkpoint, tmp_path, FreezeOptions(pooling=pooling))
  with pytest.raises(UsageError, match=rf"^pooling {pooling} gives .*--pooling mean, cls, max or last$"):
    encoder.encode_spans(TEXT, [(0, 4)])
  with pytest.raises(UsageError, match=r"^this encoder gives no vectors of tokens: .*; freeze the checkpoint again$"):
    replace(encoder, run_tokens=None).encode_spans(TEXT, [(0, 4)])
