import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.model import saved_model
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.model.saved_model import check_target, write_saved_model
from tests.tiny_bert import write_hugging_face_folder
from transforms.batching import pad_batch
from transforms.encoder import load_encoder, load_tokenizer, read_spec
from transforms.encoder_spec import Head
from transforms.errors import EncoderError, UsageError
from transforms.frozen_graph import tf
from transforms.storage import sha256
from transforms.whitening import Whitening, normalise

TEXTS = ["the rain and the sun", "a", "it was not a tree, but she had it", "白面子"]
OURS = ["assets.extra/encoder.json", "assets.extra/serving.json", "assets.extra/vocab.txt", "saved_model.pb"]


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("encoder")
  checkpoint = write_hugging_face_folder(folder / "checkpoint", layers=1)
  freeze(str(checkpoint), str(folder / "encoder"), FreezeOptions(pooling="mean", layers=(1,)), lambda line: None)
  return str(folder / "encoder")


@pytest.fixture(scope="module")
def whitening(encoder_dir):
  generator = np.random.default_rng(5)
  mean, kernel = generator.normal(size=32), generator.normal(size=(32, 8))
  return Whitening(mean, kernel, np.empty(0), 0, read_spec(encoder_dir).fingerprint)


@pytest.fixture
def out(tmp_path):
  return str(tmp_path / "serving" / "1")


def write(out, encoder_dir, whitening=None, **options):
  return write_saved_model(out, encoder_dir, whitening, **{"say": lambda line: None} | options)


def files(folder):
  return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def call(out, input_ids, input_mask):
  """What the signature gives, by name."""
  model = tf.saved_model.load(out)
  found = model.signatures["serving_default"](input_ids=tf.constant(input_ids), input_mask=tf.constant(input_mask))
  return {key: tensor.numpy() for key, tensor in found.items()}


def tokenise(out, texts):
  tokens = load_tokenizer(f"{out}/assets.extra").tokenise(texts)
  return pad_batch(tokens.input_ids, tokens.offsets, np.arange(len(texts)))


def test_it_gives_the_encoders_vectors_for_batches_of_any_size(encoder_dir, out):
  assert write(out, encoder_dir) <= 1e-6
  encoder = load_encoder(encoder_dir)
  for texts in (TEXTS, TEXTS[:1], TEXTS[1:3]):
    found = call(out, *tokenise(out, texts))
    assert found.keys() == {"vector"} and found["vector"].dtype == np.float32
    np.testing.assert_allclose(found["vector"], encoder.encode_texts(texts), rtol=0, atol=1e-5)


def test_the_signature_is_the_one_that_is_promised(encoder_dir, whitening, out):
  lines = []
  write(out, encoder_dir, whitening, say=lines.append)
  signature = tf.saved_model.load(out).signatures["serving_default"]
  inputs = signature.structured_input_signature[1]
  assert {key: (spec.dtype, spec.shape.as_list()) for key, spec in inputs.items()} == {
    "input_ids": (tf.int32, [None, None]),
    "input_mask": (tf.int32, [None, None]),
  }
  assert [tensor.shape.as_list() for tensor in signature.structured_outputs.values()] == [[None, 8]]
  (line,) = lines
  assert line.startswith(f"{out}: SavedModel, 0.1 MB; serving_default takes input_ids and input_mask (int32 [B, T], T")
  assert f"gives vector (float32 [B, 8], whitened by {whitening.fingerprint[:12]}, length 1); loaded again" in line


def test_with_a_whitening_the_vector_is_the_published_one(encoder_dir, whitening, out):
  write(out, encoder_dir, whitening)
  unit, usable = normalise(whitening.reduce(load_encoder(encoder_dir).encode_texts(TEXTS)))
  assert usable.all()
  np.testing.assert_allclose(call(out, *tokenise(out, TEXTS))["vector"], unit, rtol=0, atol=1e-5)


def test_whitening_in_the_graph_is_float64():
  # Large means that no float32 is, so that one would lose most of what is left after they are subtracted.
  generator = np.random.default_rng(3)
  whitening = Whitening(1000 + generator.normal(size=6), generator.normal(size=(6, 4)), np.empty(0), 0, "")
  raw = (whitening.mean + 1e-2 * generator.normal(size=(7, 6))).astype(np.float32)
  unit, _ = normalise(whitening.reduce(raw))
  np.testing.assert_allclose(saved_model._whiten(tf.constant(raw), whitening).numpy(), unit, rtol=0, atol=1e-7)


def test_a_vector_without_direction_is_zeros():
  raw = np.float32([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1], [1e-30, 0]])
  found = saved_model._whiten(tf.constant(raw), Whitening.none(2)).numpy()
  assert found.tolist() == np.float32([[0.6, 0.8], [0, 0], [0, 0], [0, 0], [1, 0]]).tolist()


def test_a_head_gives_its_probabilities_too(encoder_dir, whitening, tmp_path, out):
  folder = with_head(Path(encoder_dir), tmp_path / "with-head")
  spec = read_spec(str(folder))
  lines = []
  write(out, str(folder), replace(whitening, encoder_fingerprint=spec.fingerprint), say=lines.append)
  found = call(out, *tokenise(out, TEXTS))
  assert {key: array.shape for key, array in found.items()} == {"vector": (4, 8), "probabilities": (4, 3)}
  np.testing.assert_allclose(found["probabilities"], load_encoder(str(folder)).predict(TEXTS), rtol=0, atol=1e-5)
  assert "and probabilities (float32 [B, 3])" in lines[0]


def with_head(encoder_dir, folder):
  """An encoder whose graph has a softmax of its vector's first three numbers."""
  encoder = load_encoder(str(encoder_dir))
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(tf.compat.v1.GraphDef.FromString((encoder_dir / "encoder.pb").read_bytes()), name="")
    tf.nn.softmax(graph.get_tensor_by_name(f"{encoder.spec.tensors.output}:0")[:, :3], name="loss/Softmax")
    data = graph.as_graph_def().SerializeToString()
  test, logits = encoder.spec.self_test, np.array(encoder.spec.self_test.vectors)[:, :3]
  probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  spec = replace(
    encoder.spec,
    head=Head("softmax", ("a", "b", "c")),
    tensors=replace(encoder.spec.tensors, probabilities="loss/Softmax"),
    graph_sha256=sha256(data),
    self_test=replace(test, probabilities=tuple(map(tuple, probabilities.tolist()))),
  ).with_fingerprint()
  folder.mkdir()
  (folder / "encoder.pb").write_bytes(data)
  (folder / "encoder.json").write_text(spec.to_json())
  (folder / "vocab.txt").write_bytes((encoder_dir / "vocab.txt").read_bytes())
  return folder


def test_a_client_finds_what_it_needs_beside_the_model(encoder_dir, whitening, out):
  write(out, encoder_dir, whitening)
  assert files(out) == OURS
  tokens, expected = load_tokenizer(f"{out}/assets.extra").tokenise(TEXTS), load_tokenizer(encoder_dir).tokenise(TEXTS)
  assert tokens.input_ids.tolist() == expected.input_ids.tolist()
  serving = json.loads(Path(out, "assets.extra/serving.json").read_text())
  assert serving["format_version"] == 1
  assert serving["encoder_fingerprint"] == read_spec(encoder_dir).fingerprint
  assert serving["whitening_fingerprint"] == whitening.fingerprint
  # The example to hold a server to: padded, and with what has to come.
  inputs = {key: np.array(rows, np.int32) for key, rows in serving["inputs"].items()}
  assert len({tuple(row) for row in inputs["input_mask"].tolist()}) > 1
  np.testing.assert_allclose(call(out, **inputs)["vector"], serving["outputs"]["vector"], rtol=0, atol=1e-5)


def test_a_folder_that_is_no_version_is_noted(encoder_dir, tmp_path):
  lines = []
  write(str(tmp_path / "model"), encoder_dir, say=lines.append)
  assert lines[1] == f"note: TensorFlow Serving wants a number as the folder's name, such as {tmp_path}/model/1"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"encoder_fingerprint": "ef" * 32}, "^--whitening: fitted on vectors of encoder efefefefefefefef, .* is encoder "),
    ({"mean": np.zeros(5), "kernel": np.eye(5)}, "^--whitening: for vectors of width 5, the encoder's have 32; "),
  ],
)
def test_a_whitening_of_another_encoder_is_refused(encoder_dir, whitening, out, changes, message):
  with pytest.raises(UsageError, match=message):
    write(out, encoder_dir, replace(whitening, **changes))
  assert not Path(out).parent.exists()


def test_a_whitening_that_does_not_say_its_encoder_is_taken_if_it_fits(encoder_dir, whitening, out):
  write(out, encoder_dir, replace(whitening, encoder_fingerprint=""))
  assert files(out) == OURS


def test_where_a_saved_model_cannot_go(encoder_dir, tmp_path):
  (tmp_path / "file").write_text("")
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "notes").write_text("")
  for out, overwrite, message in [
    ("s3://bucket/1", False, "give a local folder, then copy that$"),
    (encoder_dir, True, "is not apart from the encoder's folder"),
    (f"{encoder_dir}/1", False, "is not apart from the encoder's folder"),
    (str(Path(encoder_dir).parent), False, "is not apart from the encoder's folder"),
    (f"{tmp_path}/file", True, "is a file; give a folder that is new or empty$"),
    (f"{tmp_path}/full", False, "holds something already; give a new folder, or --overwrite$"),
    (f"{tmp_path}/full", True, "holds notes, which Sorbus did not write and which would be lost"),
    (f"{tmp_path}/file/1", False, "/file cannot be written; give a folder where you may write$"),
  ]:
    with pytest.raises(UsageError, match=rf"^--saved-model {out}: .*{message}"):
      check_target(out, encoder_dir, overwrite)
  assert check_target(f"{tmp_path}/new/1", encoder_dir) == tmp_path / "new" / "1"


def test_a_folder_where_one_may_not_write_is_refused(encoder_dir, tmp_path):
  if os.geteuid() == 0:
    pytest.skip("needs a user who may not write everywhere; this is root")
  tmp_path.chmod(0o500)
  with pytest.raises(EncoderError, match=f"{tmp_path} cannot be written; give a folder where you may write"):
    check_target(f"{tmp_path}/1", encoder_dir)


def test_overwrite_replaces_one_of_ours_and_nothing_that_a_person_added(encoder_dir, whitening, out):
  Path(out).mkdir(parents=True)  # an empty folder is as good as none
  write(out, encoder_dir)
  with pytest.raises(UsageError, match="holds something already"):
    write(out, encoder_dir, whitening)
  write(out, encoder_dir, whitening, overwrite=True)
  assert call(out, *tokenise(out, TEXTS))["vector"].shape == (4, 8)
  Path(out, "assets.extra", "tf_serving_warmup_requests").write_text("")
  with pytest.raises(UsageError, match=r"holds assets\.extra/tf_serving_warmup_requests, which Sorbus did not write"):
    write(out, encoder_dir, overwrite=True)
  Path(out, "saved_model.pb").unlink()
  Path(out, "assets.extra", "tf_serving_warmup_requests").unlink()
  with pytest.raises(UsageError, match="holds something that is no SavedModel"):
    write(out, encoder_dir, overwrite=True)


@pytest.mark.parametrize("stands", [False, True])
@pytest.mark.parametrize("failure", ["wrong vectors", "interrupt", "full disk", "too large"])
def test_nothing_half_written_remains_after_a_failure(encoder_dir, whitening, out, monkeypatch, stands, failure):
  if stands:
    write(out, encoder_dir)
  before = {name: Path(out, name).read_bytes() for name in files(out)}

  def fail(error):
    def raise_error(*_):
      raise error

    return raise_error

  whiten = saved_model._whiten
  name, broken, expected, message = {
    "wrong vectors": ("_whiten", lambda *a: whiten(*a) + 2e-5, EncoderError, "^--saved-model: vector is off by 2e-05"),
    "interrupt": ("_check", fail(KeyboardInterrupt), KeyboardInterrupt, None),
    "full disk": ("_add_extra", fail(OSError(28, "No space left on device")), EncoderError, "No space left on device"),
    "too large": ("MAX_GRAPH_BYTES", 1 << 20, EncoderError, "GB do not fit a SavedModel of 2 GB; choose a smaller"),
  }[failure]
  monkeypatch.setattr(saved_model, name, broken)
  with pytest.raises(expected, match=message):
    write(out, encoder_dir, whitening, overwrite=True)
  assert {name: Path(out, name).read_bytes() for name in files(out)} == before
  parent = Path(out).parent
  assert [path.name for path in parent.iterdir()] == ["1"] * stands


def test_a_run_in_bfloat16_is_served_so(encoder_dir, whitening, out):
  fingerprint, said = read_spec(encoder_dir).at("bfloat16").fingerprint, []
  write(out, encoder_dir, replace(whitening, encoder_fingerprint=fingerprint), say=said.append)
  assert "--mixed_precision=bfloat16" in said[1]
  serving = json.loads((Path(out) / "assets.extra/serving.json").read_text())
  assert serving["encoder_fingerprint"] == fingerprint


def test_the_pooler_of_a_run_in_bfloat16_is_rounded_behind_a_whitening_as_it_was_without(tmp_path, out):
  checkpoint = write_hugging_face_folder(tmp_path / "checkpoint")
  freeze(str(checkpoint), str(tmp_path / "encoder"), FreezeOptions(pooling="pooler"), lambda line: None)
  spec = read_spec(str(tmp_path / "encoder")).at("bfloat16")
  whitening = Whitening(np.zeros(32), np.random.default_rng(5).normal(size=(32, 8)), np.empty(0), 0, spec.fingerprint)
  assert write(out, str(tmp_path / "encoder"), whitening) < 1e-6
