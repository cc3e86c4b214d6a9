"""What an encoder's head adds to each published row: probabilities, and for a sigmoid head the labels that hold."""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from transforms.encoder_spec import Head
from transforms.errors import UsageError
from transforms.vector_table import to_vectors

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Predictions:
  """The columns that a head adds; none without one.

  Attributes:
    labels: names of the probabilities, in their order.
    threshold: a label holds where its probability is above; None where the labels exclude each other (softmax).
  """

  labels: tuple[str, ...] = ()
  threshold: float | None = None

  @classmethod
  def of(cls, head: Head | None, threshold: float | None) -> "Predictions":
    """Returns what a head adds, given the threshold that is asked for; raises UsageError if it has no use for one."""
    sigmoid = head is not None and head.kind == "sigmoid"
    if threshold is not None and not sigmoid:
      raise UsageError(
        f"--threshold {threshold:g}: this encoder has no sigmoid head, whose labels it would choose; leave it out, or "
        "freeze the checkpoint with --head sigmoid if that is what it was trained with"
      )
    default = DEFAULT_THRESHOLD if sigmoid else None
    return cls(head.labels if head else (), default if threshold is None else threshold)

  @property
  def fields(self) -> tuple[pa.Field, ...]:
    """The columns' names and types."""
    fields = []
    if self.labels:
      fields.append(pa.field("probabilities", pa.list_(pa.float32(), len(self.labels)), nullable=False))
    if self.threshold is not None:
      fields.append(pa.field("labels", pa.list_(pa.string()), nullable=False))
    return tuple(fields)

  @property
  def metadata(self) -> dict[str, str]:
    """Key-value metadata of a file with these columns: what they mean, as JSON."""
    names = {"labels": json.dumps(self.labels, ensure_ascii=False)} if self.labels else {}
    return names | ({} if self.threshold is None else {"threshold": json.dumps(self.threshold)})

  def columns(self, probabilities: np.ndarray) -> list[pa.Array]:
    """Returns the columns of rows with these probabilities, float32 [N, n_labels]."""
    columns = [to_vectors(probabilities)] if self.labels else []
    return columns if self.threshold is None else [*columns, self._holding(probabilities, self.threshold)]

  def _holding(self, probabilities: np.ndarray, threshold: float) -> pa.Array:
    # In float64, as whoever compares a column's float32 with a number that he writes himself.
    holds = probabilities.astype(np.float64) > threshold  # [N, n_labels]
    offsets = np.concatenate([[0], np.cumsum(holds.sum(axis=1))]).astype(np.int32)
    names = pa.array(self.labels, pa.string()).take(pa.array(np.nonzero(holds)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), names)


NO_PREDICTIONS = Predictions()
