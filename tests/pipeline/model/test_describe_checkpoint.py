import json

import pytest

from pipeline.model.describe_checkpoint import describe_checkpoint, purpose
from pipeline.model.read_checkpoint import list_checkpoint
from tests.tiny_bert import (
  VOCABULARY,
  write_google_checkpoint,
  write_hugging_face_folder,
  write_sentence_transformers_folder,
)
from transforms.text_sample import Sample

CHECKPOINTS = "checkpoints"
ALL_POOLINGS = ["pooler", "cls", "mean", "max", "mean-max", "last"]


def describe(folder, sample=None, **options):
  description = describe_checkpoint(list_checkpoint(str(folder), **options), sample and Sample(str(sample)))
  return json.loads(json.dumps(description))  # plain values, as `--json` prints them


@pytest.mark.parametrize(
  ("name", "what"),
  [
    ("bert/pooler/dense/kernel/adam_m", "optimizer"),
    ("cls/predictions/output_bias/AdamWeightDecayOptimizer_1", "optimizer"),
    ("output_weights/Adam_1", "optimizer"),
    ("beta1_power", "optimizer"),
    ("global_step", "training state"),
    ("cls.predictions.bias", "pre-training heads"),
    ("cls/seq_relationship/output_weights", "pre-training heads"),
    ("output_bias", "classifier"),
    ("classifier.weight", "classifier"),
    ("layer_logit3/kernel", "learned mix of layers"),
    ("bert.embeddings.position_ids", "position numbers"),
    ("bert/encoder/layer_12/output/dense/bias", "other"),
    ("crf/transitions", "other"),
  ],
)
def test_what_a_variable_is_for(name, what):
  assert purpose(name) == what


def test_a_checkpoint_with_all_that_training_leaves(tmp_path):
  found = describe(write_google_checkpoint(tmp_path / "c", adam=True, classifier=True, mix=True))
  assert found["kind"] == "google" and found["can_be_frozen"] and not found["problems"] + found["warnings"]
  assert (found["model"]["layers"], found["model"]["hidden_size"], found["model"]["activation"]) == (2, 32, "gelu_tanh")
  variables = found["variables"]
  assert variables["used"] == 39 + 4 + 2 and variables["missing"] == []
  assert {what: group["count"] for what, group in variables["unused"].items()} == {
    "optimizer": 2 * 39,
    "training state": 1,
    "pre-training heads": 1,
  }
  assert variables["unused"]["pre-training heads"]["names"] == ["cls/predictions/output_bias"]
  assert found["freezes_to"] == {
    "layers": [0, 2],
    "poolings": ALL_POOLINGS,
    "combines": ["average", "sum", "concat", "fused"],
    "labels": ["0", "1", "2"],
    "mix_variables": 4,
    "not": {},
  }
  assert found["tokenizer"]["lowercase"] and found["tokenizer"]["casing_is"] == "guessed"
  assert (found["defaults"]["pooling"], found["defaults"]["layers"]) == ("pooler", [2])
  assert found["defaults"]["max_seq_length"] == 64 and found["sample"] is None


def test_numbers_are_those_of_the_weights(tmp_path):
  listing = list_checkpoint(str(write_google_checkpoint(tmp_path / "c", mix=True)))
  numbers = sum(value.size for value in listing.load().variables.values())
  assert describe_checkpoint(listing)["variables"]["numbers"] == numbers


def test_why_not_is_what_freezing_would_say(tmp_path):
  from safetensors.numpy import load_file, save_file

  folder = write_hugging_face_folder(tmp_path / "h")
  path = folder / "model.safetensors"
  save_file({name: value for name, value in load_file(path).items() if "pooler" not in name}, path)
  found = describe(folder)
  assert found["can_be_frozen"] and found["freezes_to"]["poolings"] == ALL_POOLINGS[1:]
  assert found["freezes_to"]["not"] == {
    "pooler": "has no bert/pooler/dense/bias, bert/pooler/dense/kernel",
    "fused": "is no Google checkpoint, and only those have a learned mix of layers",
    "head": "has no classifier.weight, classifier.bias, so it was not trained as a classifier of sentences",
  }
  assert found["variables"]["missing"] == ["bert/pooler/dense/kernel", "bert/pooler/dense/bias"]
  google = describe(write_google_checkpoint(tmp_path / "g"))
  assert google["freezes_to"]["not"]["fused"].startswith("has no layer_logit0/kernel, ")


def test_a_head_on_tokens_is_none_on_the_sentence(tmp_path):
  folder = write_hugging_face_folder(tmp_path / "h", classifier=True)
  config = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertForTokenClassification"]}
  (folder / "config.json").write_text(json.dumps(config))
  found = describe(folder)["freezes_to"]
  assert found["labels"] is None and found["not"]["head"].startswith("is a classifier of tokens by its config.json")


def test_what_a_sentence_transformers_folder_states(tmp_path):
  found = describe(write_sentence_transformers_folder(tmp_path / "s", pooling="cls", max_seq_length=99))
  assert found["stated"] == {"pooling": "cls", "layers": [2], "max_seq_length": 64, "for_cosine": True}
  assert found["defaults"]["pooling"] == "cls" and found["defaults"]["max_seq_length"] == 64
  assert found["notes"] == ["the folder states max_seq_length 99, but the model has 64 positions: texts are cut at 64"]


def test_the_chinese_classifier_is_described_by_its_index(shared_data):
  found = describe(shared_data / CHECKPOINTS / "chinese_classifier_index_only")
  assert not found["can_be_frozen"]
  [problem] = found["problems"]
  assert "bert_model.ckpt.data-00000-of-00001: not there" in problem
  assert {what: group["count"] for what, group in found["variables"]["unused"].items()} == {
    "optimizer": 402,
    "training state": 1,
  }
  assert (found["variables"]["used"], found["variables"]["numbers"]) == (201, 102_267_648 + 8 * 769)
  assert found["freezes_to"]["labels"] == list("01234567") and found["freezes_to"]["layers"] == [0, 12]
  assert found["vocabulary"]["casings"][0] == {
    "lowercase": True,
    "strip_accents": True,
    "n_tokens": 21128,
    "unused": 0,
    "unknown": 0.0,
    "in_pieces": 0.0,
    "fits": True,
  }


def test_without_a_configuration_the_weights_say_the_sizes(tmp_path):
  folder = write_google_checkpoint(tmp_path / "c", adam=True, classifier=True, mix=True)
  (folder / "bert_config.json").unlink()
  found = describe(folder)
  assert found["model"] is found["freezes_to"] is found["defaults"] is None
  sizes = {"layers": 2, "hidden_size": 32, "vocab_size": len(VOCABULARY), "max_position_embeddings": 64}
  assert found["weights"] == sizes and found["variables"]["used"] == 39 + 4 + 2
  assert found["variables"]["unused"].keys() == {"optimizer", "training state", "pre-training heads"}
  assert len(found["problems"]) == 1 and "give --bert-config" in found["problems"][0]


def test_weights_that_are_not_there_leave_the_rest(tmp_path):
  folder = write_sentence_transformers_folder(tmp_path / "s")
  (folder / "model.safetensors").unlink()
  (folder / "modules.json").write_text("{}")
  found = describe(folder)
  assert found["variables"] is found["weights"] is found["freezes_to"] is None
  assert found["model"]["layers"] == 2 and found["vocabulary"]["tokens"] == len(VOCABULARY)
  assert ["modules.json" in problem or "safetensors" in problem for problem in found["problems"]] == [True, True]


@pytest.mark.parametrize("lines", [slice(None, -1), slice(1, None)])
def test_a_vocabulary_that_does_not_fit_is_a_problem_named(tmp_path, lines):
  folder = write_google_checkpoint(tmp_path / "c")
  (folder / "vocab.txt").write_text("\n".join(VOCABULARY[lines]) + "\n", encoding="utf-8")
  found = describe(folder)
  words = "tokens, but the embedding table has" if lines.start is None else "has no [PAD] among"
  assert len(found["problems"]) == 1 and words in found["problems"][0] and not found["can_be_frozen"]


def test_a_sample_under_both_casings(tmp_path):
  folder = write_google_checkpoint(tmp_path / "c")
  sample = tmp_path / "texts.txt"
  sample.write_text("The rain\nand the sun\n" + "a " * 70 + "\n")
  found = describe(folder, sample)["sample"]
  assert (found["file"], found["texts"], found["max_seq_length"]) == (str(sample), 3, 64)
  counts = {"texts": 3, "tokens": 2 + 3 + 62, "truncated": 1, "empty": 0}
  assert found["casings"] == [
    {"lowercase": True, "strip_accents": True, "unknown": 0} | counts,
    {"lowercase": False, "strip_accents": False, "unknown": 1} | counts,
  ]


def test_a_sample_that_cannot_be_read_leaves_the_rest(tmp_path):
  (tmp_path / "texts.csv").write_text("body\nThe rain\n")
  found = describe(write_google_checkpoint(tmp_path / "c"), tmp_path / "texts.csv")
  assert found["sample"]["file"] == str(tmp_path / "texts.csv") and "has no column 'text'" in found["sample"]["problem"]
  assert found["can_be_frozen"] and not found["problems"]  # it is none of the checkpoint's


def test_a_casing_that_does_not_fit_is_warned_of(tmp_path):
  folder = write_hugging_face_folder(tmp_path / "h")
  (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  [warning] = describe(folder)["warnings"]
  assert warning.startswith("texts are not lower-cased, but then 100.0%")
