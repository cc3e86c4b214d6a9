"""Hugging Face folders of a BERT or an XLNet, and the sentence-transformers folders that are made of one."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  safetensors needs it to give bfloat16 as NumPy arrays
import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.model.architecture import ARCHITECTURES, BERT, Architecture
from pipeline.model.bert_variables import HEAD_WEIGHTS
from pipeline.model.checkpoint import StatedClassifier
from pipeline.model.checkpoint_listing import Attempts, CheckpointListing
from pipeline.model.config_values import HUGGING_FACE_ACTIVATIONS, load_json, read_json
from pipeline.model.hugging_face_names import group_names, is_stacked, is_transposed
from transforms.encoder_spec import AnyTokenizerSettings, ModelConfig, Pooling, XlnetConfig
from transforms.errors import EncoderError

_WEIGHTS = "model.safetensors"
_CONVERT = {
  "pytorch_model.bin": (
    "import torch; from safetensors.torch import save_file; save_file({k: v.contiguous().clone() for k, v in "
    "torch.load('pytorch_model.bin', map_location='cpu', weights_only=True).items()}, 'model.safetensors')"
  ),
  "tf_model.h5": (
    "from transformers import AutoModel; "
    "AutoModel.from_pretrained('.', from_tf=True).save_pretrained('.', safe_serialization=True)"
  ),
}


def is_hugging_face_folder(path: Path) -> bool:
  """Says whether a folder is a Hugging Face or a sentence-transformers one, whole or not."""
  names = ("config.json", "modules.json", _WEIGHTS, *_CONVERT)
  return path.is_dir() and any((path / name).exists() for name in names)


def list_hugging_face_folder(
  path: Path, *, vocab: Path | None = None, activation: str | None = None
) -> CheckpointListing:
  """Lists a folder with `config.json`, `model.safetensors` and its tokenizer's files."""
  attempts = Attempts()
  stated = attempts.to(lambda: read_json(path / "config.json"))
  model = _architecture(stated or {})
  config = None if stated is None else attempts.to(lambda: _make_config(path, model, stated, activation))
  files = model.tokenizer_files
  vocabulary = attempts.to(lambda: files.read_vocabulary(vocab) if vocab else files.folder_vocabulary(path))
  theirs = attempts.to(lambda: _list_tensors(path)) or {}
  names = group_names(theirs, model.google_name)
  shapes = attempts.to(lambda: {google: _shape(path, google, group, theirs) for google, group in names.items()}) or {}
  attempts.to_match(str(path), model, config, shapes, str(vocab or path), vocabulary)
  tokenizer = attempts.to(lambda: files.folder_settings(path))
  return CheckpointListing(
    kind="hugging-face",
    name=str(path),
    architecture=model,
    config=config,
    vocabulary=vocabulary,
    tokenizer=tokenizer[0] if tokenizer else None,
    casing="stated" if tokenizer and tokenizer[1] else "default",
    has_classifier=model.has_head and HEAD_WEIGHTS in shapes,
    classifier=StatedClassifier(*map((stated or {}).get, ("architectures", "id2label", "problem_type"))),
    notes=model.config_notes(stated or {}),
    shapes=shapes,
    problems=tuple(attempts.problems),
    load_from=lambda wanted: _load(path, {google: names[google] for google in wanted}),
  )


def list_sentence_transformers_folder(
  path: Path, *, vocab: Path | None = None, activation: str | None = None
) -> CheckpointListing:
  """Lists the network of a sentence-transformers folder with the pooling and maximal length that the folder states."""
  attempts = Attempts()
  folders = attempts.to(lambda: _module_folders(path)) or {"Transformer": path, "Pooling": path / "1_Pooling"}
  inner = list_hugging_face_folder(folders["Transformer"], vocab=vocab, activation=activation)
  attempts.problems += inner.problems
  settings_path = folders["Transformer"] / "sentence_bert_config.json"
  settings = attempts.to(lambda: read_json(settings_path) if settings_path.exists() else {}) or {}
  length = attempts.to(lambda: _max_seq_length(settings_path, settings))
  limit = inner.config.position_limit if inner.config else None
  return replace(
    inner,
    kind="sentence-transformers",
    name=str(path),
    tokenizer=_lowercased(inner.tokenizer, bool(settings.get("do_lower_case"))),
    pooling=attempts.to(lambda: _pooling(folders["Pooling"] / "config.json")),
    layers=(inner.config.layers,) if inner.config else None,
    max_seq_length=min(length, limit) if length and limit else length,
    for_cosine=True,
    notes=(*inner.notes, *_length_notes(length, limit), *(attempts.to(lambda: _prompt_notes(path)) or ())),
    problems=tuple(attempts.problems),
  )


def _architecture(stated: Mapping[str, Any]) -> Architecture:
  """By `config.json`; of what is not known BERT's reader says so."""
  return next((model for model in ARCHITECTURES if stated.get("model_type") == model.model_type), BERT)


def _make_config(path: Path, model: Architecture, stated: Mapping[str, Any], activation: str | None) -> ModelConfig:
  config = model.make_config(path / "config.json", stated, HUGGING_FACE_ACTIVATIONS, activation)
  # Their XLNet has biases in every block, whatever untie_r says.
  return replace(config, untie_r=True) if isinstance(config, XlnetConfig) else config


def _list_tensors(path: Path) -> dict[str, tuple[int, ...]]:
  """Returns the tensors by their own names with the shapes that they have under Google's, but for stacks."""
  with contextlib.ExitStack() as stack:
    return {name: _tensor_shape(file, name) for name, file in _open_tensors(path, stack).items()}


def _load(path: Path, names: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, np.ndarray]]:
  """Yields variables under Google's names, given with their own."""
  with contextlib.ExitStack() as stack:
    tensors = _open_tensors(path, stack)
    for google, group in names.items():
      values = [_tensor(tensors[name], name) for name in group]
      yield google, np.stack(values) if is_stacked(google) else values[0]


def _open_tensors(path: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
  """Returns for each tensor name the open file that it is in."""
  tensors: dict[str, Any] = {}
  for file_path in _weight_files(path):
    try:
      file = stack.enter_context(safe_open(file_path, framework="np"))
    except (SafetensorError, OSError) as error:
      raise EncoderError(f"{file_path}: cannot be read as safetensors ({error}); copy it again") from error
    tensors |= dict.fromkeys(file.keys(), file)
  return tensors


def _weight_files(path: Path) -> list[Path]:
  if (path / _WEIGHTS).exists():
    return [path / _WEIGHTS]
  index = path / f"{_WEIGHTS}.index.json"
  if index.exists():
    return [path / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
  for name, line in _CONVERT.items():
    if (path / name).exists():
      raise EncoderError(f'{path}: has {name} but no {_WEIGHTS}; convert it there with: python -c "{line}"')
  raise EncoderError(f"{path / _WEIGHTS}: not there; a Hugging Face folder has its weights in it")


def _shape(path: Path, google: str, group: Sequence[str], theirs: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
  """The shape of a variable that is one tensor there, or one for each block."""
  first, shape = group[0], theirs[group[0]]
  if other := next((name for name in group if theirs[name] != shape), None):
    raise EncoderError(
      f"{path}: {first} is {list(shape)} and {other} {list(theirs[other])}, but all blocks are alike; copy it again"
    )
  return (len(group), *shape) if is_stacked(google) else shape


def _tensor_shape(file: Any, name: str) -> tuple[int, ...]:
  shape = tuple(file.get_slice(name).get_shape())
  return shape[::-1] if is_transposed(name) else shape


def _tensor(file: Any, name: str) -> np.ndarray:
  value = file.get_tensor(name)
  return value.T if is_transposed(name) else value


def _lowercased(tokenizer: AnyTokenizerSettings | None, lowercase: bool) -> AnyTokenizerSettings | None:
  """Lower-cases as sentence-transformers does: before the tokenizer, to which it leaves accents."""
  return replace(tokenizer, lowercase=True) if tokenizer and lowercase else tokenizer


def _module_folders(path: Path) -> dict[str, Path]:
  """Returns the folders of the modules Transformer and Pooling; Normalize adds nothing to a raw vector."""
  modules_path = path / "modules.json"
  modules = load_json(modules_path)
  try:
    folders = {module["type"].rsplit(".", 1)[-1]: path / module["path"] for module in modules}
  except (KeyError, TypeError, AttributeError) as error:
    raise EncoderError(f"{modules_path}: not a list of modules ({error!r})") from error
  kinds = list(folders)
  if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]) or len(modules) != len(kinds):
    raise EncoderError(
      f"{modules_path}: its modules are {', '.join(kinds)}; only Transformer, Pooling and Normalize can be frozen"
    )
  return folders


def _pooling(path: Path) -> Pooling:
  value = read_json(path)
  modes = [
    name.removeprefix("pooling_mode_") for name, on in value.items() if name.startswith("pooling_mode_") and on is True
  ]
  if isinstance(value.get("pooling_mode"), str):
    modes = [value["pooling_mode"]]
  names: Mapping[str, Pooling] = {
    "mean_tokens": "mean",
    "mean": "mean",
    "cls_token": "cls",
    "cls": "cls",
    "max_tokens": "max",
    "max": "max",
    "lasttoken": "last",
  }
  if len(modes) != 1 or modes[0] not in names:
    found = " + ".join(modes) or "not stated"
    raise EncoderError(f"{path}: its pooling is {found}; only one of mean, cls, max or lasttoken can be frozen")
  return names[modes[0]]


def _max_seq_length(path: Path, settings: Mapping[str, Any]) -> int | None:
  stated = settings.get("max_seq_length")
  if stated is None:
    return None
  if type(stated) is not int or stated < 3:
    raise EncoderError(f"{path}: max_seq_length is {stated!r}, not a whole number of 3 or more")
  return stated


def _length_notes(stated: int | None, limit: int | None) -> Iterator[str]:
  if stated and limit and stated > limit:
    yield f"the folder states max_seq_length {stated}, but the model has {limit} positions: texts are cut at {limit}"


def _prompt_notes(path: Path) -> tuple[str, ...]:
  settings = path / "config_sentence_transformers.json"
  prompt = read_json(settings).get("default_prompt_name") if settings.exists() else None
  return (f"the folder's default prompt {prompt!r} is NOT put before texts: put it there yourself",) if prompt else ()
