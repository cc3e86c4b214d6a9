import json
import shutil

import numpy as np
import pytest

from pipeline.model.read_checkpoint import read_checkpoint
from tests.tiny_bert import (
  VOCABULARY,
  random_variables,
  write_google_checkpoint,
  write_hugging_face_folder,
  write_sentence_transformers_folder,
  write_variables,
)
from transforms.encoder_spec import Readout
from transforms.errors import EncoderError, UsageError
from transforms.frozen_graph import tf
from transforms.wordpiece import TokenizerSettings


@pytest.fixture
def google(tmp_path):
  return write_google_checkpoint(tmp_path / "google")


@pytest.fixture
def hugging_face(tmp_path):
  return write_hugging_face_folder(tmp_path / "hugging_face")


def edit(path, *gone, **changes):
  value = json.loads(path.read_text()) | changes
  path.write_text(json.dumps({name: item for name, item in value.items() if name not in gone}))


def rewrite(folder, *gone, prefix="model.ckpt-100", **changes):
  """Writes the checkpoint again without some variables and with others changed."""
  variables = random_variables(hidden_size=32, layers=2, seed=0) | changes
  write_variables(folder / prefix, {name: value for name, value in variables.items() if name not in gone}, tf)


def refused(path, message, **options):
  with pytest.raises(EncoderError, match=message) as caught:
    read_checkpoint(str(path), **options)
  assert "\n" not in str(caught.value)


# Google's layout.


def test_a_google_checkpoint_is_a_folder_a_prefix_or_one_of_its_files(google):
  expected = random_variables(hidden_size=32, layers=2, seed=0)
  for path in (google, google / "model.ckpt-100", google / "model.ckpt-100.index"):
    checkpoint = read_checkpoint(str(path))
    assert checkpoint.kind == "google" and checkpoint.vocabulary == tuple(VOCABULARY)
    assert checkpoint.variables.keys() == expected.keys()
    assert all((checkpoint.variables[name] == value).all() for name, value in expected.items())
    assert (checkpoint.config.activation, checkpoint.config.layer_norm_eps) == ("gelu_tanh", 1e-12)


def test_what_training_leaves_is_ignored(tmp_path):
  checkpoint = read_checkpoint(str(write_google_checkpoint(tmp_path / "c", adam=True, classifier=True)))
  head = {"output_weights", "output_bias"}  # for --head, if it is asked for
  assert {name for name in checkpoint.variables if not name.startswith("bert/") or "adam" in name} == head
  assert checkpoint.ignored == 2 * (len(checkpoint.variables) - 2) + 2 and checkpoint.has_classifier


def test_configuration_and_vocabulary_may_lie_elsewhere(google, tmp_path):
  for name in ("bert_config.json", "vocab.txt"):
    shutil.move(google / name, tmp_path / name)
  config, vocab = str(tmp_path / "bert_config.json"), str(tmp_path / "vocab.txt")
  refused(google, r"bert_config.json: not there; .* give --bert-config")
  refused(google, r"vocab.txt: not there; .* give --vocab", bert_config=config)
  assert (
    read_checkpoint(str(google), bert_config=config, vocab=vocab, activation="gelu_erf").config.activation == "gelu_erf"
  )


@pytest.mark.parametrize("stated", ["/elsewhere/output/model.ckpt-100", "C:\\output\\model.ckpt-100", "model.ckpt-100"])
def test_the_file_checkpoint_is_followed_by_base_name(google, stated):
  rewrite(google, prefix="model.ckpt-200")
  (google / "checkpoint").write_text(f'model_checkpoint_path: "{stated}"\nall_model_checkpoint_paths: "x"\n')
  assert read_checkpoint(str(google)).name.endswith("model.ckpt-100")


def test_several_checkpoints_and_no_word_which(google):
  rewrite(google, prefix="model.ckpt-200")
  (google / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-300"\n')
  refused(google, r"names model.ckpt-300, which is not there; the folder has model.ckpt-100, model.ckpt-200")
  (google / "checkpoint").unlink()
  refused(google, r"which checkpoint\? It has model.ckpt-100, model.ckpt-200.* give the prefix")
  assert read_checkpoint(str(google / "model.ckpt-200")).name.endswith("model.ckpt-200")


def test_a_single_checkpoint_needs_no_word_which(google):
  (google / "checkpoint").unlink()
  assert read_checkpoint(str(google)).name.endswith("model.ckpt-100")


@pytest.mark.parametrize(
  ("state", "message"),
  [
    (b"\xff\xfe\x00\x80model", "checkpoint: names no model_checkpoint_path; give the prefix"),
    (b'model_checkpoint_path: "\xff\x00"\n', "which is not there; the folder has model.ckpt-100"),
    (b'model_checkpoint_path: "/"\n', "names /, which is not there"),
    (b'model_checkpoint_path: "' + b"x" * 300 + b'"\n', "x, which is not there"),
  ],
)
def test_a_file_checkpoint_that_says_nothing_useful(google, state, message):
  (google / "checkpoint").write_bytes(state)
  refused(google, message)


def test_a_folder_in_place_of_a_file_is_named(google, tmp_path):
  folder = str(tmp_path)
  refused(google, rf"^{folder}: cannot be read \(Is a directory\); a JSON file", bert_config=folder)
  refused(google, rf"^{folder}: cannot be read \(Is a directory\); give the vocabulary", vocab=folder)
  (tmp_path / "modules.json").mkdir()
  refused(tmp_path, r"modules.json: cannot be read \(Is a directory\)")
  refused(tmp_path / ("x" * 300), r"x: cannot be read \(File name too long\)")


def test_json_nested_without_end_is_no_json(google):
  (google / "bert_config.json").write_text("[" * 100_000)
  refused(google, "bert_config.json: not JSON")


def test_a_missing_data_file_is_named(google, shared_data):
  refused(shared_data / "checkpoints/chinese_classifier_index_only", r"bert_model.ckpt.data-00000-of-00001: not there")
  (google / "model.ckpt-100.data-00000-of-00001").rename(google / "model.ckpt-100.data-00001-of-00003")
  refused(google, r"model.ckpt-100.data-00000-of-00003: not there")


def test_a_data_file_cut_short_is_named(google):
  data = google / "model.ckpt-100.data-00000-of-00001"
  data.write_bytes(data.read_bytes()[:1000])
  refused(google, r"model.ckpt-100.data-\*: .* cannot be read .*cut short")


def test_variables_must_be_there_in_their_shapes(google):
  rewrite(google, "bert/encoder/layer_1/output/dense/bias")
  refused(google, "has no bert/encoder/layer_1/output/dense/bias; the checkpoint is not complete")
  rewrite(google, **{"bert/encoder/layer_1/output/dense/bias": np.zeros(31, np.float32)})
  refused(google, r"layer_1/output/dense/bias is \[31\], by the configuration it would be \[32\]")
  rewrite(google, **{"bert/encoder/layer_1/output/dense/bias": np.full(32, np.nan, np.float32)})
  refused(google, "layer_1/output/dense/bias has NaN")


def test_layers_must_be_as_many_as_configured(google):
  edit(google / "bert_config.json", num_hidden_layers=3)
  refused(google, "has 2 layers, its configuration says 3")
  edit(google / "bert_config.json", num_hidden_layers=1)
  refused(google, "has 2 layers, its configuration says 1")


def test_the_vocabulary_must_fit_the_embedding_table(google):
  vocab = google / "vocab.txt"
  vocab.write_text(vocab.read_text(encoding="utf-8") + "extra\n", encoding="utf-8")
  n = len(VOCABULARY)
  refused(google, rf"vocab.txt: {n + 1} tokens, but the embedding table has {n} rows; give the vocab.txt that")


def test_a_vocabulary_one_line_short_does_not_fit(google):
  n = len(VOCABULARY)
  (google / "vocab.txt").write_text("\n".join(VOCABULARY[:-1]) + "\n", encoding="utf-8")
  refused(google, rf"vocab.txt: {n - 1} tokens, but the embedding table has {n} rows; give the vocab.txt that")


def test_a_trap_vocabulary_is_refused(shared_data):
  trap = next((shared_data / "vocab").glob("VARIANT_*"))
  refused(
    shared_data / "checkpoints/bert_tiny_uncased_L-2_H-128_A-2",
    r"VARIANT.* has no \[UNK\].*lower-cased",
    vocab=str(trap),
  )


def test_what_is_no_bert_is_refused(google, tmp_path):
  write_variables(google / "model.ckpt-100", {"conv1/kernel": np.zeros(3, np.float32)}, tf)
  refused(google, "not the checkpoint of a BERT: it has no bert/embeddings/word_embeddings, but conv1/kernel")
  refused(tmp_path / "nothing", "no checkpoint; a Google one has a .index file")
  (tmp_path / "encoder").mkdir()
  (tmp_path / "encoder" / "encoder.json").write_text("{}")
  refused(tmp_path / "encoder", "an encoder already; use it as it is")
  with pytest.raises(UsageError, match="--bert-config is for Google"):
    read_checkpoint(str(tmp_path), bert_config="x")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"hidden_act": "swish"}, "hidden_act 'swish' is not supported; choose one of gelu_tanh"),
    ({"hidden_size": "32"}, "hidden_size is '32', not a whole number from 1 to 2147483647"),
    ({"num_hidden_layers": 1001}, "num_hidden_layers is 1001, not a whole number from 1 to 1000; is this"),
    ({"num_attention_heads": 5}, "hidden_size 32 is no multiple of 5"),
    ({"model_type": "albert"}, "model_type is 'albert'"),
  ],
)
def test_a_configuration_that_cannot_be(google, changes, message):
  edit(google / "bert_config.json", **changes)
  refused(google, message)


# Hugging Face's layout.


@pytest.mark.parametrize("how", [{}, {"prefix": "bert."}, {"old_layer_norm_names": True}])
def test_hugging_face_names_become_googles(tmp_path, how):
  checkpoint = read_checkpoint(str(write_hugging_face_folder(tmp_path / "h", **how)))
  expected = random_variables(hidden_size=32, layers=2, seed=0)
  assert checkpoint.variables.keys() == expected.keys()
  assert all((checkpoint.variables[name] == value).all() for name, value in expected.items())
  assert checkpoint.config.activation == "gelu_erf" and checkpoint.ignored == 1


@pytest.mark.parametrize(
  ("name", "activation"), [("gelu_new", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh"), ("relu", "relu")]
)
def test_hugging_face_activation_and_epsilon_are_its_own(hugging_face, name, activation):
  edit(hugging_face / "config.json", hidden_act=name, layer_norm_eps=1e-5)
  config = read_checkpoint(str(hugging_face)).config
  assert (config.activation, config.layer_norm_eps) == (activation, 1e-5)


def test_half_precision_weights_are_widened(hugging_face):
  import ml_dtypes
  from safetensors.numpy import load_file, save_file

  path = hugging_face / "model.safetensors"
  tensors = load_file(path)
  for dtype in (np.float16, ml_dtypes.bfloat16):
    save_file({name: value.astype(dtype) for name, value in tensors.items() if "_ids" not in name}, path)
    variables = read_checkpoint(str(hugging_face)).variables
    expected = tensors["embeddings.word_embeddings.weight"].astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(variables["bert/embeddings/word_embeddings"], expected)
    assert {value.dtype for value in variables.values()} == {np.dtype(np.float32)}


def test_sharded_safetensors(hugging_face):
  from safetensors.numpy import load_file, save_file

  whole = hugging_face / "model.safetensors"
  tensors = load_file(whole)
  whole.unlink()
  halves = {"a.safetensors": sorted(tensors)[::2], "b.safetensors": sorted(tensors)[1::2]}
  for file_name, names in halves.items():
    save_file({name: tensors[name] for name in names}, hugging_face / file_name)
  weight_map = {name: file_name for file_name, names in halves.items() for name in names}
  (hugging_face / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
  assert len(read_checkpoint(str(hugging_face)).variables) == len(random_variables(hidden_size=32, layers=2, seed=0))
  (hugging_face / "b.safetensors").unlink()
  refused(hugging_face, r"b.safetensors: cannot be read as safetensors")


def test_a_model_without_pooler_can_be_frozen_by_mean_only(hugging_face):
  from safetensors.numpy import load_file, save_file

  path = hugging_face / "model.safetensors"
  save_file({name: value for name, value in load_file(path).items() if "pooler" not in name}, path)
  checkpoint = read_checkpoint(str(hugging_face))
  assert len(checkpoint.used(Readout("mean", (2,)))) == len(checkpoint.variables)
  with pytest.raises(EncoderError, match=r"has no bert/pooler/dense/bias.*choose --pooling cls or mean"):
    checkpoint.used(Readout("pooler", (2,)))


@pytest.mark.parametrize(("name", "call"), [("pytorch_model.bin", "torch.load"), ("tf_model.h5", "from_tf=True")])
def test_other_weight_formats_are_refused_with_the_line_that_converts_them(hugging_face, name, call):
  (hugging_face / "model.safetensors").rename(hugging_face / name)
  refused(hugging_face, rf"has {name} but no model.safetensors; convert it there with: python -c .*{call}")


def test_tokenizer_json_stands_in_for_vocab_txt(hugging_face):
  (hugging_face / "vocab.txt").unlink()
  refused(hugging_face, "has neither vocab.txt nor tokenizer.json")
  vocab = {token: i for i, token in enumerate(VOCABULARY)}
  normalizer = {"type": "BertNormalizer", "lowercase": False, "strip_accents": None, "handle_chinese_chars": False}
  path = hugging_face / "tokenizer.json"
  path.write_text(json.dumps({"model": {"type": "WordPiece", "vocab": vocab}, "normalizer": normalizer}))
  edit(hugging_face / "tokenizer_config.json", "do_lower_case")
  checkpoint = read_checkpoint(str(hugging_face))
  assert checkpoint.vocabulary == tuple(VOCABULARY)
  assert checkpoint.tokenizer == TokenizerSettings(False, False, tokenize_chinese_chars=False)
  path.write_text(json.dumps({"model": {"type": "Unigram", "vocab": []}}))
  refused(hugging_face, "its model is Unigram, not the WordPiece")


@pytest.mark.parametrize(
  ("stated", "expected"),
  [
    ({}, (True, True, True)),
    ({"do_lower_case": False}, (False, False, True)),
    ({"do_lower_case": False, "strip_accents": True}, (False, True, True)),
    ({"strip_accents": False, "tokenize_chinese_chars": False}, (True, False, False)),
  ],
)
def test_tokenizer_settings_are_the_folders(hugging_face, stated, expected):
  (hugging_face / "tokenizer_config.json").write_text(json.dumps(stated))
  assert read_checkpoint(str(hugging_face)).tokenizer == TokenizerSettings(*expected)


def test_settings_of_the_tokenizer_that_mean_nothing_are_refused(hugging_face):
  edit(hugging_face / "tokenizer_config.json", do_lower_case="false")  # as a condition it would be true
  refused(hugging_face, "tokenizer_config.json: do_lower_case is 'false'; write true or false, without quotation marks")
  edit(hugging_face / "tokenizer_config.json", do_lower_case=None, tokenizer_class=["BertTokenizer"])
  refused(hugging_face, r"\['BertTokenizer'\] does not tokenise as BERT does")


def test_folders_that_are_no_bert_are_refused(hugging_face):
  edit(hugging_face / "tokenizer_config.json", tokenizer_class="BertJapaneseTokenizer")
  refused(hugging_face, "BertJapaneseTokenizer does not tokenise as BERT does")
  edit(hugging_face / "config.json", model_type="roberta")
  refused(hugging_face, "model_type is 'roberta'; only BERT")


# The sentence-transformers layout.


def test_sentence_transformers_folder_states_pooling_and_length(tmp_path):
  checkpoint = read_checkpoint(str(write_sentence_transformers_folder(tmp_path / "s", max_seq_length=40)))
  assert (checkpoint.pooling, checkpoint.layers, checkpoint.max_seq_length) == ("mean", (2,), 40)
  assert checkpoint.kind == "sentence-transformers" and checkpoint.for_cosine


@pytest.mark.parametrize(
  ("flag", "pooling"), [("mean_tokens", "mean"), ("cls_token", "cls"), ("max_tokens", "max"), ("lasttoken", "last")]
)
def test_each_pooling_of_sentence_transformers_that_we_have_is_taken(tmp_path, flag, pooling):
  folder = write_sentence_transformers_folder(tmp_path / "s")
  edit(folder / "1_Pooling/config.json", **{"pooling_mode_mean_tokens": False, f"pooling_mode_{flag}": True})
  assert read_checkpoint(str(folder)).pooling == pooling


def test_its_lower_casing_comes_on_top_of_the_tokenizers(tmp_path):
  folder = write_sentence_transformers_folder(tmp_path / "s")
  edit(folder / "tokenizer_config.json", do_lower_case=False)
  edit(folder / "sentence_bert_config.json", do_lower_case=True)
  assert read_checkpoint(str(folder)).tokenizer == TokenizerSettings(lowercase=True, strip_accents=False)


def test_older_folders_have_the_transformer_in_a_folder_of_its_own(tmp_path):
  folder = write_sentence_transformers_folder(tmp_path / "s", normalize=False)
  inner = folder / "0_Transformer"
  inner.mkdir()
  for path in [path for path in folder.iterdir() if path.is_file() and path.name != "modules.json"]:
    path.rename(inner / path.name)
  modules = json.loads((folder / "modules.json").read_text())
  modules[0]["path"] = "0_Transformer"
  (folder / "modules.json").write_text(json.dumps(modules))
  assert read_checkpoint(str(folder)).max_seq_length == 32


def test_modules_and_poolings_that_cannot_be_frozen_are_named(tmp_path):
  folder = write_sentence_transformers_folder(tmp_path / "two")
  edit(folder / "1_Pooling/config.json", pooling_mode_max_tokens=True)
  refused(folder, r"its pooling is mean_tokens \+ max_tokens; only one of mean, cls, max or lasttoken")
  edit(folder / "1_Pooling/config.json", "pooling_mode_mean_tokens", "pooling_mode_max_tokens", pooling_mode="weighted")
  refused(folder, "its pooling is weighted; only one of mean")
  folder = write_sentence_transformers_folder(tmp_path / "dense")
  modules = json.loads((folder / "modules.json").read_text())
  modules[2]["type"] = "sentence_transformers.models.Dense"
  (folder / "modules.json").write_text(json.dumps(modules))
  refused(folder, "its modules are Transformer, Pooling, Dense")


def test_a_default_prompt_is_noted(tmp_path):
  folder = write_sentence_transformers_folder(tmp_path / "s")
  (folder / "config_sentence_transformers.json").write_text(json.dumps({"default_prompt_name": "query"}))
  assert "'query' is NOT put before texts" in read_checkpoint(str(folder)).notes[0]
