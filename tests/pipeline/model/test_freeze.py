import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.model.bert_numpy import bert_vector
from pipeline.model.choose_readout import resolve_layers
from pipeline.model.freeze import FreezeOptions, choose, freeze
from pipeline.model.read_checkpoint import read_checkpoint
from tests.tiny_bert import (
  VOCABULARY,
  write_google_checkpoint,
  write_hugging_face_folder,
  write_sentence_transformers_folder,
)
from transforms.encoder import load_encoder
from transforms.errors import EncoderError, UsageError
from transforms.frozen_graph import tf

BERT_TINY = "checkpoints/bert_tiny_uncased_L-2_H-128_A-2"
TEXTS = ["the rain and the sun", "a", "it was not a tree", "白面子"]


def masked_mean(hidden, mask):
  return (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)


# Each way of freezing with what it is of the oracle's layers, float64 [64, 128].
WAYS = {
  "pooler": (FreezeOptions(pooling="pooler", max_seq_length=64), lambda oracle, mask: oracle["pooled_output"]),
  "cls of layer 2": (
    FreezeOptions(pooling="cls", layers=(2,), max_seq_length=64),
    lambda oracle, mask: oracle["layer_2"][:, 0],
  ),
  "mean of layer 1": (
    FreezeOptions(pooling="mean", layers=(-2,), max_seq_length=64),
    lambda oracle, mask: masked_mean(oracle["layer_1"], mask),
  ),
  "mean of layers 1 and 2": (
    FreezeOptions(pooling="mean", layers=(1, 2), max_seq_length=64),
    lambda oracle, mask: masked_mean((oracle["layer_1"] + oracle["layer_2"]) / 2, mask),
  ),
}


@pytest.mark.parametrize("way", WAYS)
def test_frozen_bert_tiny_agrees_with_google_on_tensorflow_1(shared_data, tmp_path, way):
  reference = shared_data / "reference/bert_tiny_google_tf115"
  texts = json.loads(reference.with_suffix(".json").read_text())["sentences"]
  with np.load(reference.with_suffix(".npz")) as file:
    oracle = {name: file[name].astype(np.float64 if name[0] != "i" else np.int32) for name in file.files}
  options, expect = WAYS[way]
  freeze(str(shared_data / BERT_TINY), str(tmp_path / "encoder"), options, lambda line: None)
  encoder = load_encoder(str(tmp_path / "encoder"))
  expected = expect(oracle, oracle["input_mask"])

  tokens = encoder.tokenizer.tokenise(texts)
  assert tokens.input_ids.tolist() == oracle["input_ids"][oracle["input_mask"] == 1].tolist()

  rows = np.split(tokens.input_ids, tokens.offsets[1:-1])
  alone = np.vstack([encoder.encode(row[None], np.ones((1, len(row)), np.int32)) for row in rows])
  np.testing.assert_allclose(alone, expected, rtol=0, atol=2e-5)
  together = encoder.encode(oracle["input_ids"], oracle["input_mask"])
  np.testing.assert_allclose(together, expected, rtol=0, atol=2e-5)
  some = [i for i in range(64) if len(rows[i]) > 2]
  for seed in range(3):
    random.Random(seed).shuffle(some)
    vectors = encoder.encode_texts([texts[i] for i in some])
    np.testing.assert_allclose(vectors, expected[some], rtol=0, atol=2e-5)


def test_toy_checkpoint_with_adam_slots_freezes(shared_data, tmp_path):
  spec = freeze(
    str(shared_data / "checkpoints/toy_L-2_H-4_A-4"), str(tmp_path / "e"), FreezeOptions(), lambda line: None
  )
  assert (spec.vector_size, spec.max_seq_length, spec.pooling, spec.layers) == (4, 16, "mean", (1,))
  assert load_encoder(str(tmp_path / "e")).encode_texts(["all work and no play"]).shape == (1, 4)


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu_erf", "relu", "tanh"])
@pytest.mark.parametrize(
  "how",
  [
    {"pooling": "pooler"},
    {"pooling": "cls", "layers": (0,)},
    {"pooling": "cls", "layers": (-1,)},
    {"pooling": "mean", "layers": (0, 3)},
    {"pooling": "mean", "layers": (1, 2, 3)},
  ],
)
def test_graph_equals_the_numpy_pass(tmp_path, how, activation):
  folder = write_google_checkpoint(tmp_path / "checkpoint", layers=3, heads=4)
  spec = freeze(str(folder), str(tmp_path / "e"), FreezeOptions(activation=activation, **how), lambda line: None)
  encoder, checkpoint = load_encoder(str(tmp_path / "e")), read_checkpoint(str(folder))
  tokens = encoder.tokenizer.tokenise(TEXTS)
  rows = np.split(tokens.input_ids, tokens.offsets[1:-1])
  expected = [bert_vector(checkpoint.variables, spec.config, row, spec.readout) for row in rows]
  np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, rtol=0, atol=1e-5)


def test_the_graph_is_plain_tensorflow_cut_at_the_last_layer_needed(tmp_path):
  folder = write_google_checkpoint(tmp_path / "checkpoint", layers=3)
  freeze(str(folder), str(tmp_path / "pooler"), FreezeOptions(pooling="pooler"), lambda line: None)
  freeze(str(folder), str(tmp_path / "mean"), FreezeOptions(layers=(1,)), lambda line: None)
  names = {}
  for way in ("pooler", "mean"):
    graph = tf.compat.v1.GraphDef.FromString((tmp_path / way / "encoder.pb").read_bytes())
    with tf.Graph().as_default() as imported:
      tf.import_graph_def(graph, name="")
    names[way] = {operation.name for operation in imported.get_operations()}
    assert imported.get_tensor_by_name("input_ids:0").shape.as_list() == [None, None]
  assert "bert/pooler/dense/Tanh" in names["pooler"]
  assert "bert/encoder/layer_2/output/dense/kernel" in names["pooler"]
  assert not [name for name in names["mean"] if "layer_1" in name or "pooler" in name]


def test_three_layouts_of_the_same_weights_give_the_same_vectors(tmp_path):
  folders = {
    "google": write_google_checkpoint(tmp_path / "g"),
    "hugging-face": write_hugging_face_folder(tmp_path / "h"),
    "sentence-transformers": write_sentence_transformers_folder(tmp_path / "s"),
  }
  options = FreezeOptions(pooling="mean", layers=(2,), max_seq_length=32, activation="gelu_tanh")
  specs = [freeze(str(folder), str(tmp_path / kind), options, lambda line: None) for kind, folder in folders.items()]
  assert len({spec.fingerprint for spec in specs}) == 1  # the same weights and settings are the same encoder
  assert [spec.source.kind for spec in specs] == list(folders)
  assert [spec.for_cosine for spec in specs] == [False, False, True]


def test_defaults_and_where_they_come_from_are_said(tmp_path):
  lines = []
  freeze(str(write_google_checkpoint(tmp_path / "c", adam=True)), str(tmp_path / "e"), FreezeOptions(), lines.append)
  text = "\n".join(lines)
  assert lines[0].endswith("(google, 21 variables used, 98 others ignored)")  # embeddings and one of two blocks
  assert "pooling: mean (default)" in text
  assert "layers: 1 of 2 (default, the last but one)" in text
  assert "max-seq-length: 64 (the positions that the model has)" in text
  assert "casing: lower-cased, accents stripped, Chinese characters apart (by the vocabulary's letters)" in text
  assert "self-test passed" in lines[-1]


def chosen(folder, **options):
  choices = choose(read_checkpoint(str(folder)), FreezeOptions(**options))
  return choices.readout.pooling, choices.readout.layers, choices.max_seq_length


def test_choices(tmp_path):
  classifier = write_google_checkpoint(tmp_path / "c", classifier=True)
  assert chosen(classifier) == ("pooler", (2,), 64)
  assert chosen(classifier, layers=(1,)) == ("mean", (1,), 64)
  assert chosen(classifier, pooling="cls", max_seq_length=3) == ("cls", (1,), 3)
  assert chosen(write_hugging_face_folder(tmp_path / "h")) == ("mean", (1,), 64)
  assert chosen(write_hugging_face_folder(tmp_path / "hc", classifier=True)) == ("pooler", (2,), 64)
  stated = write_sentence_transformers_folder(tmp_path / "s", pooling="cls", max_seq_length=20)
  assert chosen(stated) == ("cls", (2,), 20)
  assert chosen(stated, pooling="mean", layers=(0, -1), max_seq_length=10) == ("mean", (0, 2), 10)
  assert chosen(stated, layers=(1,)) == ("cls", (1,), 20)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (
      {"pooling": "pooler", "layers": (1,)},
      "--layers does not go with --pooling pooler, .*; choose --pooling cls, mean, max, mean-max or last",
    ),
    ({"pooling": "median"}, "--pooling median: not known; choose pooler, cls, mean, max, mean-max or last"),
    ({"layers": (3,)}, "--layers 3: the model has 2 layers; choose 0 .* to 2, or -1 to -2"),
    ({"layers": (-3,)}, "--layers -3"),
    ({"layers": (2, -1)}, "each once"),
    ({"max_seq_length": 65}, "--max-seq-length 65: choose 3 to 64"),
    ({"max_seq_length": 2}, "--max-seq-length 2: choose 3 to 64"),
    ({"activation": "gelu"}, "--activation gelu: not known; choose one of gelu_tanh"),
  ],
)
def test_options_that_cannot_be_are_refused_and_leave_nothing(tmp_path, options, message):
  folder = write_google_checkpoint(tmp_path / "c")
  with pytest.raises(UsageError, match=message):
    freeze(str(folder), str(tmp_path / "e"), FreezeOptions(**options), lambda line: None)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_layers_are_counted_from_either_end():
  assert [resolve_layers([i], 12) for i in (0, 12, -1, -12)] == [(0,), (12,), (12,), (1,)]
  assert resolve_layers([-1, 1], 12) == (1, 12)


def test_first_last_is_the_first_block_and_the_last(tmp_path):
  assert [resolve_layers(["first-last"], L) for L in (1, 2, 12)] == [(1,), (1, 2), (1, 12)]
  assert resolve_layers(["first-last", 0], 12) == (0, 1, 12)
  with pytest.raises(UsageError, match=r"--layers first-last -1: .* each once"):
    resolve_layers(["first-last", -1], 12)
  folder = write_google_checkpoint(tmp_path / "c", layers=3)
  spec = freeze(str(folder), str(tmp_path / "e"), FreezeOptions(layers=("first-last",)), lambda line: None)
  assert spec.layers == (1, 3)


def test_casing_may_be_asked_for(tmp_path):
  checkpoint = read_checkpoint(str(write_google_checkpoint(tmp_path / "c")))
  tokenizer = choose(checkpoint, FreezeOptions(lowercase=False, tokenize_chinese_chars=False)).tokenizer
  assert (tokenizer.lowercase, tokenizer.strip_accents, tokenizer.tokenize_chinese_chars) == (False, False, False)
  tokenizer = choose(checkpoint, FreezeOptions(strip_accents=False)).tokenizer
  assert (tokenizer.lowercase, tokenizer.strip_accents) == (True, False)


def test_a_casing_that_does_not_go_with_the_vocabulary_is_warned_of(tmp_path):
  checkpoint = read_checkpoint(str(write_google_checkpoint(tmp_path / "c")))

  def warnings(**options):
    return [line for line in choose(checkpoint, FreezeOptions(**options)).lines if line.startswith("warning: ")]

  assert warnings() == []
  assert warnings(lowercase=False) == [
    "warning: texts are not lower-cased, but then 100.0% of the vocabulary's words become [UNK] where they begin a "
    "sentence; is --lowercase meant?"
  ]


def test_freezing_again_changes_nothing_and_another_encoder_is_not_overwritten(tmp_path):
  folder, target, lines = str(write_google_checkpoint(tmp_path / "c")), tmp_path / "e", []
  spec = freeze(folder, str(target), FreezeOptions(), lines.append)
  before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in target.iterdir()}
  assert freeze(folder, str(target), FreezeOptions(), lines.append) == spec
  assert "unchanged" in lines[-1]
  with pytest.raises(EncoderError, match="holds another encoder"):
    freeze(folder, str(target), FreezeOptions(layers=(2,)), lines.append)
  assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in target.iterdir()} == before
  assert freeze(folder, str(target), FreezeOptions(layers=(2,), overwrite=True), lines.append).layers == (2,)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "e"]


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path):
  folder = str(write_google_checkpoint(tmp_path / "c"))
  for name in "ab":
    freeze(folder, str(tmp_path / name), FreezeOptions(), lambda line: None)
  for path in (tmp_path / "a").iterdir():
    assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_a_folder_with_something_else_is_left_alone(tmp_path):
  folder, target = str(write_google_checkpoint(tmp_path / "c")), tmp_path / "e"
  target.mkdir()
  (target / "precious.txt").write_text("x")
  with pytest.raises(UsageError, match="holds something that is no encoder"):
    freeze(folder, str(target), FreezeOptions(overwrite=True), lambda line: None)
  with pytest.raises(UsageError, match="is a file"):
    freeze(folder, str(target / "precious.txt"), FreezeOptions(), lambda line: None)
  with pytest.raises(UsageError, match="freeze into a local folder"):
    freeze(folder, "s3://bucket/encoder", FreezeOptions(), lambda line: None)


@pytest.mark.parametrize("name", ["mydataset/vectors.parquet", "notes.txt", "vocab.txt/vectors.parquet"])
def test_overwrite_loses_nothing_but_an_encoder(tmp_path, name):
  folder, target = str(write_google_checkpoint(tmp_path / "c")), tmp_path / "e"
  freeze(folder, str(target), FreezeOptions(), lambda line: None)
  if name.startswith("vocab.txt/"):
    (target / "vocab.txt").unlink()
  (target / name).parent.mkdir(exist_ok=True)
  (target / name).write_text("precious")
  first = name.split("/")[0]
  with pytest.raises(UsageError, match=f"e: holds {first}, which is no encoder's and would be lost"):
    freeze(folder, str(target), FreezeOptions(layers=(2,), overwrite=True), lambda line: None)
  assert (target / name).read_text() == "precious"
  assert json.loads((target / "encoder.json").read_text())["layers"] == [1]


@pytest.mark.parametrize("target", ["a_file/encoder", ".", "x" * 300, "/proc/sorbus-encoder"])
def test_a_folder_that_cannot_be_written_is_named_in_one_line(tmp_path, monkeypatch, target):
  folder = str(write_google_checkpoint(tmp_path / "c"))
  (tmp_path / "empty").mkdir()
  monkeypatch.chdir(tmp_path / "empty" if target == "." else tmp_path)
  (tmp_path / "a_file").write_text("x")
  if target.startswith("/proc") and not Path("/proc/self").exists():
    pytest.skip("no /proc on this machine, which nobody may write to")
  with pytest.raises(
    EncoderError, match=rf"^{re.escape(target)}: cannot be written \(.+\); give a new folder"
  ) as caught:
    freeze(folder, target, FreezeOptions(), lambda line: None)
  assert "\n" not in str(caught.value)
  assert sorted(path.name for path in tmp_path.rglob("*") if path.parent.name != "c") == ["a_file", "c", "empty"]


def test_no_absolute_path_of_this_machine_is_written_down(tmp_path):
  freeze(str(write_google_checkpoint(tmp_path / "c")), str(tmp_path / "e"), FreezeOptions(), lambda line: None)
  text = (tmp_path / "e" / "encoder.json").read_text()
  assert str(tmp_path) not in text and '"c/model.ckpt-100"' in text
  assert (tmp_path / "e" / "vocab.txt").read_text(encoding="utf-8").split("\n") == [*VOCABULARY, ""]
