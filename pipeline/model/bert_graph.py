"""BERT's forward pass as a GraphDef with its weights as constants, cut after the last layer that is needed.

Follows google-research/bert `modeling.py`, with token types all 0; dropout is for who trains (`examples/finetune`).
Dimensions, here and in the comments:

  B = rows of a batch, T = their padded length, H = hidden size, A = attention heads, D = H / A,
  C = width of the combined layers (H, or a multiple of it), W = width of the vector (C, or 2 C).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.model.bert_variables import EMBEDDINGS, HEAD_WEIGHTS, LAYER_LOGIT, POOLER
from pipeline.model.block_graph import Blocks
from pipeline.model.fold_weights import FoldedWeights
from pipeline.model.framing import BERT_FRAMING
from pipeline.model.readout_graph import (
  HIDDEN_NODE,
  POOLED_NODE,
  check_weights_fit,
  combine,
  draw_inputs,
  pool,
  pool_all,
  serialised,
)
from transforms.encoder_spec import BertConfig, Head, Readout, TensorNames
from transforms.frozen_graph import tf

POOLER_NODE = "bert/pooler/dense/Tanh"
# As `run_classifier.py` and its multi-label offspring have them.
HEAD_NODES = {"softmax": "loss/Softmax", "sigmoid": "loss/Sigmoid"}
# Poolings that need no other token.
_OF_CLS = ("cls", "pooler")


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
  check_weights_fit(variables)
  graph = tf.Graph()
  with graph.as_default():
    input_ids, input_mask = draw_inputs()
    depth = config.layers if head else max(readout.layers)
    bert = Bert(FoldedWeights(variables, config, depth), config, input_ids, input_mask, depth)
    output = bert.vectors(input_mask, readout)
    if head:
      bert.probabilities(output if readout.pooling == "pooler" else bert.pooler(bert.head_input(readout)), head.kind)
  return serialised(graph, output, hidden=HIDDEN_NODE, probabilities=HEAD_NODES[head.kind] if head else None)


def build_all_layers(
  variables: Mapping[str, np.ndarray], config: BertConfig, poolings: Sequence[str], *, pooler: bool
) -> tuple[bytes, TensorNames]:
  """Returns, as `build_graph`, a graph whose output is every layer in every pooling, side by side: float32 [B, n · H].

  Pooling by pooling there are layers 0 to L; where it is asked for, the pooler's vector comes last.
  """
  graph = tf.Graph()
  with graph.as_default():
    input_ids, input_mask = draw_inputs()
    weights = FoldedWeights(variables, config, config.layers)
    bert = Bert(weights, config, input_ids, input_mask, config.layers)
    hidden = [bert.texts(i) for i in range(config.layers + 1)]  # [B, T, H] each
    parts = pool_all(hidden, input_mask, poolings, BERT_FRAMING)  # [B, H] each
    parts += [bert.pooler(hidden[-1][:, 0, :])] if pooler else []
    output = tf.concat(parts, 1, name=POOLED_NODE)
  return serialised(graph, output)


class Bert(Blocks):
  """A BERT's.

  Attributes:
    drop: stands wherever `modeling.py` has dropout.
  """

  _weights: FoldedWeights

  def __init__(
    self,
    weights: FoldedWeights,
    config: BertConfig,
    input_ids: "tf.Tensor",
    input_mask: "tf.Tensor",
    depth: int,
    drop: "Callable[[tf.Tensor], tf.Tensor]" = lambda x: x,
  ):
    self._config, self._weights, self._drop = config, weights, drop
    super().__init__(config.activation, input_ids, depth)
    # Softmax of a score lowered by 10,000 is 0 to the last bit, so that padding weighs nothing.
    self._masked = (1.0 - tf.cast(input_mask, tf.float32))[:, tf.newaxis, tf.newaxis, :] * -10000.0  # [B, 1, 1, T]
    self.stream.append(self._embed(input_ids))
    for i in range(depth):
      self.stream.append(self._block(i))

  def vectors(self, input_mask: "tf.Tensor", readout: Readout) -> "tf.Tensor":  # [B, W]
    flat = self._combine([self.tokens(i) for i in readout.layers], readout.combine)  # [B*T, C]
    hidden = self.by_text(flat, HIDDEN_NODE)  # [B, T, C]
    if readout.pooling not in _OF_CLS:
      return pool(hidden, input_mask, readout)
    first = self._combine([self.first(i) for i in readout.layers], readout.combine)  # [B, C]
    return self.pooler(first) if readout.pooling == "pooler" else tf.identity(first, name=POOLED_NODE)

  def head_input(self, readout: Readout) -> "tf.Tensor":
    """The vector of [CLS] that a head's pooler takes, [B, H]: of the learned mix where that is read, else the last.

    It is one of those of all tokens where these are computed anyway.
    """
    layers = readout.layers if readout.combine == "fused" else (self._depth,)
    has_tokens = readout.pooling not in _OF_CLS and self._depth in readout.layers
    outputs = [self._first(self.tokens(i)) if has_tokens else self.first(i) for i in layers]
    return self._combine(outputs, readout.combine)

  def first(self, i: int) -> "tf.Tensor":
    """The vector of [CLS] in layer i, [B, H]; the last block is computed for it alone."""
    if i == self._depth > 0:
      return self._block(i - 1, first_only=True)
    return self._first(self.tokens(i))

  def pooler(self, first: "tf.Tensor") -> "tf.Tensor":
    """A vector of [CLS], [B, H], after a dense layer and tanh."""
    return tf.tanh(self.dense(first, POOLER, self._weights.unscaled), name=POOLER_NODE)

  def probabilities(self, pooled: "tf.Tensor", kind: str) -> "tf.Tensor":
    """The head's: [B, H] → [B, n_labels]."""
    return {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid}[kind](self.logits(pooled), name=HEAD_NODES[kind])

  def logits(self, pooled: "tf.Tensor") -> "tf.Tensor":
    """The head's, before they become probabilities: [B, H] → [B, n_labels]."""
    weights, bias = self.draw(HEAD_WEIGHTS, self._weights.head)
    return tf.nn.bias_add(tf.matmul(self._drop(pooled), weights, transpose_b=True), bias)

  def _combine(self, outputs: "Sequence[tf.Tensor]", how: str) -> "tf.Tensor":
    """Several layers as one: [rows, H] each → [rows, C]."""
    if how == "fused":  # of all blocks: the i-th has a logit of its own for each token
      parts = [self.dense(output, f"{LAYER_LOGIT}{i}", self._weights.unscaled) for i, output in enumerate(outputs)]
      weights = tf.nn.softmax(tf.concat(parts, 1))  # [rows, L]
      return tf.add_n([output * weights[:, i : i + 1] for i, output in enumerate(outputs)])
    return combine(outputs, how)

  def _embed(self, input_ids: "tf.Tensor") -> "tf.Tensor":
    words, places = self.draw(EMBEDDINGS, self._weights.embeddings)  # [V, H], [P, H]
    x = tf.gather(words, input_ids) + places[: self._T]  # [B, T, H]
    return self._drop(self.layer_norm(tf.reshape(x, [-1, self._config.hidden_size]), f"{EMBEDDINGS}/LayerNorm"))

  def _block(self, i: int, *, first_only: bool = False) -> "tf.Tensor":
    """The output of block i, of all tokens or [B, H] of [CLS] alone."""
    scope, x, weights = f"bert/encoder/layer_{i}", self.stream[i], self._weights
    context = self._attend(x, f"{scope}/attention/self", first_only)
    if first_only:
      x = self._first(x)
    x = self._drop(self.dense(context, f"{scope}/attention/output/dense", weights.writing)) + x
    x = self.layer_norm(x, f"{scope}/attention/output/LayerNorm")
    wide = self.activate(self.dense(x, f"{scope}/intermediate/dense", weights.reading))  # [rows, intermediate size]
    x = self._drop(self.dense(wide, f"{scope}/output/dense", weights.writing)) + x
    return self.layer_norm(x, f"{scope}/output/LayerNorm")

  def _attend(self, x: "tf.Tensor", scope: str, first_only: bool) -> "tf.Tensor":
    H, A = self._config.hidden_size, self._config.heads
    product = self.dense(x, scope, self._weights.query_key_value)  # [B*T, 3H]
    apart = tf.reshape(product, [self._B, self._T, 3, A, H // A])
    query, key, value = tf.unstack(tf.transpose(apart, [2, 0, 3, 1, 4]))  # [B, A, T, D] each
    if first_only:
      query = query[:, :, :1]  # [B, A, 1, D]
    scores = tf.matmul(query, key, transpose_b=True) + self._masked  # [B, A, T, T]
    context = tf.matmul(self._drop(tf.nn.softmax(scores)), value)  # [B, A, T, D]
    # As many rows as x has: said so that TensorFlow sees that the two can be added, and does it within the product.
    rows = [-1, H] if first_only else tf.shape(x)
    return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), rows)

  def _first(self, tokens: "tf.Tensor") -> "tf.Tensor":
    """[B*T, H] → [B, H], of the first token of each row."""
    return self.by_text(tokens)[:, 0, :]
