"""What a training leaves in its folder: the best checkpoint so far in Google's layout, and what it goes on from.

Each file appears whole, and the state of an epoch last: after a kill at any moment that epoch is done again.
"""

import contextlib
import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np

from pipeline.model.architecture import BERT
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.config_values import GOOGLE_ACTIVATIONS
from transforms.encoder_spec import VOCAB_FILE, BertConfig
from transforms.errors import UsageError
from transforms.frozen_graph import tf

LABELS, METRICS, PREDICTED, STATE = "labels.json", "metrics.jsonl", "dev-probabilities.npy", "training-state.npz"
_RECORD = "record"

Variables = Mapping[str, "tf.Variable"]


class TrainingFiles:
  """The folder of one training.

  Attributes:
    epochs: the metrics of each that is done.
  """

  def __init__(self, folder: str, settings: Mapping[str, Any]):
    """Takes a folder, new or of an earlier start, and what decides the weights.

    Raises:
      UsageError: the folder holds something else, or a training with other settings.
    """
    self.folder, self._settings = Path(folder), settings
    self.epochs: list[dict[str, Any]] = []
    self._arrays: dict[str, np.ndarray] = {}
    try:
      self.folder.mkdir(parents=True, exist_ok=True)
      found = [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
      raise UsageError(f"{folder}: is no folder to write ({error.strerror}); give a new one") from error
    if STATE in found:
      self._load()
    elif found:
      raise UsageError(f"{folder}: holds something that is no training to go on with; give a new folder")

  def begin(self, variables: Variables, checkpoint: Checkpoint, labels: Sequence[str]) -> None:
    """Puts variables where an earlier start left them, and writes what lies beside the weights."""
    for name, array in self._arrays.items():
      variables[name].assign(array)
    self._arrays = {}
    if not self.epochs:
      self._save(variables)  # first of all, for it says whose the folder is
    texts = {
      BERT.config_file: json.dumps(google_config(checkpoint.config), indent=2),
      VOCAB_FILE: "\n".join(checkpoint.vocabulary),
      LABELS: json.dumps(labels, ensure_ascii=False, indent=0),
    }
    for name, text in texts.items():
      replace_file(self.folder / name, lambda file, text=text: file.write(f"{text}\n".encode()))

  def add_epoch(self, epoch: dict[str, Any], variables: Variables) -> None:
    """Writes the metrics of one more epoch, and what the next goes on from."""
    self.epochs.append(epoch)
    lines = "".join(f"{json.dumps(epoch)}\n" for epoch in self.epochs)
    replace_file(self.folder / METRICS, lambda file: file.write(lines.encode()))
    self._save(variables)

  def write_checkpoint(self, step: int, variables: Variables) -> None:
    """Writes `model.ckpt-STEP` and names it in `checkpoint`; the one before goes."""
    prefix, names = f"model.ckpt-{step}", sorted(variables)
    with tf.device("CPU:0"):
      tf.raw_ops.SaveV2(
        prefix=str(self.folder / prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.convert_to_tensor(variables[name]) for name in names],
      )
    state = f'model_checkpoint_path: "{prefix}"\nall_model_checkpoint_paths: "{prefix}"\n'
    replace_file(self.folder / "checkpoint", lambda file: file.write(state.encode()))
    for old in self.folder.glob("model.ckpt-*"):
      if not old.name.startswith(f"{prefix}."):
        old.unlink()

  def write_probabilities(self, probabilities: np.ndarray) -> None:
    """Writes those of the texts that were measured with, float32 [N, n_labels]."""
    replace_file(self.folder / PREDICTED, lambda file: np.save(file, probabilities))

  def _save(self, variables: Variables) -> None:
    record = {_RECORD: np.array(json.dumps({"settings": self._settings, "epochs": self.epochs}))}
    arrays = {name: variable.numpy() for name, variable in variables.items()}
    replace_file(self.folder / STATE, lambda file: np.savez(file, **record, **arrays))

  def _load(self) -> None:
    path = self.folder / STATE
    try:
      with np.load(path, allow_pickle=False) as file:
        self._arrays = {name: file[name] for name in file.files}
      record = json.loads(str(self._arrays.pop(_RECORD)))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
      raise UsageError(f"{path}: cannot be read ({error}); delete {self.folder} to begin again") from error
    for name, value in self._settings.items():
      if (before := record["settings"].get(name)) != value:
        raise UsageError(f"{self.folder}: holds a training with {name} {before}, not {value}; give another folder")
    self.epochs = record["epochs"]


def google_config(config: BertConfig) -> dict[str, Any]:
  """Returns the content of a `bert_config.json`."""
  names = {ours: theirs for theirs, ours in GOOGLE_ACTIVATIONS.items()}
  return {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": names[config.activation],
    "hidden_dropout_prob": 0.1,
    "hidden_size": config.hidden_size,
    "initializer_range": 0.02,
    "intermediate_size": config.intermediate_size,
    "layer_norm_eps": config.layer_norm_eps,
    "max_position_embeddings": config.max_position_embeddings,
    "num_attention_heads": config.heads,
    "num_hidden_layers": config.layers,
    "type_vocab_size": config.type_vocab_size,
    "vocab_size": config.vocab_size,
  }


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
  """Writes a file beside its place and moves it there; Ctrl-C waits for that."""
  new = path.with_name(f".{path.name}.new")
  with interrupted_later():
    with new.open("wb") as file:
      write(file)
    new.replace(path)


@contextlib.contextmanager
def interrupted_later() -> Iterator[None]:
  """Lets Ctrl-C wait while the block runs: amid NumPy's zip files it would end as an error of theirs."""
  came = []
  before = signal.signal(signal.SIGINT, lambda *_: came.append(True))
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)
  if came:
    raise KeyboardInterrupt
