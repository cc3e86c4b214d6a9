from pathlib import Path

import pytest

from pipeline.model.config_values import GOOGLE_ACTIVATIONS, HUGGING_FACE_ACTIVATIONS
from pipeline.model.xlnet_config import config_notes, make_config
from transforms.encoder_spec import XlnetConfig
from transforms.errors import EncoderError

BASE = {"d_head": 64, "d_inner": 3072, "d_model": 768, "ff_activation": "gelu", "n_head": 12, "n_layer": 12}
GOOGLE = BASE | {"n_token": 32000, "untie_r": True}
HUGGING_FACE = BASE | {"vocab_size": 32000, "model_type": "xlnet", "attn_type": "bi", "clamp_len": -1}


def made(value, names=GOOGLE_ACTIVATIONS, activation=None):
  return make_config(Path("c.json"), value, names, activation)


def test_xlnet_base_as_google_states_it():
  assert made(GOOGLE) == XlnetConfig(
    vocab_size=32000,
    hidden_size=768,
    layers=12,
    heads=12,
    head_size=64,
    intermediate_size=3072,
    activation="gelu_tanh",
    untie_r=True,
    clamp_len=-1,
    layer_norm_eps=1e-12,
  )


def test_hugging_face_means_another_gelu_and_may_name_the_vocabulary_as_google_does():
  assert made(HUGGING_FACE, HUGGING_FACE_ACTIVATIONS).activation == "gelu_erf"
  assert made(HUGGING_FACE | {"ff_activation": "gelu_new"}, HUGGING_FACE_ACTIVATIONS).activation == "gelu_tanh"
  assert made(HUGGING_FACE, HUGGING_FACE_ACTIVATIONS, "tanh").activation == "tanh"
  old = {name: value for name, value in HUGGING_FACE.items() if name != "vocab_size"} | {"n_token": 32000}
  assert made(old) == made(HUGGING_FACE)


def test_the_size_of_a_head_is_the_hidden_size_s_share_unless_it_is_stated():
  without = {name: value for name, value in GOOGLE.items() if name != "d_head"}
  assert made(without).head_size == 64 and made(GOOGLE | {"d_head": 10}).head_size == 10
  assert made(GOOGLE | {"clamp_len": 20, "untie_r": False}).clamp_len == 20


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"attn_type": "uni"}, "attn_type is 'uni'; only 'bi' can be frozen, with which a token sees those before and"),
    ({"attn_type": None}, "attn_type is None; only 'bi' can be frozen"),
    ({"model_type": "albert"}, "model_type is 'albert'; only BERT and XLNet can be frozen"),
    ({"n_layer": None}, "n_layer is None, not a whole number from 1 to 1000; is this the configuration of an XLNet"),
    ({"n_layer": 10**8}, "n_layer is 100000000, not a whole number from 1 to 1000; is this"),
    ({"d_model": 765}, r"d_model 765 is no multiple of 2 and of 12 attention heads \(n_head\)"),
    ({"ff_activation": "swish"}, "ff_activation 'swish' is not supported; choose one of gelu_tanh, gelu_erf"),
    ({"ff_activation": ["gelu"]}, r"ff_activation \['gelu'\] is not supported; choose one of gelu_tanh, gelu_erf"),
    ({"untie_r": "false"}, "untie_r is 'false'; write true or false, without quotation marks"),
    ({"clamp_len": "5"}, "clamp_len is '5', not a whole number of 32 bits; -1 is for none"),
    ({"clamp_len": 10**400}, "clamp_len is 10000000000000000000, not a whole number of 32 bits"),
    ({"layer_norm_eps": 0}, "layer_norm_eps 0 is not between 0 and 1"),
  ],
)
def test_a_configuration_that_cannot_be(changes, message):
  with pytest.raises(EncoderError, match=f"c.json: {message}"):
    made(GOOGLE | changes)


def test_settings_that_play_no_part_are_told():
  assert config_notes(GOOGLE | {"mem_len": None, "bi_data": False, "reuse_len": 0}) == ()
  assert config_notes(GOOGLE | {"mem_len": 384, "same_length": True}) == (
    "mem_len 384, same_length True: play no part, for a text is encoded alone and without memory",
  )
