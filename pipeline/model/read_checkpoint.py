"""Whatever `sorbus freeze` is given, as a Checkpoint; and what it holds, without its weights."""

from pathlib import Path
from typing import Literal

from pipeline.model.checkpoint import Checkpoint
from pipeline.model.checkpoint_listing import CheckpointListing
from pipeline.model.config_values import ACTIVATIONS
from pipeline.model.google_checkpoint import is_google_checkpoint, list_google_checkpoint
from pipeline.model.hugging_face_checkpoint import (
  is_hugging_face_folder,
  list_hugging_face_folder,
  list_sentence_transformers_folder,
)
from transforms.encoder_spec import SPEC_FILE
from transforms.errors import EncoderError, UsageError


def read_checkpoint(
  path: str, *, bert_config: str | None = None, vocab: str | None = None, activation: str | None = None
) -> Checkpoint:
  """Reads a Google TF1 checkpoint (folder or prefix), a Hugging Face or a sentence-transformers folder.

  Args:
    path: the folder or prefix, local.
    bert_config: Google only: `bert_config.json` where it is not beside the checkpoint.
    vocab: `vocab.txt` where it is not beside the checkpoint, or not to be taken from there.
    activation: one of ACTIVATIONS, where it is not the one that the configuration means.

  Raises:
    EncoderError: nothing that can be frozen, or not whole.
    UsageError: an option that does not go with this kind of checkpoint.
  """
  return list_checkpoint(path, bert_config=bert_config, vocab=vocab, activation=activation).load()


def list_checkpoint(
  path: str, *, bert_config: str | None = None, vocab: str | None = None, activation: str | None = None
) -> CheckpointListing:
  """Lists what `read_checkpoint` would read; what stands against that are the listing's problems.

  Raises:
    EncoderError: nothing that could be listed.
    UsageError: an option that does not go with this kind of checkpoint.
  """
  if activation not in (None, *ACTIVATIONS):
    raise UsageError(f"--activation {activation}: not known; choose one of {', '.join(ACTIVATIONS)}")
  folder, vocab_path = Path(path), Path(vocab) if vocab else None
  kind = checkpoint_kind(folder)
  if kind == "google":
    config = Path(bert_config) if bert_config else None
    return list_google_checkpoint(folder, bert_config=config, vocab=vocab_path, activation=activation)
  if kind is None and (folder / SPEC_FILE).exists():
    raise EncoderError(f"{path}: an encoder already; use it as it is, or freeze the checkpoint that it was made of")
  if bert_config:
    raise UsageError(f"--bert-config is for Google checkpoints; {path} is none (its .index file is not there)")
  if kind == "sentence-transformers":
    return list_sentence_transformers_folder(folder, vocab=vocab_path, activation=activation)
  if kind == "hugging-face":
    return list_hugging_face_folder(folder, vocab=vocab_path, activation=activation)
  raise EncoderError(
    f"{path}: no checkpoint; a Google one has a .index file, a Hugging Face one config.json and model.safetensors"
  )


def checkpoint_kind(path: Path) -> Literal["google", "hugging-face", "sentence-transformers"] | None:
  """Says which kind of checkpoint a path is, whole or not; None is none."""
  try:
    if is_google_checkpoint(path):
      return "google"
    if (path / "modules.json").exists():
      return "sentence-transformers"
    return "hugging-face" if is_hugging_face_folder(path) else None
  except OSError as error:
    raise EncoderError(f"{path}: cannot be read ({error.strerror or error}); is it yours to read?") from error
