"""BERT's forward pass as a GraphDef with its weights as constants, cut after the last layer that is needed.

Follows google-research/bert `modeling.py`, with token types all 0 and no dropout. Dimensions, here and in the comments:

  B = rows of a batch, T = their padded length, H = hidden size, A = attention heads, D = H / A,
  C = width of the combined layers (H, or a multiple of it), W = width of the vector (C, or 2 C).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.model.checkpoint import EMBEDDINGS, HEAD_WEIGHTS, LAYER_LOGIT, POOLER
from pipeline.model.fold_weights import FUSED_EPSILON, FoldedWeights, Weights
from transforms.encoder_spec import BertConfig, Head, Readout, TensorNames
from transforms.errors import EncoderError
from transforms.frozen_graph import MAX_GRAPH_BYTES, tf

POOLER_NODE, POOLED_NODE, HIDDEN_NODE = "bert/pooler/dense/Tanh", "bert/pooled", "bert/hidden"
# As `run_classifier.py` and its multi-label offspring have them.
HEAD_NODES = {"softmax": "loss/Softmax", "sigmoid": "loss/Sigmoid"}
# Poolings that need no other token.
_OF_CLS = ("cls", "pooler")
# Room for what is not weights: nodes and names.
_GRAPH_OVERHEAD = 1 << 20


def build_graph(
  variables: Mapping[str, np.ndarray], config: BertConfig, readout: Readout, head: Head | None = None
) -> tuple[bytes, TensorNames]:
  """Returns a serialised GraphDef and the names of its nodes.

  Args:
    variables: float32, under Google's names; those that `Checkpoint.used` gives for the readout.
    config: the sizes.
    readout: which vector.
    head: the classifier whose probabilities come with it.

  Raises:
    EncoderError: the weights do not fit a GraphDef.
  """
  size = sum(value.nbytes for value in variables.values())
  if size + _GRAPH_OVERHEAD > MAX_GRAPH_BYTES:
    raise EncoderError(f"{size / 1e9:.1f} GB of weights do not fit a TensorFlow graph of 2 GB; choose a smaller model")
  graph = tf.Graph()
  with graph.as_default():
    input_ids, input_mask = (tf.compat.v1.placeholder(tf.int32, [None, None], n) for n in ("input_ids", "input_mask"))
    bert = _Bert(variables, config, input_ids, input_mask, config.layers if head else max(readout.layers))
    output = bert.vectors(input_mask, readout)
    if head:
      bert.probabilities(output if readout.pooling == "pooler" else bert.pooler(bert.head_input(readout)), head.kind)
  names = TensorNames("input_ids", "input_mask", output.op.name, HIDDEN_NODE, HEAD_NODES[head.kind] if head else None)
  return graph.as_graph_def().SerializeToString(deterministic=True), names


def build_all_layers(
  variables: Mapping[str, np.ndarray], config: BertConfig, poolings: Sequence[str], *, pooler: bool
) -> tuple[bytes, TensorNames]:
  """Returns, as `build_graph`, a graph whose output is every layer in every pooling, side by side: float32 [B, n · H].

  Pooling by pooling there are layers 0 to L; where it is asked for, the pooler's vector comes last.
  """
  graph = tf.Graph()
  with graph.as_default():
    input_ids, input_mask = (tf.compat.v1.placeholder(tf.int32, [None, None], n) for n in ("input_ids", "input_mask"))
    bert = _Bert(variables, config, input_ids, input_mask, config.layers)
    hidden = [bert.texts(i) for i in range(config.layers + 1)]  # [B, T, H] each
    parts = [_pool(x, input_mask, input_mask, pooling) for pooling in poolings for x in hidden]  # [B, H] each
    parts += [bert.pooler(hidden[-1][:, 0, :])] if pooler else []
    output = tf.concat(parts, 1, name=POOLED_NODE)
  names = TensorNames("input_ids", "input_mask", output.op.name)
  return graph.as_graph_def().SerializeToString(deterministic=True), names


class _Bert:
  """The first `depth` blocks over one batch. A tensor of tokens is [B*T, H] throughout."""

  def __init__(
    self,
    variables: Mapping[str, np.ndarray],
    config: BertConfig,
    input_ids: "tf.Tensor",
    input_mask: "tf.Tensor",
    depth: int,
  ):
    self._config, self._depth, self._weights = config, depth, FoldedWeights(variables, config, depth)
    self._constants: dict[str, list[tf.Tensor]] = {}
    shape = tf.shape(input_ids)
    self._B, self._T = shape[0], shape[1]
    # Softmax of a score lowered by 10,000 is 0 to the last bit, so that padding weighs nothing.
    self._masked = (1.0 - tf.cast(input_mask, tf.float32))[:, tf.newaxis, tf.newaxis, :] * -10000.0  # [B, 1, 1, T]
    self._stream = [self._embed(input_ids)]  # in the scale of FoldedWeights, but for the last
    for i in range(depth):
      self._stream.append(self._block(i))

  def vectors(self, input_mask: "tf.Tensor", readout: Readout) -> "tf.Tensor":  # [B, W]
    flat = self._combine([self.tokens(i) for i in readout.layers], readout.combine)  # [B*T, C]
    hidden = tf.reshape(flat, [self._B, self._T, flat.shape[-1]], name=HIDDEN_NODE)  # [B, T, C]
    if readout.pooling not in _OF_CLS:
      return pool(hidden, input_mask, readout)
    first = self._combine([self.first(i) for i in readout.layers], readout.combine)  # [B, C]
    return self.pooler(first) if readout.pooling == "pooler" else tf.identity(first, name=POOLED_NODE)

  def head_input(self, readout: Readout) -> "tf.Tensor":
    """The vector of [CLS] after the last block, [B, H]: one of those of all tokens where these are computed anyway."""
    if readout.pooling not in _OF_CLS and self._depth in readout.layers:
      return self._first(self.tokens(self._depth))
    return self.first(self._depth)

  def tokens(self, i: int) -> "tf.Tensor":
    """The vectors of all tokens in layer i: the embedding output (0), or the output of a block."""
    return self._stream[i] if i == self._depth else self._stream[i] * (1.0 / self._weights.scale)

  def texts(self, i: int) -> "tf.Tensor":
    """The same, [B, T, H]."""
    return tf.reshape(self.tokens(i), [self._B, self._T, self._config.hidden_size])

  def first(self, i: int) -> "tf.Tensor":
    """The vector of [CLS] in layer i, [B, H]; the last block is computed for it alone."""
    if i == self._depth > 0:
      return self._block(i - 1, first_only=True)
    return self._first(self.tokens(i))

  def pooler(self, first: "tf.Tensor") -> "tf.Tensor":
    """The last layer's vector of [CLS], [B, H], after a dense layer and tanh."""
    return tf.tanh(self._dense(first, POOLER, self._weights.unscaled), name=POOLER_NODE)

  def probabilities(self, pooled: "tf.Tensor", kind: str) -> "tf.Tensor":
    """The head's: [B, H] → [B, n_labels]."""
    weights, bias = self._draw(HEAD_WEIGHTS, self._weights.head)
    logits = tf.nn.bias_add(tf.matmul(pooled, weights, transpose_b=True), bias)
    return {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid}[kind](logits, name=HEAD_NODES[kind])

  def _combine(self, outputs: "Sequence[tf.Tensor]", combine: str) -> "tf.Tensor":
    """Several layers as one: [rows, H] each → [rows, C]."""
    if combine == "fused":  # of all blocks: the i-th has a logit of its own for each token
      parts = [self._dense(output, f"{LAYER_LOGIT}{i}", self._weights.unscaled) for i, output in enumerate(outputs)]
      weights = tf.nn.softmax(tf.concat(parts, 1))  # [rows, L]
      return tf.add_n([output * weights[:, i : i + 1] for i, output in enumerate(outputs)])
    if len(outputs) == 1:
      return outputs[0]
    if combine == "concat":
      return tf.concat(outputs, 1)
    total = tf.add_n(outputs)
    return total if combine == "sum" else total / float(len(outputs))

  def _embed(self, input_ids: "tf.Tensor") -> "tf.Tensor":
    words, places = self._draw(EMBEDDINGS, self._weights.embeddings)  # [V, H], [P, H]
    x = tf.gather(words, input_ids) + places[: self._T]  # [B, T, H]
    return self._layer_norm(tf.reshape(x, [-1, self._config.hidden_size]), f"{EMBEDDINGS}/LayerNorm")

  def _block(self, i: int, *, first_only: bool = False) -> "tf.Tensor":
    """The output of block i, of all tokens or [B, H] of [CLS] alone."""
    scope, x, weights = f"bert/encoder/layer_{i}", self._stream[i], self._weights
    context = self._attend(x, f"{scope}/attention/self", first_only)
    if first_only:
      x = self._first(x)
    x = self._dense(context, f"{scope}/attention/output/dense", weights.writing) + x
    x = self._layer_norm(x, f"{scope}/attention/output/LayerNorm")
    wide = self._activate(self._dense(x, f"{scope}/intermediate/dense", weights.reading))  # [rows, intermediate size]
    x = self._dense(wide, f"{scope}/output/dense", weights.writing) + x
    return self._layer_norm(x, f"{scope}/output/LayerNorm")

  def _attend(self, x: "tf.Tensor", scope: str, first_only: bool) -> "tf.Tensor":
    H, A = self._config.hidden_size, self._config.heads
    product = self._dense(x, scope, self._weights.query_key_value)  # [B*T, 3H]
    apart = tf.reshape(product, [self._B, self._T, 3, A, H // A])
    query, key, value = tf.unstack(tf.transpose(apart, [2, 0, 3, 1, 4]))  # [B, A, T, D] each
    if first_only:
      query = query[:, :, :1]  # [B, A, 1, D]
    scores = tf.matmul(query, key, transpose_b=True) + self._masked  # [B, A, T, T]
    context = tf.matmul(tf.nn.softmax(scores), value)  # [B, A, T, D]
    # As many rows as x has: said so that TensorFlow sees that the two can be added, and does it within the product.
    rows = [-1, H] if first_only else tf.shape(x)
    return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), rows)

  def _first(self, tokens: "tf.Tensor") -> "tf.Tensor":
    """[B*T, H] → [B, H], of the first token of each row."""
    return tf.reshape(tokens, [self._B, self._T, self._config.hidden_size])[:, 0, :]

  def _layer_norm(self, x: "tf.Tensor", scope: str) -> "tf.Tensor":
    beta, gamma = self._draw(scope, self._weights.layer_norm)
    # Written so that oneDNN's one op takes its place, which has that epsilon whatever stands here (fold_weights.py).
    mean, variance = tf.nn.moments(x, [1], keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, FUSED_EPSILON)

  def _dense(self, x: "tf.Tensor", scope: str, weights: "Callable[[str], Weights]") -> "tf.Tensor":
    kernel, bias = self._draw(scope, weights)
    return tf.nn.bias_add(tf.matmul(x, kernel), bias)

  def _activate(self, x: "tf.Tensor") -> "tf.Tensor":
    match self._config.activation:
      case "gelu_tanh":
        return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
      case "gelu_erf":
        return 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))
      case name:
        return {"relu": tf.nn.relu, "tanh": tf.tanh}[name](x)

  def _draw(self, scope: str, weights: "Callable[[str], Weights]") -> "list[tf.Tensor]":
    """Constants, the same ones each time: the last block stands in the graph twice where [CLS] is pooled."""
    if scope not in self._constants:
      self._constants[scope] = [tf.constant(value, name=f"{scope}/{name}") for name, value in weights(scope).items()]
    return self._constants[scope]


def pool(hidden: "tf.Tensor", input_mask: "tf.Tensor", readout: Readout) -> "tf.Tensor":
  """Returns the node POOLED_NODE [B, W] of token vectors [B, T, C] and their mask [B, T]; not for `pooler`."""
  counted = _without_special_tokens(input_mask) if readout.exclude_special_tokens else input_mask  # [B, T]
  return tf.identity(_pool(hidden, input_mask, counted, readout.pooling), name=POOLED_NODE)


def _pool(hidden: "tf.Tensor", input_mask: "tf.Tensor", counted: "tf.Tensor", pooling: str) -> "tf.Tensor":
  """[B, T, C] → [B, W]; `counted` [B, T] is 1 for the tokens that count in a mean or a maximum."""
  if pooling == "cls":
    return hidden[:, 0, :]
  if pooling == "last":
    return tf.gather(hidden, tf.reduce_sum(input_mask, 1) - 1, axis=1, batch_dims=1)
  mask = tf.cast(counted, tf.float32)[:, :, tf.newaxis]  # [B, T, 1]
  parts = []
  if pooling in ("mean", "mean-max"):
    # The divisor is never 0: a text without a token of its own is rejected before it comes here.
    parts.append(tf.reduce_sum(hidden * mask, 1) / tf.reduce_sum(mask, 1))
  if pooling in ("max", "mean-max"):
    parts.append(tf.reduce_max(tf.where(mask > 0, hidden, -np.inf), 1))
  return parts[0] if len(parts) == 1 else tf.concat(parts, 1)


def _without_special_tokens(input_mask: "tf.Tensor") -> "tf.Tensor":
  """A mask [B, T] without the first token and the last: a token between them has another after it.

  Go by their place, not by their ids: a [SEP] that stands in a text itself is one of its tokens.
  """
  return tf.pad(input_mask[:, 2:], [[0, 0], [1, 1]])
