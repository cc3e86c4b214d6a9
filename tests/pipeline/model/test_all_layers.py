"""Every layer and pooling of one pass, against encoders that were frozen for each."""

import numpy as np
import pytest

from pipeline.model import all_layers
from pipeline.model.all_layers import AllLayers
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.sweep import readouts_of
from tests.tiny_bert import random_variables, write_google_checkpoint, write_hugging_face_folder, write_variables
from transforms.encoder import load_encoder
from transforms.errors import EncoderError, UsageError

TEXTS = ["the rain and the sun", "a", "it was not a tree but the tree had rain in it, and he was with her", "白面子"]


@pytest.fixture(scope="module")
def google(tmp_path_factory):
  return str(write_google_checkpoint(tmp_path_factory.mktemp("google"), layers=3))


def test_each_vector_is_that_of_an_encoder_frozen_for_it(google, tmp_path):
  options = FreezeOptions(max_seq_length=9)
  vectors = AllLayers.load(google, options).encode_texts(TEXTS)
  readouts = list(readouts_of(vectors))
  assert len(readouts) == 4 + 3 + 4 + 2 * 2 + 1
  for i, readout in enumerate(readouts):
    layers = None if readout.pooling == "pooler" else readout.layers
    asked = FreezeOptions(max_seq_length=9, pooling=readout.pooling, layers=layers)
    freeze(google, str(tmp_path / str(i)), asked, lambda line: None)
    expected = load_encoder(str(tmp_path / str(i))).encode_texts(TEXTS)
    np.testing.assert_allclose(vectors.of(readout), expected, rtol=0, atol=1e-5, err_msg=str(readout))


def test_a_checkpoint_without_pooler_and_one_of_hugging_face(google, tmp_path):
  import tensorflow as tf

  folder = write_google_checkpoint(tmp_path / "google")
  variables = random_variables(hidden_size=32, layers=2, seed=0)
  write_variables(folder / "model.ckpt-100", {n: v for n, v in variables.items() if "pooler" not in n}, tf)
  found, other = (
    AllLayers.load(str(path), FreezeOptions(activation="gelu_tanh")).encode_texts(TEXTS)
    for path in (folder, write_hugging_face_folder(tmp_path / "hugging-face"))
  )
  assert found.pooler is None and other.pooler is not None and other.pooler.shape == (4, 32)
  for pooling, vectors in found.by_pooling.items():
    np.testing.assert_allclose(vectors, other.by_pooling[pooling], rtol=0, atol=1e-5)


def test_what_was_taken_for_granted_of_tokens_is_told(google):
  loaded = AllLayers.load(google, FreezeOptions(max_seq_length=9, lowercase=False))
  assert loaded.lines[:2] == (
    "max-seq-length: 9 (asked for)",
    "casing: as it stands, accents kept, Chinese characters apart (asked for)",
  )
  assert loaded.lines[2].startswith("warning: texts are not lower-cased") and len(loaded.lines) == 3


def test_vectors_that_numpy_does_not_give_are_refused(google, monkeypatch):
  class Wrong(all_layers.FrozenGraph):
    def encode(self, input_ids, input_mask):
      return super().encode(input_ids, input_mask) * np.float32(1.01)

  monkeypatch.setattr(all_layers, "FrozenGraph", Wrong)
  with pytest.raises(
    EncoderError, match=r"TensorFlow's vectors of all layers are off by .*set TF_ENABLE_ONEDNN_OPTS=0"
  ):
    AllLayers.load(google, FreezeOptions())


def test_more_than_a_machine_holds_is_refused_before_it_is_filled(google, monkeypatch):
  loaded = AllLayers.load(google, FreezeOptions())
  n = 3 * 4 + 1
  monkeypatch.setattr(all_layers, "_LIMIT_BYTES", 100 * n * 32 * 4)
  assert loaded.encode_texts(["the rain"] * 100).layers == 3
  with pytest.raises(UsageError, match=r"--sweep: 13 vectors for each of 400 texts take 0\.0 GB; give --sample 50"):
    loaded.encode_texts(["the rain"] * 400)
