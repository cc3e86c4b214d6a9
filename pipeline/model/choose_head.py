"""Whether an encoder predicts labels, which activation makes probabilities of them, and what they are called."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.model.bert_variables import HEAD_BIAS
from pipeline.model.checkpoint import Checkpoint
from transforms.encoder_spec import HEADS, Head, Readout
from transforms.errors import EncoderError, UsageError

_FORMS = (
  'a label a line, a JSON list of labels, {"label": 0, ...} or {"0": "label", ...}, with ids from 0 on, each label once'
)
_TAG = re.compile(r"[BIES]-.+")
# Control characters and halves of surrogate pairs: neither can be shown, and a Parquet string cannot hold the latter.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# What Hugging Face calls the losses of the two.
_PROBLEM_TYPES = {"single_label_classification": "softmax", "multi_label_classification": "sigmoid"}


def choose_head(
  checkpoint: Checkpoint, readout: Readout, *, kind: str | None = None, labels: str | None = None
) -> tuple[Head | None, tuple[str, ...]]:
  """Returns the head that is asked for, with lines that tell what it is and where its labels were taken from.

  Args:
    checkpoint: whose `output_weights` and `output_bias` it is.
    readout: the vector that it comes with.
    kind: `softmax`, `sigmoid`, or None for no head.
    labels: a file with the labels' names.

  Raises:
    UsageError: options that do not go together, or a head on tokens.
    EncoderError: the checkpoint has no head on the sentence, or the labels are not its.
  """
  if kind is None:
    if labels is not None:
      raise UsageError(f"--labels {labels}: without --head there is nothing to label; add --head softmax or sigmoid")
    return None, _offer(checkpoint, readout)
  _check_kind(checkpoint, kind)
  n_labels = checkpoint.head_shapes()[HEAD_BIAS][0]
  names, why = _choose_labels(checkpoint, labels, n_labels)
  if kind == "softmax" and n_labels == 1:
    raise UsageError("--head softmax: the one label that there is would always have probability 1; choose sigmoid")
  lines = [f"head: {kind} over {n_labels} {'label' if n_labels == 1 else 'labels'}, {_shown(names)} ({why})"]
  if max(readout.layers) < checkpoint.config.layers:
    lines.append(f"note: the head stands on the last layer, so all {checkpoint.config.layers} are computed")
  if readout.combine == "fused":
    lines.append("note: the head stands on the mix of layers; if it was trained on the last, leave --combine fused out")
  meant = _PROBLEM_TYPES.get(str(checkpoint.classifier.problem_type))
  if meant not in (None, kind):
    lines.append(
      f"warning: config.json says {checkpoint.classifier.problem_type}, which is --head {meant}; {kind} was asked for"
    )
  if n_labels == 1 and checkpoint.kind == "hugging-face" and meant is None:
    lines.append(
      "warning: Hugging Face trains one label as a regression unless told otherwise, and config.json does not tell; "
      "such a score is no probability"
    )
  return Head(kind, names), tuple(lines)


def possible_head(checkpoint: Checkpoint, readout: Readout) -> Head:
  """Returns a head that the checkpoint has the weights of; raises UsageError as freezing with it would."""
  head, _ = choose_head(checkpoint, readout, kind="sigmoid")
  checkpoint.used(readout, head=True)
  assert head, checkpoint.name
  return head


def _offer(checkpoint: Checkpoint, readout: Readout) -> tuple[str, ...]:
  """The line that tells of a head that was not asked for, if there is one."""
  try:
    n_labels = len(possible_head(checkpoint, readout).labels)
  except UsageError:
    return ()
  labels, kinds = ("1 label", "sigmoid") if n_labels == 1 else (f"{n_labels} labels", "softmax or sigmoid")
  return (f"head: none; the checkpoint has one over {labels}, which --head {kinds} takes along",)


def read_labels(path: str) -> tuple[str, ...]:
  """Reads label names, by their ids, from JSON or plain text.

  Raises:
    EncoderError: the file is not there or not in one of the forms; ids with gaps; a label twice, or empty.
  """
  try:
    text = Path(path).read_bytes().decode("utf-8-sig")
  except OSError as error:
    raise EncoderError(f"{path}: cannot be read ({error.strerror or error}); --labels takes {_FORMS}") from error
  except ValueError as error:
    raise EncoderError(f"{path}: not UTF-8 text ({error}); --labels takes {_FORMS}") from error
  if not text.lstrip().startswith(("[", "{")):
    return check_labels([line.strip() for line in text.rstrip().split("\n")], path)
  try:
    value = json.loads(text, object_pairs_hook=_Pairs)
  except (ValueError, RecursionError) as error:
    raise EncoderError(f"{path}: begins as JSON and is none ({error}); --labels takes {_FORMS}") from error
  return labels_by_id(value, path)


def labels_by_id(value: Any, name: str) -> tuple[str, ...]:
  """Returns label names by their ids, from JSON in one of its three forms; raises EncoderError with `name`."""
  if isinstance(value, list) and not isinstance(value, _Pairs):
    return check_labels(value, name)
  pairs = value.items() if isinstance(value, dict) else value if isinstance(value, _Pairs) else ()
  if pairs and all(type(number) is int for _, number in pairs):
    by_id = [(number, label) for label, number in pairs]
  elif pairs and all(key.isdecimal() and isinstance(label, str) for key, label in pairs):
    by_id = [(int(key), label) for key, label in pairs]
  else:
    raise EncoderError(f"{name}: no labels that can be read; --labels takes {_FORMS}")
  by_id.sort()
  for place, (number, label) in enumerate(by_id):
    if number != place:
      raise EncoderError(
        f"{name}: label {label!r} has id {number} where {place} would be next; --labels takes ids 0 to "
        f"{len(by_id) - 1}, each once"
      )
  return check_labels([label for _, label in by_id], name)


def check_labels(labels: Sequence[Any], name: str) -> tuple[str, ...]:
  """Returns labels that can be told apart and written down; raises EncoderError with `name` for others."""
  seen: dict[str, int] = {}
  for number, label in enumerate(labels):
    if not isinstance(label, str) or not label.strip() or _NO_TEXT.search(label):
      raise EncoderError(
        f"{name}: label {number} is {str(label)[:40]!r}, which is no name on one line; --labels takes {_FORMS}"
      )
    if label in seen:
      raise EncoderError(f"{name}: {label!r} is both label {seen[label]} and {number}; give each label once")
    seen[label] = number
  tags = [label for label in seen if _TAG.fullmatch(label)]
  if "O" in seen and tags:
    raise EncoderError(
      f"{name}: {tags[0]!r} and 'O' are labels of tokens (named entities), and --head is for whole sentences: "
      "a token classifier is out of Sorbus's scope; leave --head out"
    )
  return tuple(seen)


class _Pairs(list[tuple[str, Any]]):
  """A JSON object with every key that it has, a repeated one too."""


def _check_kind(checkpoint: Checkpoint, kind: str) -> None:
  """Raises UsageError for a head that is not known, or that this checkpoint does not have by what it says itself."""
  if kind not in HEADS:
    raise UsageError(f"--head {kind}: not known; choose {' or '.join(HEADS)}")
  model = checkpoint.architecture
  if not model.has_head:
    raise UsageError(f"--head {kind}: {checkpoint.name} is {model.a_name}, whose heads are not read; leave --head out")
  if checkpoint.kind == "sentence-transformers":
    raise UsageError(
      f"--head {kind}: {checkpoint.name} is a sentence-transformers folder, which has no classifier; leave --head out"
    )
  stated = checkpoint.classifier
  if stated.problem_type == "regression" or "ForMultipleChoice" in str(stated.architectures):
    what = "a regression" if stated.problem_type == "regression" else "a choice between texts"
    raise UsageError(
      f"--head {kind}: {checkpoint.name} was trained for {what} by its config.json: its scores are no probabilities of "
      "labels; leave --head out"
    )
  if "ForTokenClassification" in str(stated.architectures):
    raise UsageError(
      f"--head {kind}: {checkpoint.name} is a classifier of tokens by its config.json, and --head is for whole "
      "sentences: named entities are out of Sorbus's scope; leave --head out"
    )


def _choose_labels(checkpoint: Checkpoint, path: str | None, n_labels: int) -> tuple[tuple[str, ...], str]:
  stated = checkpoint.classifier.id2label
  if path is not None:
    return _counted(read_labels(path), n_labels, path), f"labels from {path}"
  if stated:
    name = f"{checkpoint.name}/config.json id2label"
    return _counted(labels_by_id(stated, name), n_labels, name), "labels stated by the folder"
  return tuple(map(str, range(n_labels))), "their names are not known: --labels gives them"


def _counted(labels: tuple[str, ...], n_labels: int, name: str) -> tuple[str, ...]:
  if len(labels) != n_labels:
    raise EncoderError(
      f"{name}: {len(labels)} labels, the checkpoint's head has {n_labels}; "
      "give --labels with those it was trained with, in their order"
    )
  return labels


def _shown(labels: Sequence[str]) -> str:
  return ", ".join(labels[:5]) + (" …" if len(labels) > 5 else "")
