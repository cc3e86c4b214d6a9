import shutil

import pytest

from pipeline.model.describe import describe_model, is_encoder_folder
from pipeline.model.freeze import FreezeOptions, freeze
from tests.tiny_bert import write_google_checkpoint, write_hugging_face_folder, write_sentence_transformers_folder
from transforms.errors import EncoderError, UsageError


def test_the_kind_is_found(tmp_path):
  google = write_google_checkpoint(tmp_path / "g")
  freeze(str(google), str(tmp_path / "e"), FreezeOptions(), lambda line: None)
  shutil.copy(tmp_path / "e" / "encoder.pb", tmp_path / "graph.pb")
  kinds = {
    google: "google",
    google / "model.ckpt-100": "google",
    write_hugging_face_folder(tmp_path / "h"): "hugging-face",
    write_sentence_transformers_folder(tmp_path / "s"): "sentence-transformers",
    tmp_path / "e": "encoder",
    f"file://{tmp_path}/e": "encoder",
    tmp_path / "e" / "encoder.pb": "graph",
    tmp_path / "graph.pb": "graph",
  }
  assert {path: describe_model(str(path))["kind"] for path in kinds} == kinds
  for path in (tmp_path, tmp_path / "none", "s4://bucket/encoder"):
    assert describe_model(str(path)) is None
  with pytest.raises(EncoderError, match=r"none.pb: cannot be read"):
    describe_model(str(tmp_path / "none.pb"))


def test_of_a_saved_model_it_is_told_what_it_is(tmp_path):
  (tmp_path / "saved_model.pb").write_bytes(b"")
  with pytest.raises(UsageError, match="a SavedModel, which is not a frozen graph; make one of it"):
    describe_model(str(tmp_path))
  (tmp_path / "assets.extra").mkdir()
  (tmp_path / "assets.extra" / "serving.json").write_text("{}")
  with pytest.raises(UsageError, match="a SavedModel for TensorFlow Serving, as `sorbus freeze --saved-model` writes"):
    describe_model(str(tmp_path))


def test_a_text_column_is_of_a_sample(tmp_path):
  folder, sample = str(write_google_checkpoint(tmp_path / "c")), tmp_path / "texts.csv"
  sample.write_text("body\nThe rain\n")
  assert describe_model(folder, sample=str(sample), text_column=["body"])["sample"]["texts"] == 1
  assert describe_model(folder, sample=str(sample), text_column=["1"], no_header=True)["sample"]["texts"] == 2
  sample.write_text("title,body\nThe,rain\n")
  both = describe_model(folder, sample=str(sample), text_column=["title", "body"])["sample"]
  one = describe_model(folder, sample=str(sample), text_column=["title"])["sample"]
  assert (both["casings"][0]["tokens"], one["casings"][0]["tokens"]) == (2, 1)
  with pytest.raises(UsageError, match=r"^--text-column body: .* give --sample FILE with it"):
    describe_model(folder, text_column=["body"])


def test_an_encoder_without_its_settings_is_one_still(tmp_path):
  (tmp_path / "encoder.pb").write_bytes(b"")
  assert is_encoder_folder(str(tmp_path)) and not is_encoder_folder(str(tmp_path / "encoder.pb"))
  assert "encoder.json: not there" in describe_model(str(tmp_path))["problems"][0]


@pytest.mark.parametrize(
  ("name", "option", "what"),
  [
    ("encoder.json", "vocab", "an encoder folder"),
    ("encoder.json", "bert_config", "an encoder folder"),
    ("graph.pb", "sample", "a graph"),
    ("model.safetensors", "bert_config", "for Google checkpoints"),
  ],
)
def test_an_option_that_has_no_meaning_is_refused(tmp_path, name, option, what):
  (tmp_path / name).write_bytes(b"")
  path = tmp_path / name if name.endswith(".pb") else tmp_path
  with pytest.raises(UsageError, match=rf"^--{option.replace('_', '-')}.* {what}"):
    describe_model(str(path), **{option: "file"})
