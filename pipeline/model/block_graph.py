"""What the blocks of every network here are drawn of: dense layers, layer normalisations, activations, constants."""

import math
from collections.abc import Callable

from pipeline.model.fold_weights import FUSED_EPSILON, StreamWeights, Weights
from transforms.frozen_graph import tf


class Blocks:
  """Embeddings and the first `depth` blocks over one batch. A tensor of tokens is [B*T, H] throughout.

  A network sets `_weights`, and puts what embeddings and blocks give into `stream`.

  Attributes:
    stream: in the scale of `StreamWeights`, but for the last.
  """

  _weights: StreamWeights

  def __init__(self, activation: str, input_ids: "tf.Tensor", depth: int):
    self._activation, self._depth = activation, depth
    self._drawn: dict[str, list[tf.Tensor]] = {}
    shape = tf.shape(input_ids)
    self._B, self._T = shape[0], shape[1]
    self.stream: list[tf.Tensor] = []

  def tokens(self, i: int) -> "tf.Tensor":
    """The vectors of all tokens in layer i: the embedding output (0), or the output of a block."""
    return self.stream[i] if i == self._depth else self.stream[i] * (1.0 / self._weights.scale)

  def texts(self, i: int) -> "tf.Tensor":
    """The same, [B, T, H]."""
    return self.by_text(self.tokens(i))

  def by_text(self, tokens: "tf.Tensor", name: str | None = None) -> "tf.Tensor":
    """[B*T, C] → [B, T, C]."""
    return tf.reshape(tokens, [self._B, self._T, tokens.shape[-1]], name=name)

  def layer_norm(self, x: "tf.Tensor", scope: str) -> "tf.Tensor":
    beta, gamma = self.draw(scope, self._weights.layer_norm)
    # Written so that oneDNN's one op takes its place, which has that epsilon whatever stands here (fold_weights.py).
    mean, variance = tf.nn.moments(x, [1], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, FUSED_EPSILON)

  def dense(self, x: "tf.Tensor", scope: str, weights: "Callable[[str], Weights]") -> "tf.Tensor":
    kernel, bias = self.draw(scope, weights)
    return tf.nn.bias_add(tf.matmul(x, kernel), bias)

  def activate(self, x: "tf.Tensor") -> "tf.Tensor":
    match self._activation:
      case "gelu_tanh":
        return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
      case "gelu_erf":
        return 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))
      case name:
        return {"relu": tf.nn.relu, "tanh": tf.tanh}[name](x)

  def draw(self, scope: str, weights: "Callable[[str], Weights]") -> "list[tf.Tensor]":
    """Arrays as constants, the same ones each time: the last block stands in a graph twice where [CLS] is pooled."""
    if scope not in self._drawn:
      self._drawn[scope] = [
        value if tf.is_tensor(value) else tf.constant(value, name=f"{scope}/{name}")
        for name, value in weights(scope).items()
      ]
    return self._drawn[scope]
