import re

import pytest

from pipeline.model.architecture import ARCHITECTURES, BERT, XLNET, architecture_of, architecture_of_variables
from pipeline.model.config_values import GOOGLE_ACTIVATIONS
from tests import tiny_bert, tiny_xlnet
from tests.tiny_sentence_piece import tiny_model
from transforms.encoder_spec import make_tokenizer
from transforms.tokenizer import N_SPECIAL

V = len(tiny_bert.VOCABULARY)
MADE = {
  "BERT": (
    tiny_bert.bert_config(hidden_size=32, layers=2, heads=2),
    tiny_bert.random_variables(hidden_size=32, layers=2, seed=0),
  ),
  "XLNet": (
    tiny_xlnet.xlnet_config(vocab_size=V, untie_r=False),
    tiny_xlnet.random_variables(tiny_xlnet.xlnet_config(vocab_size=V, untie_r=False)),
  ),
}


@pytest.mark.parametrize("model", ARCHITECTURES, ids=lambda model: model.name)
def test_one_is_known_by_its_sizes_and_by_its_variables(model, tmp_path):
  stated, variables = MADE[model.name]
  config = model.make_config(tmp_path, stated, GOOGLE_ACTIVATIONS, None)
  shapes = {name: value.shape for name, value in variables.items()}
  assert architecture_of(config) is model and architecture_of_variables(shapes) is model
  assert architecture_of_variables({"conv1/kernel": (3,)}) is None


@pytest.mark.parametrize("model", ARCHITECTURES, ids=lambda model: model.name)
def test_what_is_needed_is_there_and_useful_and_counted(model, tmp_path):
  stated, variables = MADE[model.name]
  config = model.make_config(tmp_path, stated, GOOGLE_ACTIVATIONS, None)
  shapes = {name: value.shape for name, value in variables.items()}
  needed = model.needed_shapes(config, 2, True)
  assert needed.items() <= shapes.items() and needed.keys() <= set(model.useful_names(config))
  assert all(model.useful_variable.match(name) for name in model.useful_names(config))
  assert model.needed_shapes(config, 1, False).items() < needed.items()
  assert model.count_layers(shapes) == 2 and model.word_embeddings in needed


@pytest.mark.parametrize(("model", "vocabulary"), [(BERT, tuple(tiny_bert.VOCABULARY)), (XLNET, tiny_model())])
def test_special_tokens_are_as_many_as_the_tokenizer_puts_there(model, vocabulary):
  tokenizer = make_tokenizer(vocabulary, model.tokenizer_files.default_settings(vocabulary), 3)
  assert (len(tokenizer.before), len(tokenizer.after)) == (model.framing.before, model.framing.after)
  assert model.framing.before + model.framing.after == N_SPECIAL


def test_each_has_the_names_of_files_and_types_to_itself():
  for name in ("name", "model_type", "config_class", "config_file", "word_embeddings"):
    assert getattr(BERT, name) != getattr(XLNET, name)
  assert set(XLNET.poolings) == set(BERT.poolings) - {"pooler"} and "fused" not in XLNET.combines
  assert [re.sub(r"^an? ", "", model.a_name) for model in ARCHITECTURES] == [model.name for model in ARCHITECTURES]
