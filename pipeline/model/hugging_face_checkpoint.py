"""Hugging Face BERT folders, and the sentence-transformers folders that are made of one."""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  safetensors needs it to give bfloat16 as NumPy arrays
import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.model.bert_config import HUGGING_FACE_ACTIVATIONS, load_json, make_config, read_json
from pipeline.model.checkpoint import (
  HEAD_BIAS,
  HEAD_WEIGHTS,
  Checkpoint,
  StatedClassifier,
  check_vocabulary_size,
  load_variables,
)
from pipeline.model.google_checkpoint import read_vocab_file
from transforms.encoder_spec import Pooling
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


def read_hugging_face_folder(path: Path, *, vocab: Path | None = None, activation: str | None = None) -> Checkpoint:
  """Reads a folder with `config.json`, `model.safetensors` and `vocab.txt` or `tokenizer.json`.

  Raises:
    EncoderError: a file is missing, or the folder is not that of a BERT that can be frozen.
  """
  config_path = path / "config.json"
  stated = read_json(config_path)
  config = make_config(config_path, stated, HUGGING_FACE_ACTIVATIONS, activation)
  vocabulary = read_vocab_file(vocab) if vocab else _read_vocabulary(path)
  with contextlib.ExitStack() as stack:
    tensors = _open_tensors(path, stack)
    names = {google: theirs for theirs in tensors if (google := google_name(theirs))}
    shapes = {google: _shape(tensors[theirs], theirs) for google, theirs in names.items()}
    table = shapes.get("bert/embeddings/word_embeddings", (config.vocab_size,))
    check_vocabulary_size(str(vocab or path), vocabulary, table[0])
    variables = load_variables(str(path), config, shapes, lambda name: _tensor(tensors[names[name]], names[name]))
    return Checkpoint(
      kind="hugging-face",
      name=str(path),
      config=config,
      variables=variables,
      vocabulary=vocabulary,
      tokenizer=_tokenizer_settings(path),
      has_classifier="classifier.weight" in tensors,
      ignored=len(tensors) - len(variables),
      classifier=StatedClassifier(*map(stated.get, ("architectures", "id2label", "problem_type"))),
    )


def read_sentence_transformers_folder(
  path: Path, *, vocab: Path | None = None, activation: str | None = None
) -> Checkpoint:
  """Reads the BERT of a sentence-transformers folder with the pooling and maximal length that the folder states.

  Raises:
    EncoderError: as for the Hugging Face folder in it, or it has a module or a pooling that cannot be frozen.
  """
  folders = _module_folders(path)
  inner = read_hugging_face_folder(folders["Transformer"], vocab=vocab, activation=activation)
  settings_path = folders["Transformer"] / "sentence_bert_config.json"
  settings = read_json(settings_path) if settings_path.exists() else {}
  # Its own lower-casing comes before the tokenizer and leaves accents to it.
  tokenizer = replace(inner.tokenizer, lowercase=inner.tokenizer.lowercase or bool(settings.get("do_lower_case")))
  return replace(
    inner,
    kind="sentence-transformers",
    name=str(path),
    tokenizer=tokenizer,
    pooling=_pooling(folders["Pooling"] / "config.json"),
    layers=(inner.config.layers,),
    max_seq_length=_max_seq_length(settings_path, settings, inner.config.max_position_embeddings),
    for_cosine=True,
    notes=_notes(path),
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


def _tokenizer_settings(path: Path) -> TokenizerSettings:
  """What `tokenizer_config.json` says, else `tokenizer.json`, else BERT's defaults: the order that transformers has."""
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
  return TokenizerSettings(lowercase, lowercase if accents is None else bool(accents), bool(chinese))


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


def _max_seq_length(path: Path, settings: Mapping[str, Any], limit: int) -> int | None:
  stated = settings.get("max_seq_length")
  if stated is None:
    return None
  if type(stated) is not int or stated < 3:
    raise EncoderError(f"{path}: max_seq_length is {stated!r}, not a whole number of 3 or more")
  return min(stated, limit)


def _notes(path: Path) -> tuple[str, ...]:
  settings = path / "config_sentence_transformers.json"
  prompt = read_json(settings).get("default_prompt_name") if settings.exists() else None
  return (f"the folder's default prompt {prompt!r} is NOT put before texts: put it there yourself",) if prompt else ()
