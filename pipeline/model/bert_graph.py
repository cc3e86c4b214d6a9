"""BERT's forward pass as a GraphDef with its weights as constants, cut after the last layer that is needed.

Follows google-research/bert `modeling.py`, with token types all 0 and no dropout. Dimensions, here and in the comments:

  B = rows of a batch, T = their padded length, H = hidden size, A = attention heads, D = H / A,
  C = width of the combined layers (H, or a multiple of it), W = width of the vector (C, or 2 C).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.model.checkpoint import EMBEDDINGS, HEAD_BIAS, HEAD_WEIGHTS, LAYER_LOGIT, POOLER
from transforms.encoder_spec import BertConfig, Head, Readout, TensorNames
from transforms.errors import EncoderError
from transforms.frozen_graph import MAX_GRAPH_BYTES, tf

POOLER_NODE, POOLED_NODE, HIDDEN_NODE = "bert/pooler/dense/Tanh", "bert/pooled", "bert/hidden"
# As `run_classifier.py` and its multi-label offspring have them.
HEAD_NODES = {"softmax": "loss/Softmax", "sigmoid": "loss/Sigmoid"}
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
    bert = _Bert(variables, config)
    layers = bert.layers(input_ids, input_mask, config.layers if head else max(readout.layers))
    output = bert.vectors(layers, input_ids, input_mask, readout)
    if head:
      first = tf.reshape(layers[-1], [*_sizes(input_ids), config.hidden_size])[:, 0, :]  # [B, H]
      bert.probabilities(output if readout.pooling == "pooler" else bert.pooler(first), head.kind)
  names = TensorNames("input_ids", "input_mask", output.op.name, HIDDEN_NODE, HEAD_NODES[head.kind] if head else None)
  return graph.as_graph_def().SerializeToString(deterministic=True), names


class _Bert:
  def __init__(self, variables: Mapping[str, np.ndarray], config: BertConfig):
    self._variables, self._config = variables, config

  def vectors(
    self, layers: "Sequence[tf.Tensor]", input_ids: "tf.Tensor", input_mask: "tf.Tensor", readout: Readout
  ) -> "tf.Tensor":  # [B, W]
    flat = self._combine([layers[i] for i in readout.layers], readout.combine)  # [B*T, C]
    hidden = tf.reshape(flat, [*_sizes(input_ids), flat.shape[-1]], name=HIDDEN_NODE)  # [B, T, C]
    if readout.pooling == "pooler":
      return self.pooler(hidden[:, 0, :])
    return pool(hidden, input_mask, readout)

  def pooler(self, first: "tf.Tensor") -> "tf.Tensor":
    """The last layer's vector of [CLS], [B, H], after a dense layer and tanh."""
    return tf.tanh(self._dense(first, POOLER), name=POOLER_NODE)

  def probabilities(self, pooled: "tf.Tensor", kind: str) -> "tf.Tensor":
    """The head's: [B, H] → [B, n_labels]."""
    product = tf.matmul(pooled, self._constant(HEAD_WEIGHTS), transpose_b=True)
    logits = tf.nn.bias_add(product, self._constant(HEAD_BIAS))
    return {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid}[kind](logits, name=HEAD_NODES[kind])

  def _combine(self, outputs: "Sequence[tf.Tensor]", combine: str) -> "tf.Tensor":
    """Several layers as one: [B*T, H] each → [B*T, C]."""
    if combine == "fused":  # of all blocks: the i-th has a logit of its own for each token
      logits = tf.concat([self._dense(output, f"{LAYER_LOGIT}{i}") for i, output in enumerate(outputs)], 1)  # [B*T, L]
      weights = tf.nn.softmax(logits)
      return tf.add_n([output * weights[:, i : i + 1] for i, output in enumerate(outputs)])
    if len(outputs) == 1:
      return outputs[0]
    if combine == "concat":
      return tf.concat(outputs, 1)
    total = tf.add_n(outputs)
    return total if combine == "sum" else total / float(len(outputs))

  def layers(self, input_ids: "tf.Tensor", input_mask: "tf.Tensor", depth: int) -> "list[tf.Tensor]":
    """The embedding output and the outputs of the first `depth` blocks, each [B*T, H]."""
    B, T = _sizes(input_ids)
    H = self._config.hidden_size
    hidden = tf.reshape(self._embed(input_ids, T), [-1, H])  # [B*T, H]
    # Softmax of a score lowered by 10,000 is 0 to the last bit, so that padding weighs nothing.
    masked = (1.0 - tf.cast(input_mask, tf.float32))[:, tf.newaxis, tf.newaxis, :] * -10000.0  # [B, 1, 1, T]
    outputs = [hidden]
    for i in range(depth):
      outputs.append(self._block(outputs[-1], masked, B, T, f"bert/encoder/layer_{i}"))
    return outputs

  def _embed(self, input_ids: "tf.Tensor", T: "tf.Tensor") -> "tf.Tensor":
    words = tf.gather(self._constant(f"{EMBEDDINGS}/word_embeddings"), input_ids)  # [B, T, H]
    types = self._constant(f"{EMBEDDINGS}/token_type_embeddings")[0]  # [H]
    positions = self._constant(f"{EMBEDDINGS}/position_embeddings")[:T]  # [T, H]
    return self._layer_norm(words + types + positions, EMBEDDINGS)

  def _block(self, x: "tf.Tensor", masked: "tf.Tensor", B: "tf.Tensor", T: "tf.Tensor", scope: str) -> "tf.Tensor":
    attended = self._dense(self._attend(x, masked, B, T, f"{scope}/attention/self"), f"{scope}/attention/output/dense")
    x = self._layer_norm(attended + x, f"{scope}/attention/output")  # [B*T, H]
    wide = self._activate(self._dense(x, f"{scope}/intermediate/dense"))  # [B*T, intermediate size]
    return self._layer_norm(self._dense(wide, f"{scope}/output/dense") + x, f"{scope}/output")  # [B*T, H]

  def _attend(self, x: "tf.Tensor", masked: "tf.Tensor", B: "tf.Tensor", T: "tf.Tensor", scope: str) -> "tf.Tensor":
    H, A = self._config.hidden_size, self._config.heads

    def heads(name: str) -> "tf.Tensor":  # [B, A, T, D]
      return tf.transpose(tf.reshape(self._dense(x, f"{scope}/{name}"), [B, T, A, H // A]), [0, 2, 1, 3])

    scores = tf.matmul(heads("query"), heads("key"), transpose_b=True) * (1.0 / math.sqrt(H // A))  # [B, A, T, T]
    context = tf.matmul(tf.nn.softmax(scores + masked), heads("value"))  # [B, A, T, D]
    return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, H])  # [B*T, H]

  def _layer_norm(self, x: "tf.Tensor", scope: str) -> "tf.Tensor":
    # The axis is written -1, not rank - 1: oneDNN would fuse that into one op that has an epsilon of its own, 0.001.
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), -1, keepdims=True)
    scale = tf.math.rsqrt(variance + self._config.layer_norm_eps)
    beta, gamma = (self._constant(f"{scope}/LayerNorm/{name}") for name in ("beta", "gamma"))
    return (x - mean) * scale * gamma + beta

  def _dense(self, x: "tf.Tensor", scope: str) -> "tf.Tensor":
    return tf.nn.bias_add(tf.matmul(x, self._constant(f"{scope}/kernel")), self._constant(f"{scope}/bias"))

  def _activate(self, x: "tf.Tensor") -> "tf.Tensor":
    match self._config.activation:
      case "gelu_tanh":
        return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
      case "gelu_erf":
        return 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))
      case name:
        return {"relu": tf.nn.relu, "tanh": tf.tanh}[name](x)

  def _constant(self, name: str) -> "tf.Tensor":
    return tf.constant(self._variables[name], name=name)


def _sizes(input_ids: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
  shape = tf.shape(input_ids)
  return shape[0], shape[1]


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
