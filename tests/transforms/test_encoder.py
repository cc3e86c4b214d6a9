import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from fsspec.registry import known_implementations

from pipeline.model.freeze import FreezeOptions, freeze
from tests.damage import flip
from tests.fake_encoder import make_spec
from tests.tiny_bert import write_google_checkpoint
from tests.tiny_sentence_piece import XLNET, tiny_bytes, tiny_model
from transforms.encoder import check_encoder, load_encoder, load_tokenizer, read_spec, read_vocabulary
from transforms.encoder_spec import Head, vocabulary_file
from transforms.errors import EncoderError
from transforms.long_texts import TRUNCATED, LongTexts
from transforms.storage import sha256

TEXTS = ["the rain and the sun", "a", "it was not a tree, but she had it", "白面子", "sun " * 40, "of it"]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
  folder = tmp_path_factory.mktemp("encoder")
  freeze(
    str(write_google_checkpoint(folder / "checkpoint")), str(folder / "encoder"), FreezeOptions(), lambda line: None
  )
  return folder / "encoder"


@pytest.fixture
def copy(frozen, tmp_path):
  """A copy of the encoder that a test may break."""
  for path in frozen.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  return tmp_path


def edit(folder, **changes):
  """Changes fields of `encoder.json`; a dict changes fields within one."""
  path = folder / "encoder.json"
  value = json.loads(path.read_text())
  for name, change in changes.items():
    value[name] = value[name] | change if isinstance(change, dict) else change
  path.write_text(json.dumps(value))


def test_spec_survives_its_json(frozen):
  spec = read_spec(str(frozen))
  assert json.loads(spec.to_json()) == json.loads((frozen / "encoder.json").read_text())
  assert (spec.vector_size, spec.layers, spec.pooling, spec.max_seq_length) == (32, (1,), "mean", 64)
  assert len(read_vocabulary(str(frozen), spec)) == spec.config.vocab_size
  assert load_tokenizer(str(frozen)).vocab_size == spec.config.vocab_size


@pytest.fixture
def xlnets(frozen, tmp_path):
  """What of an XLNet's folder a tokenizer is loaded from."""
  spec = read_spec(str(frozen))
  config, vocab = replace(spec.config, vocab_size=len(tiny_model())), sha256(tiny_bytes())
  spec = replace(spec, config=config, tokenizer=XLNET, vocab_sha256=vocab).with_fingerprint()
  (tmp_path / "encoder.json").write_text(spec.to_json())
  (tmp_path / "spiece.model").write_bytes(tiny_bytes())
  return tmp_path


def test_an_xlnets_folder_has_a_sentencepiece_model_for_its_vocabulary(frozen, xlnets):
  spec = read_spec(str(xlnets))
  assert spec.tokenizer == XLNET and spec.fingerprint != read_spec(str(frozen)).fingerprint
  assert [vocabulary_file(read_spec(str(folder)).tokenizer) for folder in (xlnets, frozen)] == [
    "spiece.model",
    "vocab.txt",
  ]
  tokenizer = load_tokenizer(str(xlnets))
  assert (tokenizer.before, tokenizer.after, tokenizer.max_seq_length) == ((), (4, 3), 64)
  assert list(read_vocabulary(str(xlnets), spec)) == list(tiny_model().pieces)


def test_a_sentencepiece_model_that_was_changed_is_refused_by_name(xlnets):
  flip(xlnets / "spiece.model")
  with pytest.raises(EncoderError, match=r"spiece\.model: sha256 .* it was changed: freeze again"):
    load_tokenizer(str(xlnets))


def test_an_encoder_is_read_by_url(frozen):
  assert read_spec(f"file://{frozen}") == read_spec(str(frozen))
  assert load_encoder(f"file://{frozen}").encode_texts(["a"]).shape == (1, 32)


def test_spec_and_tokenizer_need_no_tensorflow(frozen):
  program = (
    "import sys, transforms.encoder as e;"
    f"e.load_tokenizer({str(frozen)!r}).tokenise(['a']);"
    "sys.exit('tensorflow' in sys.modules)"
  )
  subprocess.run([sys.executable, "-c", program], check=True)


def test_vectors_do_not_depend_on_batch_mates_or_order(frozen):
  encoder = load_encoder(str(frozen))
  alone = np.vstack([encoder.encode_texts([text]) for text in TEXTS])
  assert alone.dtype == np.float32 and np.linalg.norm(alone[0] - alone[1]) > 0.1
  for order in [range(6), [5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 5, 3]]:
    for budget in (1, 70, 2048):
      together = encoder.encode_texts([TEXTS[i] for i in order], budget)
      np.testing.assert_allclose(together, alone[list(order)], atol=5e-6)


def test_bfloat16_gives_the_same_vectors_whatever_the_batch(frozen):
  encoder, atol = load_encoder(str(frozen), precision="bfloat16"), 0.05
  expected = load_encoder(str(frozen)).encode_texts(TEXTS)
  alone = np.vstack([encoder.encode_texts([text]) for text in TEXTS])
  assert alone.dtype == np.float32
  np.testing.assert_allclose(alone, expected, atol=atol)
  for order in [range(6), [5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 5, 3]]:
    for budget in (70, 2048):
      together = encoder.encode_texts([TEXTS[i] for i in order], budget)
      np.testing.assert_allclose(together, alone[list(order)], atol=atol)
  assert encoder.encode_spans("the rain and the sun", [(4, 8)]).vectors.shape == (1, 32)


def test_no_texts_give_no_vectors(frozen):
  assert load_encoder(str(frozen), threads=1).encode_texts([]).shape == (0, 32)


def test_one_text_is_not_taken_for_many(frozen):
  with pytest.raises(ValueError, match=r"^texts: expected several, got 'rain'; one text is \[text\]$"):
    load_encoder(str(frozen)).encode_texts("rain")


def test_a_text_without_tokens_is_named(frozen):
  with pytest.raises(ValueError, match=r"text 1 \(' \\n'\) has no token"):
    load_encoder(str(frozen)).encode_texts(["a", " \n"])


def test_what_a_run_does_with_long_texts_is_told_by_the_fingerprint_where_vectors_are_others(frozen):
  spec = read_spec(str(frozen))
  assert "long_texts" not in spec.to_json()
  asked = [(mode, stride) for mode in ("head-tail", "windows") for stride in (None, 20)]
  found = [spec.with_long_texts(LongTexts.asked(*each, spec.max_seq_length)) for each in asked]
  assert len({other.fingerprint for other in [spec, *found]}) == 4  # of head-tail there is one
  assert all(other.with_long_texts(TRUNCATED) == spec for other in found)
  assert all(other.at("bfloat16").at("float32") == other for other in found)
  for mode in ("truncate", "chunks"):
    assert spec.with_long_texts(LongTexts.asked(mode, None, spec.max_seq_length)) == spec


def test_texts_by_windows_are_the_mean_of_their_windows(frozen):
  plain, whole = load_encoder(str(frozen)), LongTexts.asked("windows", None, read_spec(str(frozen)).max_seq_length)
  encoder = load_encoder(str(frozen), long_texts=replace(whole, stride=whole.room))
  first, second = "rain " * whole.room, "sun tree " * 3  # a word is a token
  found = encoder.encode_texts([first + second, "rain", first])
  alone = plain.encode_texts([first, second, "rain"]).astype(np.float64)
  expected = (whole.room * alone[0] + 6 * alone[1]) / (whole.room + 6)
  np.testing.assert_allclose(found, [expected, alone[2], alone[0]], atol=1e-6)


def test_the_precision_is_told_by_the_fingerprint(frozen):
  spec = read_spec(str(frozen))
  assert spec.at("float32") == spec
  variants = spec.variants()
  assert len(variants) == 2 and variants[spec.fingerprint] == spec
  assert all(other.variants() == variants for other in variants.values())
  with pytest.raises(ValueError, match="precision 'float16': choose float32 or bfloat16"):
    load_encoder(str(frozen), precision="float16")


def test_fingerprints_are_what_they_have_always_been():
  # Of raw vectors that are stored out there: with another, every corpus would be encoded anew.
  assert make_spec(("a", "b"), 4, 8).fingerprint == "2581332b25e9e119bf17408ee6f2e0c60ec111165e90918a20e33339d39a6b76"


def test_the_fingerprint_is_over_what_decides_the_vectors_and_nothing_else(frozen):
  spec = read_spec(str(frozen))

  def changed(**fields):
    return replace(spec, **fields).with_fingerprint().fingerprint != spec.fingerprint

  config, tokenizer = spec.config, spec.tokenizer
  assert changed(weights_sha256="x") and changed(vocab_sha256="x") and changed(layers=(2,)) and changed(pooling="cls")
  assert changed(combine="sum") and changed(exclude_special_tokens=True)
  assert changed(max_seq_length=63) and changed(precision="x") and changed(numerics_version=2)
  assert changed(config=replace(config, activation="gelu_erf")) and changed(config=replace(config, layer_norm_eps=1e-5))
  assert changed(tokenizer=replace(tokenizer, lowercase=False))
  assert not changed(graph_sha256="x", versions={}, source=replace(spec.source, name="x"), for_cosine=True)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"FORMAT_VERSION": 2}, "format version 2, this sorbus reads 1"),
    ({"pooling": "cls"}, "says fingerprint .*, its contents give .*edited by hand"),
    ({"tokenizer": {"lowercase": False}}, "edited by hand"),
    ({"max_seq_length": "64"}, r"encoder.json.max_seq_length: '64' is not int"),
    ({"max_seq_length": True}, r"encoder.json.max_seq_length: 'True' is not int"),
    ({"tokenizer": {"stemming": True}}, r"encoder.json.tokenizer: unknown stemming"),
    ({"layers": [1, "2"]}, r"encoder.json.layers\[1\]: '2' is not int"),
    ({"self_test": {"vectors": [[1.0]]}}, "self_test.vectors need 32 numbers for each case"),
    # What no fingerprint is over: where the tokens' vectors are read, what the self-test allows, the default whitening.
    ({"tensors": {"hidden": "GatherV2"}}, "encoder.json: its contents are not those that were frozen.*edited by hand"),
    ({"self_test": {"tolerance": 1e9}}, "edited by hand"),
    ({"for_cosine": True}, "edited by hand"),
    ({"engine": "another"}, "edited by hand"),
    ({"spec_sha256": None}, "encoder.json: has no spec_sha256; run"),
    ({"self_test": {"tolerance": float("nan")}}, r"encoder.json: not JSON \(Out of range"),
  ],
)
def test_an_edited_spec_is_refused(copy, changes, message):
  edit(copy, **changes)
  with pytest.raises(EncoderError, match=message):
    read_spec(str(copy))


def test_probabilities_of_many_labels_are_held_to_their_size(frozen):
  encoder = load_encoder(str(frozen))
  spec, rows = encoder.spec, ((1e-5, 3e-5),) * len(encoder.spec.self_test.cases)
  spec = replace(spec, head=Head("sigmoid", ("a", "b")), self_test=replace(spec.self_test, probabilities=rows))

  def predicting(*row):
    return replace(encoder, spec=spec, run_head=lambda ids, mask: (encoder.run(ids, mask), np.tile(row, (len(ids), 1))))

  check_encoder(predicting(1.0001e-5, 3e-5))
  with pytest.raises(EncoderError, match="self-test off by 2e-05 in probabilities, more than 3e-07"):
    check_encoder(predicting(3e-5, 1e-5))


@pytest.mark.parametrize("length", [2, 65])
def test_a_length_that_the_model_has_no_positions_for_is_refused_whatever_the_fingerprint(copy, length):
  spec = replace(read_spec(str(copy)), max_seq_length=length).with_fingerprint()
  (copy / "encoder.json").write_text(spec.to_json())
  with pytest.raises(EncoderError, match=f"encoder.json: max_seq_length {length}, but .* the model has 64 positions"):
    load_encoder(str(copy))


def test_a_missing_field_or_file_is_named(copy):
  value = json.loads((copy / "encoder.json").read_text())
  del value["pooling"]
  (copy / "encoder.json").write_text(json.dumps(value))
  with pytest.raises(EncoderError, match="has no pooling"):
    read_spec(str(copy))
  for text in ("{", "[" * 100_000):
    (copy / "encoder.json").write_text(text)
    with pytest.raises(EncoderError, match="not JSON"):
      read_spec(str(copy))
  (copy / "encoder.json").unlink()
  with pytest.raises(EncoderError, match=r"encoder.json: not there; an encoder folder is what"):
    read_spec(str(copy))


def test_a_file_that_cannot_be_read_is_told_in_one_line(tmp_path, monkeypatch):
  (tmp_path / "encoder.json").mkdir()
  with pytest.raises(EncoderError, match=r"encoder.json: cannot be read \(Is a directory\); an encoder folder is what"):
    read_spec(str(tmp_path))
  with pytest.raises(EncoderError, match=r"^s4://b/encoder.json: cannot be opened \(Protocol not known: s4\); is"):
    read_spec("s4://b")
  missing = {"class": "no_such_package.FileSystem", "err": "Install no_such_package\nto use absent://"}
  monkeypatch.setitem(known_implementations, "absent", missing)
  with pytest.raises(
    EncoderError, match=r"^absent://b/encoder.json: cannot be opened: .* \(Install no_such_package to use"
  ):
    read_spec("absent://b")


@pytest.mark.parametrize("name", ["encoder.pb", "vocab.txt"])
def test_a_changed_file_is_refused_by_name(copy, name):
  flip(copy / name)
  with pytest.raises(EncoderError, match=f"{name}: sha256 .* was changed"):
    load_encoder(str(copy))


def test_the_self_test_stops_an_encoder_that_is_off(frozen):
  encoder = load_encoder(str(frozen))
  assert check_encoder(encoder) < encoder.spec.self_test.tolerance / 10
  off = replace(encoder, run=lambda ids, mask: encoder.encode(ids, mask) + np.float32(0.01))
  with pytest.raises(EncoderError, match=r"self-test off by 0.01 in vectors, more than"):
    check_encoder(off)
  nan = replace(encoder, run=lambda ids, mask: encoder.encode(ids, mask) * np.float32("nan"))
  with pytest.raises(EncoderError, match="self-test off by nan"):
    check_encoder(nan)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_self_test_notices_that_padding_weighs(frozen, precision):
  encoder = load_encoder(str(frozen), precision=precision)
  blind = replace(encoder, run=lambda ids, mask: encoder.encode(ids, np.ones_like(mask)))
  with pytest.raises(EncoderError, match="self-test off by"):
    check_encoder(blind)
