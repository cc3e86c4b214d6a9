"""How hidden vectors of one unpadded sequence become its vector, in float64 NumPy."""

from collections.abc import Sequence

import numpy as np

from pipeline.model.framing import BERT_FRAMING, Framing
from transforms.encoder_spec import Readout


def combine(outputs: Sequence[np.ndarray], how: str) -> np.ndarray:
  """Returns several layers [T, H] as one [T, C]."""
  match how:
    case "average":
      return np.mean(outputs, axis=0)
    case "sum":
      return np.sum(outputs, axis=0)
    case "concat":
      return np.hstack(outputs)
    case _:
      raise ValueError(f"combine {how!r}")


def pool_tokens(hidden: np.ndarray, readout: Readout, framing: Framing = BERT_FRAMING) -> np.ndarray:
  """Returns the vector [W] of one unpadded sequence of token vectors [T, C]; any pooling but `pooler`."""
  own = slice(framing.before, len(hidden) - framing.after)
  words = hidden[own] if readout.exclude_special_tokens else hidden
  match readout.pooling:
    case "mean":
      return words.mean(axis=0)
    case "max":
      return words.max(axis=0)
    case "mean-max":
      return np.hstack([words.mean(axis=0), words.max(axis=0)])
    case "cls":
      return hidden[0 if framing.cls_is_first else -1]
    case "last":
      return hidden[-1]
    case _:
      raise ValueError(f"pooling {readout.pooling!r}")
