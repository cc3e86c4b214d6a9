"""Weights as their graph has them: what can be multiplied into them once is not done again for every batch.

- Query, key and value are one matrix; the root of D by which scores are divided is in the query's part.
- BERT's position embeddings have the one token type that there is, type 0, in them.
- The *stream*, the hidden vectors that blocks read and add to, is carried `scale` times as large as the model has it.

Why the last: oneDNN has a fast layer normalisation, which TensorFlow 2.21 puts in the place of several ops, but with
an epsilon of 0.001 whatever the graph says (docs/numerics.md). The normalisation of s · x with epsilon s² · e is that
of x with epsilon e. So with s = √(0.001 / e) the graph itself says 0.001, and is right whether it is fused or not. The
scale costs nothing at run time: weights that read the stream are divided by it, those that write it multiplied.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.model.bert_variables import EMBEDDINGS, HEAD_BIAS, HEAD_WEIGHTS
from transforms.encoder_spec import BertConfig

# What the graph's layer normalisations say, and oneDNN's have.
FUSED_EPSILON = 0.001
# Of a smaller one nothing is left in float32, and the scale has to stay finite.
_SMALLEST_EPSILON = 1e-12
# By their name, float32, in the order in which they are used: arrays, or what `FoldedWeights` makes of variables.
Weights = dict[str, Any]


class StreamWeights:
  """Gives the weights of one layer when they are asked for, so that a large model is not copied as a whole.

  Each method takes the scope under which Google's checkpoints have a layer's variables. These are arrays, or
  TensorFlow's variables while they are trained: the arithmetic is the same, and gradients go through it.

  Attributes:
    scale: how many times as large as the model's the stream is.
  """

  def __init__(self, variables: Mapping[str, Any], epsilon: float, last: str):
    """Takes the variables, the normalisations' epsilon, and the scope whose output is read as the model has it."""
    self._variables, self._last = variables, last
    self.scale = math.sqrt(FUSED_EPSILON / max(epsilon, _SMALLEST_EPSILON))

  def reading(self, scope: str) -> Weights:
    """Of a dense layer that reads the stream."""
    return {"kernel": self._times(f"{scope}/kernel", 1 / self.scale), "bias": self._variables[f"{scope}/bias"]}

  def writing(self, scope: str) -> Weights:
    """Of a dense layer whose output is added to the stream."""
    return {name: self._times(f"{scope}/{name}", self.scale) for name in ("kernel", "bias")}

  def layer_norm(self, scope: str) -> Weights:
    """Of a layer normalisation, whose output is the stream."""
    factor = 1.0 if scope == self._last else self.scale
    return {name: self._times(f"{scope}/{name}", factor) for name in ("beta", "gamma")}

  def _times(self, name: str, factor: float) -> Any:
    return self._variables[name] * np.float32(factor)


class FoldedWeights(StreamWeights):
  """A BERT's."""

  def __init__(
    self,
    variables: Mapping[str, Any],
    config: BertConfig,
    depth: int,
    concatenate: Callable[[list[Any], int], Any] = np.concatenate,
  ):
    """Takes the variables, and how many blocks there are.

    `concatenate` goes with the variables' kind: `tf.concat` with TensorFlow's.
    """
    last = f"bert/encoder/layer_{depth - 1}/output/LayerNorm" if depth else f"{EMBEDDINGS}/LayerNorm"
    super().__init__(variables, config.layer_norm_eps, last)
    self._concatenate = concatenate
    self._query_factor = 1 / math.sqrt(config.hidden_size // config.heads)

  def embeddings(self, scope: str) -> Weights:
    """Of words [V, H], and what is added to them at each position [P, H]."""
    types = self._variables[f"{scope}/token_type_embeddings"][0]  # [H]
    places = (self._variables[f"{scope}/position_embeddings"] + types) * np.float32(self.scale)
    return {"word_embeddings": self._times(f"{scope}/word_embeddings", self.scale), "position_embeddings": places}

  def query_key_value(self, scope: str) -> Weights:
    """Kernel [H, 3H] and bias [3H] of attention's three dense layers, which read the stream."""
    factors = {f"{scope}/query": self._query_factor, f"{scope}/key": 1.0, f"{scope}/value": 1.0}
    kernels = [self._times(f"{name}/kernel", factor / self.scale) for name, factor in factors.items()]
    biases = [self._times(f"{name}/bias", factor) for name, factor in factors.items()]
    return {"kernel": self._concatenate(kernels, 1), "bias": self._concatenate(biases, 0)}

  def unscaled(self, scope: str) -> Weights:
    """Of a dense layer apart from the stream."""
    return {name: self._variables[f"{scope}/{name}"] for name in ("kernel", "bias")}

  def head(self, _scope: str) -> Weights:
    """Of the classifier [n_labels, H], and its bias [n_labels]."""
    return {"weights": self._variables[HEAD_WEIGHTS], "bias": self._variables[HEAD_BIAS]}
