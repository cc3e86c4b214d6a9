"""`xlnet_config.json`, and the `config.json` of an XLNet, as an XlnetConfig: as bert_config.py does it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.model.config_values import Values
from transforms.encoder_spec import XlnetConfig
from transforms.errors import EncoderError

_SIZES = {"d_model": "hidden_size", "n_layer": "layers", "n_head": "heads", "d_inner": "intermediate_size"}
# Of memory and of how training fed texts: of no meaning for one text at a time.
_OF_TRAINING = ("mem_len", "reuse_len", "bi_data", "same_length")


def make_config(path: Path, value: Mapping[str, Any], names: Mapping[str, str], activation: str | None) -> XlnetConfig:
  """Checks the configuration in `path`, parsed as `value`; takes and raises what that of `bert_config.py` does."""
  values = Values(path, value, "an XLNet")
  values.check_kind("xlnet")
  if value.get("attn_type", "bi") != "bi":
    raise EncoderError(
      f"{path}: attn_type is {value['attn_type']!r:.20}; only 'bi' can be frozen, with which a token sees those before "
      "and behind it"
    )
  sizes = {ours: values.size(theirs) for theirs, ours in _SIZES.items()}
  hidden_size, heads = sizes["hidden_size"], sizes["heads"]
  if hidden_size % 2 or ("d_head" not in value and hidden_size % heads):
    raise EncoderError(f"{path}: d_model {hidden_size} is no multiple of 2 and of {heads} attention heads (n_head)")
  return XlnetConfig(
    **sizes,
    vocab_size=values.size("vocab_size" if "vocab_size" in value else "n_token"),  # Hugging Face's name, and Google's
    head_size=values.size("d_head", hidden_size // heads),
    activation=activation or values.activation("ff_activation", names),
    untie_r=_untie_r(path, value),
    clamp_len=_clamp_len(path, value),
    layer_norm_eps=values.epsilon(),
  )


def config_notes(value: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns what to say of settings that play no part."""
  stated = [f"{name} {value[name]}" for name in _OF_TRAINING if value.get(name)]
  return (f"{', '.join(stated)}: play no part, for a text is encoded alone and without memory",) if stated else ()


def _untie_r(path: Path, value: Mapping[str, Any]) -> bool:
  untie_r = value.get("untie_r", True)
  if not isinstance(untie_r, bool):
    raise EncoderError(f"{path}: untie_r is {untie_r!r:.20}; write true or false, without quotation marks")
  return untie_r


def _clamp_len(path: Path, value: Mapping[str, Any]) -> int:
  """Google has it in a flag of its scripts, by default -1, and not in the file."""
  clamp_len = value.get("clamp_len", -1)
  if type(clamp_len) is not int or abs(clamp_len) >= 1 << 31:
    raise EncoderError(f"{path}: clamp_len is {clamp_len!r:.20}, not a whole number of 32 bits; -1 is for none")
  return clamp_len
