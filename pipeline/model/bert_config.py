"""`bert_config.json` and `config.json` as a BertConfig, with the activation resolved by whose file it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.model.config_values import Values
from transforms.encoder_spec import BertConfig
from transforms.errors import EncoderError

_SIZES = {
  "vocab_size": "vocab_size",
  "hidden_size": "hidden_size",
  "num_hidden_layers": "layers",
  "num_attention_heads": "heads",
  "intermediate_size": "intermediate_size",
  "max_position_embeddings": "max_position_embeddings",
}


def make_config(path: Path, value: Mapping[str, Any], names: Mapping[str, str], activation: str | None) -> BertConfig:
  """Checks the configuration in `path`, parsed as `value`.

  Args:
    path: for messages.
    value: the file's object.
    names: what its `hidden_act` means, in terms of ACTIVATIONS.
    activation: overrides `hidden_act`.

  Raises:
    EncoderError: not of a BERT, or a size is missing or impossible.
  """
  values = Values(path, value, "a BERT")
  _check_kind(values)
  sizes = {ours: values.size(theirs) for theirs, ours in _SIZES.items()}
  if sizes["hidden_size"] % sizes["heads"]:
    raise EncoderError(f"{path}: hidden_size {sizes['hidden_size']} is no multiple of {sizes['heads']} attention heads")
  return BertConfig(
    **sizes,
    type_vocab_size=values.size("type_vocab_size", 2),
    activation=activation or values.activation("hidden_act", names),
    layer_norm_eps=values.epsilon(),
  )


def _check_kind(values: Values) -> None:
  values.check_kind("bert")
  position = values.value.get("position_embedding_type", "absolute")
  if position != "absolute":
    raise EncoderError(f"{values.path}: position_embedding_type is {position!r}; only absolute positions are supported")
  if values.value.get("is_decoder") or values.value.get("add_cross_attention"):
    raise EncoderError(f"{values.path}: is a decoder; only encoders can be frozen")
