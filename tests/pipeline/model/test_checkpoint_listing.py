import json

import pytest

from pipeline.model.read_checkpoint import list_checkpoint
from tests.tiny_bert import (
  VOCABULARY,
  write_google_checkpoint,
  write_hugging_face_folder,
  write_sentence_transformers_folder,
)
from transforms.errors import EncoderError


def test_what_is_listed_is_what_is_loaded(tmp_path):
  for write in (write_google_checkpoint, write_hugging_face_folder, write_sentence_transformers_folder):
    listing = list_checkpoint(str(write(tmp_path / write.__name__)))
    checkpoint = listing.load()
    assert listing.problems == () and listing.name == checkpoint.name and listing.kind == checkpoint.kind
    assert {name: value.shape for name, value in checkpoint.variables.items()}.items() <= listing.shapes.items()
    assert len(listing.shapes) == len(checkpoint.variables) + checkpoint.ignored


def test_without_its_weights_a_checkpoint_is_listed_and_the_file_named(shared_data):
  listing = list_checkpoint(str(shared_data / "checkpoints/chinese_classifier_index_only"))
  assert (len(listing.shapes), listing.config.layers, len(listing.vocabulary)) == (604, 12, 21128)
  assert listing.shapes["output_weights"] == (8, 768) and listing.has_classifier
  [problem] = listing.problems
  assert "bert_model.ckpt.data-00000-of-00001: not there" in str(problem)
  with pytest.raises(EncoderError) as caught:
    listing.load()
  assert caught.value is problem


def test_everything_that_is_wrong_is_a_problem_not_only_the_first(tmp_path):
  folder = write_google_checkpoint(tmp_path / "g")
  (folder / "bert_config.json").unlink()
  (folder / "vocab.txt").write_text("\n".join(VOCABULARY[:-1]) + "\n", encoding="utf-8")
  (folder / "model.ckpt-100.data-00000-of-00001").unlink()
  listing = list_checkpoint(str(folder))
  assert listing.config is None and len(listing.vocabulary) == len(VOCABULARY) - 1 and listing.shapes
  for problem, words in zip(
    listing.problems, ["bert_config.json: not there", ".data-00000-of-00001: not there", "tokens, but"], strict=True
  ):
    assert words in str(problem)


def test_an_index_that_cannot_be_read_leaves_configuration_and_vocabulary(tmp_path):
  folder = write_google_checkpoint(tmp_path / "g")
  (folder / "model.ckpt-100.index").write_bytes(b"x" * 100)
  listing = list_checkpoint(str(folder))
  assert listing.config.layers == 2 and listing.vocabulary == tuple(VOCABULARY) and not listing.shapes
  assert "TensorFlow cannot read it" in str(listing.problems[0])


@pytest.mark.parametrize(("stated", "length", "n_notes"), [(64, 64, 0), (65, 64, 1), (10**6, 64, 1), (None, None, 0)])
def test_more_tokens_than_positions_are_cut_and_said(tmp_path, stated, length, n_notes):
  folder = write_sentence_transformers_folder(tmp_path / "s", max_seq_length=stated)
  listing = list_checkpoint(str(folder))
  assert listing.max_seq_length == listing.load().max_seq_length == length
  words = f"the folder states max_seq_length {stated}, but the model has 64 positions: texts are cut at 64"
  assert listing.notes == (words,) * n_notes


def test_how_the_casing_is_known(tmp_path):
  folder = write_hugging_face_folder(tmp_path / "h")
  assert list_checkpoint(str(folder)).casing == "stated"
  (folder / "tokenizer_config.json").unlink()
  assert list_checkpoint(str(folder)).casing == "default"
  (folder / "tokenizer.json").write_text(json.dumps({"normalizer": {"type": "BertNormalizer", "lowercase": False}}))
  assert list_checkpoint(str(folder)).casing == "stated"
  assert list_checkpoint(str(write_google_checkpoint(tmp_path / "g"))).casing == "guessed"
