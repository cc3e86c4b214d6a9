"""`bert_config.json` and `config.json` as a BertConfig, with the activation resolved by whose file it is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transforms.encoder_spec import BertConfig
from transforms.errors import EncoderError

# The same word means two functions: Google's modeling.py has the tanh approximation, Hugging Face the error function.
GOOGLE_ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "tanh": "tanh"}
HUGGING_FACE_ACTIVATIONS = {
  "gelu": "gelu_erf",
  "gelu_python": "gelu_erf",
  "gelu_new": "gelu_tanh",
  "gelu_fast": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "relu": "relu",
  "tanh": "tanh",
}
ACTIVATIONS = ("gelu_tanh", "gelu_erf", "relu", "tanh")
_SIZES = {
  "vocab_size": "vocab_size",
  "hidden_size": "hidden_size",
  "num_hidden_layers": "layers",
  "num_attention_heads": "heads",
  "intermediate_size": "intermediate_size",
  "max_position_embeddings": "max_position_embeddings",
}


def load_json(path: Path) -> Any:
  """Returns the value in a JSON file; raises EncoderError if there is none."""
  try:
    return json.loads(path.read_bytes())
  except FileNotFoundError as error:
    raise EncoderError(f"{path}: not there") from error
  except OSError as error:
    raise EncoderError(f"{path}: cannot be read ({error.strerror or error}); a JSON file was expected") from error
  except (ValueError, RecursionError) as error:
    raise EncoderError(f"{path}: not JSON ({error})") from error


def read_json(path: Path) -> dict[str, Any]:
  """Returns the object in a JSON file; raises EncoderError if there is none."""
  value = load_json(path)
  if not isinstance(value, dict):
    raise EncoderError(f"{path}: a JSON object was expected")
  return value


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
  _check_kind(path, value)
  sizes = {ours: _size(path, value, theirs) for theirs, ours in _SIZES.items()}
  if sizes["hidden_size"] % sizes["heads"]:
    raise EncoderError(f"{path}: hidden_size {sizes['hidden_size']} is no multiple of {sizes['heads']} attention heads")
  epsilon = value.get("layer_norm_eps", 1e-12)
  if not isinstance(epsilon, float) or not 0 < epsilon < 1:
    raise EncoderError(f"{path}: layer_norm_eps {epsilon!r} is not between 0 and 1")
  types = _size(path, {"type_vocab_size": 2} | dict(value), "type_vocab_size")
  resolved = activation or _activation(path, value.get("hidden_act", "gelu"), names)
  return BertConfig(**sizes, type_vocab_size=types, activation=resolved, layer_norm_eps=epsilon)


def _check_kind(path: Path, value: Mapping[str, Any]) -> None:
  kind = value.get("model_type", "bert")
  if kind != "bert":
    raise EncoderError(f"{path}: model_type is {kind!r}; only BERT can be frozen")
  position = value.get("position_embedding_type", "absolute")
  if position != "absolute":
    raise EncoderError(f"{path}: position_embedding_type is {position!r}; only absolute positions are supported")
  if value.get("is_decoder") or value.get("add_cross_attention"):
    raise EncoderError(f"{path}: is a decoder; only BERT encoders can be frozen")


def _size(path: Path, value: Mapping[str, Any], name: str) -> int:
  size = value.get(name)
  if type(size) is not int or size < 1:
    raise EncoderError(f"{path}: {name} is {size!r}, not a positive whole number; is this the configuration of a BERT?")
  return size


def _activation(path: Path, name: Any, names: Mapping[str, str]) -> str:
  if name not in names:
    raise EncoderError(
      f"{path}: hidden_act {name!r} is not supported; choose one of {', '.join(ACTIVATIONS)} (--activation)"
    )
  return names[name]
