"""Both layouts of an XLNet become encoders that give NumPy's vectors, and what it does not have is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipeline.model.architecture import XLNET
from pipeline.model.describe import describe_model
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.model.read_checkpoint import read_checkpoint
from pipeline.model.xlnet_numpy import xlnet_vector
from tests.tiny_sentence_piece import tiny_bytes, tiny_model
from tests.tiny_xlnet import random_variables, write_google_xlnet, write_hugging_face_xlnet, xlnet_config
from transforms.encoder import load_encoder
from transforms.encoder_spec import XlnetConfig
from transforms.errors import EncoderError, UsageError
from transforms.sentence_piece import SentencePieceSettings

TEXTS = ["the rain and the sun", "a", "море 天地人 in 1995, or not", "un" * 40]
V = len(tiny_model())


def google(folder, **options):
  return str(write_google_xlnet(folder, tiny_bytes(), vocab_size=V, **options))


def hugging_face(folder, **options):
  return str(write_hugging_face_xlnet(folder, tiny_bytes(), vocab_size=V, **options))


def frozen(folder, target, **options):
  lines = []
  freeze(folder, str(target), FreezeOptions(**options), lines.append)
  return load_encoder(str(target)), lines


@pytest.mark.parametrize("untie_r", [True, False])
@pytest.mark.parametrize(
  "options",
  [
    {},
    {"pooling": "cls", "layers": (0, 1, 2), "combine": "concat"},
    {"pooling": "mean-max", "layers": (2,), "exclude_special_tokens": True, "max_seq_length": 5},
    {"pooling": "last", "layers": (0,), "activation": "relu"},
  ],
)
def test_an_encoder_of_either_layout_gives_numpys_vectors(tmp_path, untie_r, options):
  for name, write in (("google", google), ("hugging-face", hugging_face)):
    folder = write(tmp_path / name, untie_r=untie_r)
    encoder, _ = frozen(folder, tmp_path / f"{name}-encoder", **options)
    checkpoint, spec = read_checkpoint(folder, activation=options.get("activation")), encoder.spec
    assert isinstance(spec.config, XlnetConfig) and encoder.self_test_error < 1e-5
    tokens = encoder.tokenizer.tokenise(TEXTS)
    rows = np.split(tokens.input_ids, tokens.offsets[1:-1])
    expected = [xlnet_vector(checkpoint.variables, spec.config, row, spec.readout) for row in rows]
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, rtol=0, atol=1e-5)


def test_both_layouts_hold_the_same_weights(tmp_path):
  ours = read_checkpoint(google(tmp_path / "g"))
  theirs = read_checkpoint(hugging_face(tmp_path / "h", old=True, prefix=""), activation="gelu_tanh")
  assert ours.config == theirs.config and ours.architecture is XLNET
  drawn = random_variables(xlnet_config(vocab_size=V))
  for checkpoint in (ours, theirs):
    assert checkpoint.variables.keys() == set(XLNET.useful_names(ours.config))
    assert all((checkpoint.variables[name] == drawn[name]).all() for name in checkpoint.variables)


def test_a_tied_checkpoint_s_biases_are_those_of_every_block_in_hugging_face_s_layout(tmp_path):
  tied = read_checkpoint(google(tmp_path / "g", untie_r=False, layers=3))
  theirs = read_checkpoint(hugging_face(tmp_path / "h", untie_r=False, layers=3))
  name = "model/transformer/r_w_bias"
  assert not tied.config.untie_r and theirs.config.untie_r  # each block has its own there
  np.testing.assert_array_equal(theirs.variables[name], np.stack([tied.variables[name]] * 3))


def test_the_folder_holds_spiece_model_and_stands_already_the_second_time(tmp_path):
  folder = google(tmp_path / "g", adam=True, mem_len=384)
  _, lines = frozen(folder, tmp_path / "e")
  assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["encoder.json", "encoder.pb", "spiece.model"]
  assert (tmp_path / "e/spiece.model").read_bytes() == tiny_bytes()
  assert lines[1] == f"model: XLNet, 2 layers, hidden size 32, activation gelu_tanh, {V} tokens"
  assert "casing: as it stands, accents stripped (the model's default, for the folder says nothing)" in lines
  assert "note: mem_len 384: play no part, for a text is encoded alone and without memory" in lines
  again, lines = frozen(folder, tmp_path / "e")
  assert "unchanged" in lines[-1]
  cases = json.loads((tmp_path / "e/encoder.json").read_text())["self_test"]["cases"]
  assert {tuple(case[-2:]) for case in cases} == {again.tokenizer.after} and len(cases[-1]) == 128


def test_vectors_do_not_depend_on_the_batch(tmp_path):
  encoder, _ = frozen(hugging_face(tmp_path / "h"), tmp_path / "e")
  together = encoder.encode_texts(TEXTS)
  alone = np.vstack([encoder.encode_texts([text]) for text in TEXTS])
  np.testing.assert_allclose(together, alone, rtol=0, atol=5e-6)


def test_settings_of_the_tokenizer_are_the_folders_unless_others_are_asked_for(tmp_path):
  folder = hugging_face(tmp_path / "h")
  assert read_checkpoint(folder).tokenizer == SentencePieceSettings(False, False, True)
  (tmp_path / "h/tokenizer_config.json").write_text('{"do_lower_case": true, "keep_accents": true}')
  assert read_checkpoint(folder).tokenizer == SentencePieceSettings(True, True, True)
  encoder, lines = frozen(folder, tmp_path / "e", strip_accents=True, lowercase=False)
  assert encoder.spec.tokenizer == SentencePieceSettings(False, False, True)
  assert "casing: as it stands, accents stripped (asked for)" in lines


def test_what_attention_over_very_long_texts_takes_is_said(tmp_path):
  folder = google(tmp_path / "g", heads=2)  # of H = 32
  _, lines = frozen(folder, tmp_path / "e", max_seq_length=8000)  # 2 · 32 · 8000²
  assert any("attention over 8,000 tokens takes about 4.1 GB" in line for line in lines)
  _, lines = frozen(folder, tmp_path / "f", max_seq_length=4000)
  assert not any("GB" in line for line in lines)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"pooling": "pooler"}, "--pooling pooler: an XLNet has none; choose cls, mean, max, mean-max or last"),
    ({"combine": "fused"}, "--combine fused: an XLNet has no learned mix of layers; choose average, sum or concat"),
    ({"head": "sigmoid"}, "--head sigmoid: .* is an XLNet, whose heads are not read; leave --head out"),
    ({"tokenize_chinese_chars": False}, "--no-tokenize-chinese-chars is for a BERT's WordPiece"),
    ({"max_seq_length": 2}, "--max-seq-length 2: choose 3 or more"),
  ],
)
def test_what_an_xlnet_does_not_have_is_refused(tmp_path, options, message):
  with pytest.raises(UsageError, match=message):
    frozen(google(tmp_path / "g"), tmp_path / "e", **options)


def test_what_is_missing_or_does_not_fit_is_named(tmp_path):
  folder = google(tmp_path / "g")
  (tmp_path / "g/xlnet_config.json").unlink()
  with pytest.raises(EncoderError, match=r"xlnet_config.json: not there; .* give --bert-config"):
    read_checkpoint(folder)
  write_google_xlnet(tmp_path / "g", tiny_bytes(), vocab_size=V + 1)
  with pytest.raises(
    EncoderError, match=rf"{V} tokens, but the embedding table has {V + 1} rows; give the spiece.model"
  ):
    read_checkpoint(folder)
  folder = hugging_face(tmp_path / "h")
  (tmp_path / "h/spiece.model").unlink()
  (tmp_path / "h/tokenizer.json").write_text("{}")
  with pytest.raises(EncoderError, match=r"has tokenizer.json but no spiece.model, .*copy it .*give it with --vocab"):
    read_checkpoint(folder)


def test_biases_that_are_not_alike_are_named(tmp_path):
  folder = hugging_face(tmp_path / "h")
  tensors = load_file(tmp_path / "h/model.safetensors")
  tensors["transformer.layer.1.rel_attn.r_w_bias"] = np.zeros((3, 16), np.float32)
  save_file(tensors, tmp_path / "h/model.safetensors")
  message = r"layer.0.rel_attn.r_w_bias is \[2, 16\] and transformer.layer.1.rel_attn.r_w_bias \[3, 16\]"
  with pytest.raises(EncoderError, match=message):
    read_checkpoint(folder)
  assert "but all blocks are alike" in str(describe_model(folder)["problems"])


def test_what_a_checkpoint_can_be_frozen_to_is_shown(tmp_path):
  found = describe_model(google(tmp_path / "g", adam=True))
  assert found["architecture"] == "XLNet" and found["can_be_frozen"] and found["problems"] == []
  assert found["freezes_to"]["poolings"] == ["cls", "mean", "max", "mean-max", "last"]
  assert found["freezes_to"]["not"]["pooler"] == "an XLNet has none"
  groups = {what: group["count"] for what, group in found["variables"]["unused"].items()}
  assert groups == {"optimizer": 2 * 33, "training state": 1, "pre-training heads": 2}
  assert found["variables"]["used"] == 31 and found["variables"]["missing"] == []
  frozen(str(tmp_path / "g"), tmp_path / "e")
  found = describe_model(str(tmp_path / "e"))
  assert found["architecture"] == "XLNet" and found["can_be_used"] and found["files"]["spiece.model"]["as_frozen"]
  (tmp_path / "g/xlnet_config.json").unlink()
  sizes = {"layers": 2, "hidden_size": 32, "vocab_size": V, "max_position_embeddings": None}
  assert describe_model(str(tmp_path / "g"))["weights"] == sizes
