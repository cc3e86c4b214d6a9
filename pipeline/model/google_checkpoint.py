"""Google's TF1 checkpoint: `PREFIX.index`, `PREFIX.data-…`; configuration and vocabulary beside it or not.

They are `bert_config.json` and `vocab.txt`, or `xlnet_config.json` and `spiece.model`.
"""

import re
from pathlib import Path
from typing import Any

from pipeline.model.architecture import ARCHITECTURES, BERT, Architecture, architecture_of_variables
from pipeline.model.checkpoint_listing import Attempts, CheckpointListing
from pipeline.model.config_values import GOOGLE_ACTIVATIONS, read_json
from transforms.errors import EncoderError
from transforms.frozen_graph import tf

# TensorFlow's reader turns some of its errors into Python's own, by their wording.
_READ_ERRORS = (tf.errors.OpError, ValueError, LookupError, RuntimeError)
_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_STATED_PREFIX = re.compile(r'^model_checkpoint_path: "(.*)"$', re.MULTILINE)


def is_google_checkpoint(path: Path) -> bool:
  """Says whether a path is, or holds, a TF1 checkpoint."""
  if path.is_dir():
    return any(path.glob("*.index"))
  return bool(_SUFFIX.search(path.name)) or path.with_name(f"{path.name}.index").exists()


def list_google_checkpoint(
  path: Path, *, bert_config: Path | None = None, vocab: Path | None = None, activation: str | None = None
) -> CheckpointListing:
  """Lists a folder, a prefix (`output/model.ckpt-1234`) or one of its files.

  Casing is not written anywhere in a TF1 checkpoint: see `TokenizerFiles`.

  Raises:
    EncoderError: there is no checkpoint at all, or a folder does not say which of several.
  """
  prefix, attempts, index = find_prefix(path), Attempts(), Attempts()
  reader = index.to(lambda: _open(prefix))
  shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()} if reader else {}
  model = architecture_of_variables(shapes) or _architecture_by_config(prefix)
  stated = attempts.to(lambda: _read_config(bert_config or _beside(prefix, model.config_file, "--bert-config")))
  config = attempts.to(lambda: model.make_config(*stated, GOOGLE_ACTIVATIONS, activation)) if stated else None
  files = model.tokenizer_files
  vocabulary = attempts.to(lambda: files.read_vocabulary(vocab or _beside(prefix, files.file, "--vocab")))
  attempts.to(lambda: _check_data_files(prefix))
  attempts.problems += index.problems
  attempts.to_match(str(prefix), model, config, shapes, str(vocab or prefix.with_name(files.file)), vocabulary)
  return CheckpointListing(
    kind="google",
    name=str(prefix),
    architecture=model,
    config=config,
    vocabulary=vocabulary,
    tokenizer=files.default_settings(vocabulary) if vocabulary else None,
    casing=files.default_casing,
    has_classifier=model.has_head and "output_weights" in shapes,
    notes=model.config_notes(stated[1]) if stated else (),
    shapes=shapes,
    problems=tuple(attempts.problems),
    load_from=lambda names: ((name, _load(reader, prefix, name)) for name in names),
  )


def find_prefix(path: Path) -> Path:
  """Returns the prefix that a folder, a prefix or one of its files means.

  Raises:
    EncoderError: there is none, or a folder holds several and does not say which.
  """
  if not path.is_dir():
    prefix = path.with_name(_SUFFIX.sub("", path.name))
    if not _is_there(prefix):
      raise EncoderError(
        f"{_index(prefix)}: not there; give a checkpoint's folder, or its prefix such as model.ckpt-1234"
      )
    return prefix
  if (path / "checkpoint").is_file():
    return _stated_prefix(path)
  found = sorted(index.with_suffix("") for index in path.glob("*.index"))
  if len(found) != 1:
    names = ", ".join(prefix.name for prefix in found) or "none"
    raise EncoderError(
      f"{path}: which checkpoint? It has {names}, and no file `checkpoint`; give the prefix, {path}/NAME"
    )
  return found[0]


def _stated_prefix(folder: Path) -> Path:
  """Follows the file `checkpoint`: by base name first, for the path in it is often another machine's."""
  try:
    state = (folder / "checkpoint").read_bytes().decode("utf-8", "replace")
  except OSError as error:
    raise EncoderError(
      f"{folder}/checkpoint: cannot be read ({error.strerror or error}); give the prefix instead of the folder"
    ) from error
  match = _STATED_PREFIX.search(state)
  if not match:
    raise EncoderError(f"{folder}/checkpoint: names no model_checkpoint_path; give the prefix instead of the folder")
  stated = match[1]
  for prefix in (folder / re.split(r"[/\\]", stated)[-1], folder / stated):
    if _is_there(prefix):
      return prefix
  found = ", ".join(sorted(index.stem for index in folder.glob("*.index"))) or "none"
  raise EncoderError(
    f"{folder}/checkpoint: names {stated}, which is not there; the folder has {found}: give the prefix"
  )


def _is_there(prefix: Path) -> bool:
  """Says whether a prefix has an index; what the file system takes for no path at all has none."""
  try:
    return _index(prefix).exists()
  except (OSError, ValueError):
    return False


def _index(prefix: Path) -> Path:
  return prefix.with_name(f"{prefix.name}.index")


def _beside(prefix: Path, name: str, option: str) -> Path:
  path = prefix.with_name(name)
  if not path.exists():
    raise EncoderError(
      f"{path}: not there; a fine-tuned checkpoint's lies in the folder it was trained from: give {option}"
    )
  return path


def _architecture_by_config(prefix: Path) -> Architecture:
  """What the configuration beside a checkpoint is of, where its variables do not say."""
  return next((model for model in ARCHITECTURES if prefix.with_name(model.config_file).exists()), BERT)


def _read_config(path: Path) -> tuple[Path, dict[str, Any]]:
  return path, read_json(path)


def _check_data_files(prefix: Path) -> None:
  """Raises EncoderError if one is not there: TensorFlow says so only when it reads it."""
  shards = sorted(prefix.parent.glob(f"{prefix.name}.data-?????-of-?????"))
  count = int(shards[0].name[-5:]) if shards else 1
  for i in range(count):
    shard = prefix.with_name(f"{prefix.name}.data-{i:05}-of-{count:05}")
    if shard not in shards:
      raise EncoderError(f"{shard}: not there, and the weights are in it; copy it beside {_index(prefix).name}")


def _open(prefix: Path) -> Any:
  """Opens the index, which alone says names and shapes."""
  try:
    return tf.train.load_checkpoint(str(prefix))
  except _READ_ERRORS as error:
    raise EncoderError(f"{_index(prefix)}: TensorFlow cannot read it ({_first_line(error)}); copy it again") from error


def _load(reader: Any, prefix: Path, name: str) -> Any:
  try:
    return reader.get_tensor(name)
  except _READ_ERRORS as error:
    raise EncoderError(
      f"{prefix}.data-*: {name} cannot be read ({_first_line(error)}); was the file cut short? Copy it again"
    ) from error


def _first_line(error: Exception) -> str:
  return str(error).split("\n")[0][:160]
