"""The functions that float64 forward passes in NumPy are made of; variables are under Google's names."""

import math
from collections.abc import Mapping

import numpy as np


def softmax(x: np.ndarray) -> np.ndarray:
  """Over the last axis."""
  weights = np.exp(x - x.max(axis=-1, keepdims=True))
  return weights / weights.sum(axis=-1, keepdims=True)


def layer_norm(variables: Mapping[str, np.ndarray], scope: str, x: np.ndarray, epsilon: float) -> np.ndarray:
  """Of each token: [T, H]."""
  centred = x - x.mean(axis=-1, keepdims=True)
  deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + epsilon)
  return centred / deviation * variables[f"{scope}/LayerNorm/gamma"] + variables[f"{scope}/LayerNorm/beta"]


def dense(variables: Mapping[str, np.ndarray], scope: str, x: np.ndarray) -> np.ndarray:
  """[T, in] → [T, out]."""
  return x @ variables[f"{scope}/kernel"].astype(np.float64) + variables[f"{scope}/bias"]


_erf = np.vectorize(math.erf, otypes=[np.float64])


def activate(name: str, x: np.ndarray) -> np.ndarray:
  """Entry by entry; `name` as in BertConfig."""
  match name:
    case "gelu_tanh":
      return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    case "gelu_erf":
      return x / 2 * (1 + _erf(x / math.sqrt(2)))
    case "relu":
      return np.maximum(x, 0)
    case "tanh":
      return np.tanh(x)
    case _:
      raise ValueError(f"activation {name!r}")
