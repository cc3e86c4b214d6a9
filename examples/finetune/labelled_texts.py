"""Labelled texts of a TSV as tokens and targets, batches of them, and how well labels are predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from pipeline.model.choose_head import check_labels
from transforms.batching import pad_batch, token_budget_batches
from transforms.errors import UsageError
from transforms.wordpiece import Tokens, Wordpiece

FORM = "a line is a text, TAB, and its labels with commas between"
# So many batches have their texts sorted by length together: little padding, and batches that still differ by chance.
_SORTED_TOGETHER = 50


@dataclass(frozen=True)
class Row:
  """A line of a file: where it stands, the text, and its labels as they are written."""

  place: str
  text: str
  labels: tuple[str, ...]


def read_rows(path: str) -> list[Row]:
  """Reads the first two columns of a TSV without header; nothing in it is a quote, and a line of blanks is nothing.

  Raises:
    UsageError: the file cannot be read or has no text, or a line has no TAB.
  """
  try:
    lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
  except OSError as error:
    raise UsageError(f"{path}: cannot be read ({error.strerror or error}); give a TSV") from error
  except ValueError as error:
    raise UsageError(f"{path}: not UTF-8 text ({error}); {FORM}") from error
  rows = []
  for number, line in enumerate(lines, 1):
    if not line.strip(" \r"):
      continue
    text, tab, rest = line.removesuffix("\r").partition("\t")
    if not tab:
      raise UsageError(f"{path} line {number}: has no TAB; {FORM}")
    labels = tuple(label.strip() for label in rest.split("\t")[0].split(","))
    rows.append(Row(f"{path} line {number}", text, tuple(filter(None, labels))))
  if not rows:
    raise UsageError(f"{path}: has no text; {FORM}")
  return rows


def split_rows(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
  """Returns rows to train with and a tenth of them, by chance, to measure with; raises UsageError for a single row."""
  if len(rows) < 2:
    raise UsageError(f"{rows[0].place}: the only text; there is none to measure with")
  drawn = set(np.random.default_rng(seed).permutation(len(rows))[: max(1, len(rows) // 10)].tolist())
  return [row for i, row in enumerate(rows) if i not in drawn], [rows[i] for i in sorted(drawn)]


def labels_of(rows: Sequence[Row]) -> tuple[str, ...]:
  """Returns every label that stands in the rows, numbers by their size and names by the alphabet."""
  path, _, _ = rows[0].place.rpartition(" line ")
  found = {label for row in rows for label in row.labels}
  if not found:
    raise UsageError(f"{path}: no text has a label; {FORM}")
  in_order = sorted(found, key=lambda label: (int(label), "") if label.isdecimal() else (1 << 62, label))
  return check_labels(in_order, path)


@dataclass(frozen=True)
class Texts:
  """The tokens of N texts, and which labels hold, 1 or 0: float32 [N, n_labels]."""

  tokens: Tokens
  targets: np.ndarray

  def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids and mask of some texts, int32 [B, T]."""
    return pad_batch(self.tokens.input_ids, self.tokens.offsets, rows)

  def sha256(self) -> str:
    """Returns a digest of all that a training sees of them."""
    arrays = (self.tokens.input_ids, self.tokens.offsets, self.targets)
    return sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

  def batches(self) -> list[np.ndarray]:
    """Returns the numbers of all texts, cut as `sorbus embed` cuts them."""
    return token_budget_batches(self.tokens.lengths)

  def shuffled_batches(self, size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Returns the numbers of all texts in batches of `size`, texts of like length together, in an order by chance."""
    order, lengths = generator.permutation(len(self.targets)), self.tokens.lengths
    batches: list[np.ndarray] = []
    for pool in np.split(order, range(size * _SORTED_TOGETHER, len(order), size * _SORTED_TOGETHER)):
      by_length = pool[np.argsort(lengths[pool], kind="stable")]
      batches += np.split(by_length, range(size, len(pool), size))
    return [batches[i] for i in generator.permutation(len(batches))]


def encode_rows(rows: Sequence[Row], wordpiece: Wordpiece, labels: Sequence[str], head: str) -> Texts:
  """Returns rows as tokens and targets; a label is one of `labels` or, where none of these is a number, its number.

  Raises:
    UsageError: with file and line, for a label that is none, a text without a token, or not one label for `softmax`.
  """
  if head == "softmax" and len(labels) < 2:
    raise UsageError(f"--head softmax: {labels[0]!r}, the only label, would always hold; choose --head sigmoid")
  ids = {label: i for i, label in enumerate(labels)}
  if not any(map(str.isdecimal, labels)):  # else 1 may be the label "1", which is not there, or the one after the first
    ids |= {str(i): i for i in range(len(labels))}
  targets = np.zeros((len(rows), len(labels)), np.float32)
  for row, target in zip(rows, targets, strict=True):
    if unknown := [label for label in row.labels if label not in ids]:
      raise UsageError(
        f"{row.place}: label {unknown[0]!r} is none of the {len(labels)} that there are ({', '.join(labels[:3])} …); "
        "mend the line, or give --labels with all of them"
      )
    target[[ids[label] for label in row.labels]] = 1
    if head == "softmax" and target.sum() != 1:
      raise UsageError(f"{row.place}: {target.sum():.0f} labels, softmax is for one each; choose --head sigmoid")
  tokens = wordpiece.tokenise([row.text for row in rows])
  if len(empty := np.flatnonzero(tokens.lengths == 2)):
    raise UsageError(f"{rows[empty[0]].place}: the text {rows[empty[0]].text[:40]!r} has no token; take the line out")
  return Texts(tokens, targets)


def measure(targets: np.ndarray, probabilities: np.ndarray, head: str, threshold: float = 0.5) -> dict[str, float]:
  """Returns loss, micro and macro F1, and the share of texts all of whose labels are right, of [N, n_labels] both.

  A label is predicted where its probability is above the threshold; under `softmax` the likeliest is.
  """
  holds, p = targets > 0, np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
  if head == "softmax":
    predicted = probabilities.argmax(1)[:, None] == np.arange(targets.shape[1])
    loss = -np.log(p[holds]).mean()
  else:
    predicted = probabilities.astype(np.float64) > threshold
    loss = -np.log(np.where(holds, p, 1 - p)).mean()
  right, ever = (predicted & holds).sum(0), predicted.sum(0) + holds.sum(0)  # [n_labels]
  return {
    "loss": float(loss),
    "micro_f1": float(2 * right.sum() / max(1, ever.sum())),
    "macro_f1": float((2 * right / np.maximum(1, ever)).mean()),  # 0 for a label that neither has
    "subset_accuracy": float((predicted == holds).all(1).mean()),
  }
