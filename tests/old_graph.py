"""BERT graphs as people froze them with TensorFlow 1: google-research/bert's `modeling.py`, its weights as constants.

Drawn with compat.v1, operation for operation what that code draws where it matters here: layer normalisation by
`tf.nn.moments` over axis rank - 1 and `tf.nn.batch_normalization`, sequences flattened to [B*T, H] between the blocks,
the assertion on the length behind a control input, and the names of nodes.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.tiny_bert import random_variables
from transforms.frozen_graph import tf

v1 = tf.compat.v1


@dataclass(frozen=True, kw_only=True)
class OldGraph:
  """How a graph was frozen.

  Attributes:
    names: of ids, mask and token types; None for one that it does not have.
    shape: of its inputs.
    layer_norm: (x [.., H], gamma, beta) → [.., H]; Google's by default.
    asserts: whether the length is asserted, as in `modeling.py`.
    keep_prob: whether dropout's share has to be fed.
  """

  heads: int = 2
  names: tuple[str, str | None, str | None] = ("input_ids", "input_mask", None)
  dtype: Any = tf.int32
  shape: tuple[int | None, int | None] = (None, 200)
  layer_norm: Callable[..., Any] | None = None
  asserts: bool = False
  keep_prob: bool = False
  pooler: bool = True

  def freeze(self, variables: Mapping[str, np.ndarray]) -> Any:
    """Returns the GraphDef."""
    graph = tf.Graph()
    with graph.as_default():
      ids, mask, types = (name and v1.placeholder(self.dtype, self.shape, name) for name in self.names)
      _Drawing(self, variables).draw(ids, mask, types)
    outputs = [op.name for op in graph.get_operations() if re.search(r"encoder/Reshape_|pooler/dense/Tanh", op.name)]
    return v1.graph_util.extract_sub_graph(graph.as_graph_def(), outputs)  # as people did: it keeps control inputs


def google_layer_norm(x: Any, gamma: Any, beta: Any) -> Any:
  """What `tf.contrib.layers.layer_norm(begin_norm_axis=-1)` draws."""
  mean, variance = tf.nn.moments(x, [x.shape.rank - 1], keepdims=True)
  return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-12)


class _Drawing:
  def __init__(self, old: OldGraph, variables: Mapping[str, np.ndarray]):
    self._old, self._variables = old, variables
    self._H = variables["bert/pooler/dense/bias"].shape[0]
    self._keep_prob = v1.placeholder(tf.float32, [], "keep_prob") if old.keep_prob else None

  def draw(self, ids: Any, mask: Any, types: Any) -> None:
    shape = v1.shape(ids)
    B, T = shape[0], self._old.shape[1] or shape[1]
    x = tf.reshape(self._embed(ids, types, B, T), [-1, self._H])
    # [B, T, T], which adds -10,000 to the score of padding
    to_mask = tf.cast(tf.reshape(tf.ones_like(ids) if mask is None else mask, [B, 1, T]), tf.float32)
    adder = (1.0 - tf.expand_dims(tf.ones([B, T, 1]) * to_mask, [1])) * -10000.0
    blocks = len({name.split("/")[2] for name in self._variables if name.startswith("bert/encoder/")})
    for i in range(blocks):
      x = self._block(x, adder, B, T, f"bert/encoder/layer_{i}")
      name = "bert/encoder/Reshape_" + str(i + 2)
      tokens = tf.reshape(x, [B, T, self._H], name=name)
    if self._old.pooler:
      first = tf.squeeze(tokens[:, 0:1, :], 1)
      tf.tanh(self._dense(first, "bert/pooler/dense"), name="bert/pooler/dense/Tanh")

  def _embed(self, ids: Any, types: Any, B: Any, T: Any) -> Any:
    table = self._constant("bert/embeddings/word_embeddings")
    flat = tf.reshape(tf.expand_dims(ids, -1), [-1])
    words = tf.reshape(tf.gather(tf.identity(table), flat), [B, T, self._H])
    type_table = self._constant("bert/embeddings/token_type_embeddings")
    flat_types = tf.one_hot(tf.reshape(types if types is not None else tf.zeros_like(ids), [-1]), depth=2)
    words += tf.reshape(tf.matmul(flat_types, type_table), [B, T, self._H])
    table = self._constant("bert/embeddings/position_embeddings")
    asserted = [v1.assert_less_equal(T, table.shape[0])] if self._old.asserts else []
    with tf.control_dependencies(asserted):
      words += tf.reshape(tf.slice(table, [0, 0], [T, -1]), [1, T, self._H])
    words = self._layer_norm(words, "bert/embeddings")
    return words if self._keep_prob is None else words * (self._keep_prob / 1.0)

  def _block(self, x: Any, adder: Any, B: Any, T: Any, scope: str) -> Any:
    heads, size = self._old.heads, self._H // self._old.heads

    def split(name: str) -> Any:
      dense = self._dense(x, f"{scope}/attention/self/{name}")
      return tf.transpose(tf.reshape(dense, [B, T, heads, size]), [0, 2, 1, 3])

    scores = tf.multiply(tf.matmul(split("query"), split("key"), transpose_b=True), 1.0 / math.sqrt(float(size)))
    context = tf.transpose(tf.matmul(tf.nn.softmax(scores + adder), split("value")), [0, 2, 1, 3])
    context = tf.reshape(context, [B * T, self._H])
    x = self._layer_norm(self._dense(context, f"{scope}/attention/output/dense") + x, f"{scope}/attention/output")
    wide = self._dense(x, f"{scope}/intermediate/dense")
    wide *= 0.5 * (1.0 + tf.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * tf.pow(wide, 3))))
    return self._layer_norm(self._dense(wide, f"{scope}/output/dense") + x, f"{scope}/output")

  def _layer_norm(self, x: Any, scope: str) -> Any:
    gamma, beta = (self._constant(f"{scope}/LayerNorm/{name}") for name in ("gamma", "beta"))
    with v1.name_scope(f"{scope}/LayerNorm/"):
      return (self._old.layer_norm or google_layer_norm)(x, gamma, beta)

  def _dense(self, x: Any, scope: str) -> Any:
    return tf.nn.bias_add(tf.matmul(x, self._constant(f"{scope}/kernel")), self._constant(f"{scope}/bias"))

  def _constant(self, name: str) -> Any:
    return tf.constant(self._variables[name], name=name)


def old_variables(*, hidden_size: int = 32, positions: int = 256, seed: int = 0) -> dict[str, np.ndarray]:
  """Random weights of two layers whose position table is long enough for graphs of 200 tokens."""
  variables = random_variables(hidden_size=hidden_size, layers=2, seed=seed)
  table = np.random.default_rng(seed).standard_normal((positions, hidden_size)) / np.sqrt(hidden_size)
  return variables | {"bert/embeddings/position_embeddings": table.astype(np.float32)}
