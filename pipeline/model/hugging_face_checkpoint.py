"""Hugging Face BERT folders, and the sentence-transformers folders that are made of one."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  safetensors needs it to give bfloat16 as NumPy arrays
import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.model.bert_config import HUGGING_FACE_ACTIVATIONS, load_json, make_config, read_json
from pipeline.model.checkpoint import HEAD_BIAS, HEAD_WEIGHTS, StatedClassifier
from pipeline.model.checkpoint_listing import Attempts, CheckpointListing
from pipeline.model.google_checkpoint import read_vocab_file
from transforms.encoder_spec import BertConfig, Pooling
from transforms.errors import EncoderError
from transforms.wordpiece import TokenizerSettings, check_vocabulary

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
# Tokenizers that are `tokenization.py` under another name; BertJapaneseTokenizer, for one, is not.
_TOKENIZERS = re.compile(r"(Distil)?Bert(WordPiece)?Tokenizer(Fast)?|PreTrainedTokenizerFast|TokenizersBackend")
# PyTorch's [out, in] is what `run_classifier.py` has too.
_HEAD = {"classifier.weight": HEAD_WEIGHTS, "classifier.bias": HEAD_BIAS}
_KERNEL = re.compile(r"(query|key|value|dense)\.weight$")


def is_hugging_face_folder(path: Path) -> bool:
  """Says whether a folder is a Hugging Face or a sentence-transformers one, whole or not."""
  names = ("config.json", "modules.json", _WEIGHTS, *_CONVERT)
  return path.is_dir() and any((path / name).exists() for name in names)


def list_hugging_face_folder(
  path: Path, *, vocab: Path | None = None, activation: str | None = None
) -> CheckpointListing:
  """Lists a folder with `config.json`, `model.safetensors` and `vocab.txt` or `tokenizer.json`."""
  attempts = Attempts()
  stated = attempts.to(lambda: read_json(path / "config.json"))
  config = None if stated is None else attempts.to(lambda: _make_config(path, stated, activation))
  vocabulary = attempts.to(lambda: read_vocab_file(vocab) if vocab else _read_vocabulary(path))
  theirs = attempts.to(lambda: _list_tensors(path)) or {}
  names = {google_name(name) or name: name for name in theirs}
  shapes = {google: theirs[name] for google, name in names.items()}
  attempts.to_match(str(path), config, shapes, str(vocab or path), vocabulary)
  tokenizer = attempts.to(lambda: _tokenizer_settings(path))
  return CheckpointListing(
    kind="hugging-face",
    name=str(path),
    config=config,
    vocabulary=vocabulary,
    tokenizer=tokenizer[0] if tokenizer else None,
    casing="stated" if tokenizer and tokenizer[1] else "default",
    has_classifier=HEAD_WEIGHTS in shapes,
    classifier=StatedClassifier(*map((stated or {}).get, ("architectures", "id2label", "problem_type"))),
    shapes=shapes,
    problems=tuple(attempts.problems),
    load_from=lambda wanted: _load(path, {google: names[google] for google in wanted}),
  )


def list_sentence_transformers_folder(
  path: Path, *, vocab: Path | None = None, activation: str | None = None
) -> CheckpointListing:
  """Lists the BERT of a sentence-transformers folder with the pooling and maximal length that the folder states."""
  attempts = Attempts()
  folders = attempts.to(lambda: _module_folders(path)) or {"Transformer": path, "Pooling": path / "1_Pooling"}
  inner = list_hugging_face_folder(folders["Transformer"], vocab=vocab, activation=activation)
  attempts.problems += inner.problems
  settings_path = folders["Transformer"] / "sentence_bert_config.json"
  settings = attempts.to(lambda: read_json(settings_path) if settings_path.exists() else {}) or {}
  length = attempts.to(lambda: _max_seq_length(settings_path, settings))
  limit = inner.config.max_position_embeddings if inner.config else None
  return replace(
    inner,
    kind="sentence-transformers",
    name=str(path),
    tokenizer=_lowercased(inner.tokenizer, bool(settings.get("do_lower_case"))),
    pooling=attempts.to(lambda: _pooling(folders["Pooling"] / "config.json")),
    layers=(inner.config.layers,) if inner.config else None,
    max_seq_length=min(length, limit) if length and limit else length,
    for_cosine=True,
    notes=(*_length_notes(length, limit), *(attempts.to(lambda: _prompt_notes(path)) or ())),
    problems=tuple(attempts.problems),
  )


def google_name(name: str) -> str | None:
  """Returns Google's name of a PyTorch BERT's tensor, None for what is of neither the encoder nor a head on it.

  >>> google_name("bert.encoder.layer.0.output.dense.weight")
  'bert/encoder/layer_0/output/dense/kernel'
  """
  if name in _HEAD:
    return _HEAD[name]
  name = name.removeprefix("bert.")
  if not re.match(r"(embeddings|encoder|pooler)\.", name) or name.endswith("_ids"):
    return None
  name = _KERNEL.sub(r"\1.kernel", name.replace("_embeddings.weight", "_embeddings"))
  name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
  return "bert/" + name.replace("layer.", "layer_").replace(".", "/")


def _make_config(path: Path, stated: Mapping[str, Any], activation: str | None) -> BertConfig:
  return make_config(path / "config.json", stated, HUGGING_FACE_ACTIVATIONS, activation)


def _list_tensors(path: Path) -> dict[str, tuple[int, ...]]:
  """Returns the tensors by their own names with the shapes that they have under Google's."""
  with contextlib.ExitStack() as stack:
    return {name: _shape(file, name) for name, file in _open_tensors(path, stack).items()}


def _load(path: Path, names: Mapping[str, str]) -> Iterator[tuple[str, np.ndarray]]:
  """Yields variables under Google's names, given with their own."""
  with contextlib.ExitStack() as stack:
    tensors = _open_tensors(path, stack)
    for google, name in names.items():
      yield google, _tensor(tensors[name], name)


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


def _shape(file: Any, name: str) -> tuple[int, ...]:
  """The shape under Google's name: a kernel is [in, out], where PyTorch has [out, in]."""
  shape = tuple(file.get_slice(name).get_shape())
  return shape[::-1] if _KERNEL.search(name) else shape


def _tensor(file: Any, name: str) -> np.ndarray:
  value = file.get_tensor(name)
  return value.T if _KERNEL.search(name) else value


def _read_vocabulary(path: Path) -> tuple[str, ...]:
  if (path / "vocab.txt").exists():
    return read_vocab_file(path / "vocab.txt")
  tokenizer = path / "tokenizer.json"
  if not tokenizer.exists():
    raise EncoderError(f"{path}: has neither vocab.txt nor tokenizer.json; give the vocabulary with --vocab")
  value = read_json(tokenizer)
  model = value.get("model", {})
  if model.get("type", "WordPiece") != "WordPiece":
    raise EncoderError(f"{tokenizer}: its model is {model.get('type')}, not the WordPiece of a BERT")
  ids = dict(model.get("vocab", {})) | {token["content"]: token["id"] for token in value.get("added_tokens", [])}
  vocabulary = tuple(sorted(ids, key=ids.__getitem__))
  if [ids[token] for token in vocabulary] != list(range(len(vocabulary))):
    raise EncoderError(
      f"{tokenizer}: its token ids are not 0 to {len(vocabulary) - 1}; give the vocabulary with --vocab"
    )
  check_vocabulary(vocabulary, str(tokenizer))
  return vocabulary


def _tokenizer_settings(path: Path) -> tuple[TokenizerSettings, bool]:
  """What `tokenizer_config.json` says, else `tokenizer.json`, else BERT's defaults: the order that transformers has.

  Returns it, and whether any of them states the casing.
  """
  stated = read_json(path / "tokenizer_config.json") if (path / "tokenizer_config.json").exists() else {}
  kind = stated.get("tokenizer_class") or "BertTokenizer"
  if not _TOKENIZERS.fullmatch(kind) or stated.get("do_basic_tokenize") is False:
    raise EncoderError(f"{path / 'tokenizer_config.json'}: {kind} does not tokenise as BERT does; it cannot be frozen")
  normalizer = (
    read_json(path / "tokenizer.json").get("normalizer") if (path / "tokenizer.json").exists() else None
  ) or {}
  if normalizer.get("type", "BertNormalizer") != "BertNormalizer":
    raise EncoderError(f"{path / 'tokenizer.json'}: its normalizer is {normalizer['type']}, not BertNormalizer")
  lowercase = bool(stated.get("do_lower_case", normalizer.get("lowercase", True)))
  accents = stated.get("strip_accents", normalizer.get("strip_accents"))
  chinese = stated.get("tokenize_chinese_chars", normalizer.get("handle_chinese_chars", True))
  settings = TokenizerSettings(lowercase, lowercase if accents is None else bool(accents), bool(chinese))
  return settings, "do_lower_case" in stated or "lowercase" in normalizer


def _lowercased(tokenizer: TokenizerSettings | None, lowercase: bool) -> TokenizerSettings | None:
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
