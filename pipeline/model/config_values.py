"""What configuration files of every kind of network have in common, read strictly."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transforms.errors import EncoderError

# The same word means two functions: Google's code has the tanh approximation, Hugging Face the error function.
# The latter has a name of its own in Google's layout, by which their code refuses it rather than compute the other.
GOOGLE_ACTIVATIONS = {"gelu": "gelu_tanh", "gelu_erf": "gelu_erf", "relu": "relu", "tanh": "tanh"}
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
# A file can state any number, and all that so many layers would need is listed before it is missed.
_MOST_LAYERS, _LARGEST_SIZE = 1000, 2**31 - 1


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


class Values:
  """A configuration's values, each checked when it is taken; EncoderError says what is wrong."""

  def __init__(self, path: Path, value: Mapping[str, Any], kind: str):
    """Takes the file's path and object, and whose configuration it should be, such as `a BERT`."""
    self.path, self.value, self._kind = path, value, kind

  def size(self, name: str, default: int | None = None) -> int:
    """Returns a positive whole number, within what a network can have."""
    size = self.value.get(name, default)
    most = _MOST_LAYERS if name in ("num_hidden_layers", "n_layer") else _LARGEST_SIZE
    if type(size) is not int or not 1 <= size <= most:
      raise EncoderError(
        f"{self.path}: {name} is {size!r:.20}, not a whole number from 1 to {most}; is this the configuration of "
        f"{self._kind}?"
      )
    return size

  def epsilon(self) -> float:
    """Returns `layer_norm_eps`; Google's code has 1e-12, and says nothing."""
    epsilon = self.value.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
      raise EncoderError(f"{self.path}: layer_norm_eps {epsilon!r} is not between 0 and 1")
    return epsilon

  def activation(self, name: str, names: Mapping[str, str]) -> str:
    """Returns what `name` means, one of ACTIVATIONS."""
    stated = self.value.get(name, "gelu")
    if not isinstance(stated, str) or stated not in names:
      raise EncoderError(
        f"{self.path}: {name} {stated!r} is not supported; choose one of {', '.join(ACTIVATIONS)} (--activation)"
      )
    return names[stated]

  def check_kind(self, kind: str) -> None:
    """Raises EncoderError if it is of another model than the one that Hugging Face calls `kind`."""
    stated = self.value.get("model_type", kind)
    if stated != kind:
      raise EncoderError(f"{self.path}: model_type is {stated!r}; only BERT and XLNet can be frozen")
