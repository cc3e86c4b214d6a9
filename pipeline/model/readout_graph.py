"""The ends of every graph that is frozen here: what it is fed, and how hidden vectors become the vector of a text.

B = rows of a batch, T = their padded length, H = hidden size,
C = width of the combined layers (H, or a multiple of it), W = width of the vector (C, or 2 C).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.model.framing import BERT_FRAMING, Framing
from transforms.encoder_spec import Readout, TensorNames
from transforms.errors import EncoderError
from transforms.frozen_graph import MAX_GRAPH_BYTES, tf

POOLED_NODE, HIDDEN_NODE = "bert/pooled", "bert/hidden"
# Room for what is not weights: nodes and names.
_GRAPH_OVERHEAD = 1 << 20


def check_weights_fit(variables: Mapping[str, np.ndarray]) -> None:
  """Raises EncoderError if weights do not fit a GraphDef."""
  size = sum(value.nbytes for value in variables.values())
  if size + _GRAPH_OVERHEAD > MAX_GRAPH_BYTES:
    raise EncoderError(f"{size / 1e9:.1f} GB of weights do not fit a TensorFlow graph of 2 GB; choose a smaller model")


def draw_inputs() -> "tuple[tf.Tensor, tf.Tensor]":
  """Returns the placeholders `input_ids` and `input_mask`, int32 [B, T]."""
  input_ids, input_mask = (tf.compat.v1.placeholder(tf.int32, [None, None], n) for n in ("input_ids", "input_mask"))
  return input_ids, input_mask


def serialised(graph: "tf.Graph", output: "tf.Tensor", **others: str | None) -> tuple[bytes, TensorNames]:
  """Returns a drawn graph's bytes, always the same, and the names of its nodes; `others` as in `TensorNames`."""
  names = TensorNames("input_ids", "input_mask", output.op.name, **others)
  return graph.as_graph_def().SerializeToString(deterministic=True), names


def combine(outputs: "Sequence[tf.Tensor]", how: str) -> "tf.Tensor":
  """Returns several layers as one, averaged, summed or side by side: [rows, H] each → [rows, C]."""
  if len(outputs) == 1:
    return outputs[0]
  if how == "concat":
    return tf.concat(outputs, 1)
  total = tf.add_n(outputs)
  return total if how == "sum" else total / float(len(outputs))


def pool(
  hidden: "tf.Tensor", input_mask: "tf.Tensor", readout: Readout, framing: Framing = BERT_FRAMING
) -> "tf.Tensor":
  """Returns the node POOLED_NODE [B, W] of token vectors [B, T, C] and their mask [B, T]; not for `pooler`."""
  counted = _without_special_tokens(input_mask, framing) if readout.exclude_special_tokens else input_mask  # [B, T]
  return tf.identity(_pool(hidden, input_mask, counted, readout.pooling, framing), name=POOLED_NODE)


def pool_all(
  layers: "Sequence[tf.Tensor]", input_mask: "tf.Tensor", poolings: Sequence[str], framing: Framing
) -> "list[tf.Tensor]":
  """Returns [B, H] for each pooling, and in it for each layer [B, T, H]."""
  return [_pool(x, input_mask, input_mask, pooling, framing) for pooling in poolings for x in layers]


def last_token(input_mask: "tf.Tensor") -> "tf.Tensor":
  """Returns the place [B] of each row's last token that is no padding, on whichever side that is."""
  return tf.reduce_max(tf.range(tf.shape(input_mask)[1]) * input_mask, 1)


def _pool(
  hidden: "tf.Tensor", input_mask: "tf.Tensor", counted: "tf.Tensor", pooling: str, framing: Framing
) -> "tf.Tensor":
  """[B, T, C] → [B, W]; `counted` [B, T] is 1 for the tokens that count in a mean or a maximum."""
  if pooling == "cls" and framing.cls_is_first:
    return hidden[:, 0, :]
  if pooling in ("cls", "last"):
    return tf.gather(hidden, last_token(input_mask), axis=1, batch_dims=1)
  mask = tf.cast(counted, tf.float32)[:, :, tf.newaxis]  # [B, T, 1]
  parts = []
  if pooling in ("mean", "mean-max"):
    # The divisor is never 0: a text without a token of its own is rejected before it comes here.
    parts.append(tf.reduce_sum(hidden * mask, 1) / tf.reduce_sum(mask, 1))
  if pooling in ("max", "mean-max"):
    parts.append(tf.reduce_max(tf.where(mask > 0, hidden, -np.inf), 1))
  return parts[0] if len(parts) == 1 else tf.concat(parts, 1)


def _without_special_tokens(input_mask: "tf.Tensor", framing: Framing) -> "tf.Tensor":
  """A mask [B, T] of those tokens that have as many others before and after them as there are special ones."""
  before, after = framing.before, framing.after
  wide = tf.pad(input_mask, [[0, 0], [before, after]])  # [B, T + before + after]
  return wide[:, : -(before + after)] * wide[:, before + after :]
