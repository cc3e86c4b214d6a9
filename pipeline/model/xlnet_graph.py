"""XLNet's content stream as a GraphDef with its weights as constants, cut after the last layer that is needed.

Follows zihangdai/xlnet `modeling.py` as it is run on one text: attention both ways, no memory, no permutation, no
dropout; the last token, `<cls>`, is of segment 2 and all others of segment 0. Dimensions as in `bert_graph.py`, but D
need not be H / A. Positions are relative and the last token is found by the mask, so padding may be on either side.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.model.block_graph import Blocks
from pipeline.model.fold_xlnet import FoldedXlnet
from pipeline.model.framing import XLNET_FRAMING
from pipeline.model.readout_graph import (
  HIDDEN_NODE,
  POOLED_NODE,
  check_weights_fit,
  combine,
  draw_inputs,
  last_token,
  pool,
  pool_all,
  serialised,
)
from pipeline.model.xlnet_variables import SCOPE
from transforms.encoder_spec import Head, Readout, TensorNames, XlnetConfig
from transforms.frozen_graph import tf


def build_graph(
  variables: Mapping[str, np.ndarray], config: XlnetConfig, readout: Readout, head: Head | None = None
) -> tuple[bytes, TensorNames]:
  """Returns a serialised GraphDef and the names of its nodes; takes and raises what that of `bert_graph.py` does."""
  assert head is None, head
  check_weights_fit(variables)
  graph = tf.Graph()
  with graph.as_default():
    input_ids, input_mask = draw_inputs()
    xlnet = _Xlnet(variables, config, input_ids, input_mask, max(readout.layers))
    flat = combine([xlnet.tokens(i) for i in readout.layers], readout.combine)  # [B*T, C]
    output = pool(xlnet.by_text(flat, HIDDEN_NODE), input_mask, readout, XLNET_FRAMING)  # [B, W]
  return serialised(graph, output, hidden=HIDDEN_NODE)


def build_all_layers(
  variables: Mapping[str, np.ndarray], config: XlnetConfig, poolings: Sequence[str], *, pooler: bool = False
) -> tuple[bytes, TensorNames]:
  """Returns a graph whose output is every layer in every pooling, as that of `bert_graph.py`."""
  assert not pooler, "an XLNet has none"
  graph = tf.Graph()
  with graph.as_default():
    input_ids, input_mask = draw_inputs()
    xlnet = _Xlnet(variables, config, input_ids, input_mask, config.layers)
    hidden = [xlnet.texts(i) for i in range(config.layers + 1)]  # [B, T, H] each
    output = tf.concat(pool_all(hidden, input_mask, poolings, XLNET_FRAMING), 1, name=POOLED_NODE)
  return serialised(graph, output)


class _Xlnet(Blocks):
  _weights: FoldedXlnet

  def __init__(
    self,
    variables: Mapping[str, np.ndarray],
    config: XlnetConfig,
    input_ids: "tf.Tensor",
    input_mask: "tf.Tensor",
    depth: int,
  ):
    self._config, self._weights = config, FoldedXlnet(variables, config, depth)
    super().__init__(config.activation, input_ids, depth)
    # Of such a score softmax makes 0 to the last bit, so that padding weighs nothing.
    self._masked = (1.0 - tf.cast(input_mask, tf.float32))[:, tf.newaxis] * -1e30  # [B, 1, T]
    is_cls = tf.equal(tf.range(self._T), last_token(input_mask)[:, tf.newaxis])  # [B, T]
    self._differs = tf.cast(tf.not_equal(is_cls[:, tf.newaxis], is_cls[:, :, tf.newaxis]), tf.float32)  # [B, T, T]
    self._sinusoids = self._draw_sinusoids()
    self.stream.append(self._embed(input_ids))
    for i in range(depth):
      self.stream.append(self._block(i))

  def _draw_sinusoids(self) -> "tf.Tensor":
    """Of the distances T, T - 1, …, 1 - T, once for all rows: [2T, H]."""
    distances = tf.cast(tf.range(self._T, -self._T, -1), tf.float32)
    if self._config.clamp_len > 0:
      distances = tf.clip_by_value(distances, -self._config.clamp_len, self._config.clamp_len)
    H = self._config.hidden_size
    angles = distances[:, tf.newaxis] * (10000.0 ** (-np.arange(0, H, 2) / H)).astype(np.float32)  # [2T, H / 2]
    return tf.concat([tf.sin(angles), tf.cos(angles)], 1)

  def _embed(self, input_ids: "tf.Tensor") -> "tf.Tensor":
    [words] = self.draw(f"{SCOPE}/word_embedding", self._weights.embeddings)  # [V, H]
    return tf.gather(words, tf.reshape(input_ids, [-1]))

  def _block(self, i: int) -> "tf.Tensor":
    attention, ff, x = f"{SCOPE}/layer_{i}/rel_attn", f"{SCOPE}/layer_{i}/ff", self.stream[i]
    [output] = self.draw(f"{attention}/o", lambda _: self._weights.output(attention))
    x = self.layer_norm(tf.matmul(self._attend(x, attention), output) + x, f"{attention}/LayerNorm")
    wide = self.activate(self.dense(x, f"{ff}/layer_1", self._weights.reading))  # [B*T, intermediate size]
    return self.layer_norm(self.dense(wide, f"{ff}/layer_2", self._weights.writing) + x, f"{ff}/LayerNorm")

  def _attend(self, x: "tf.Tensor", scope: str) -> "tf.Tensor":
    A, D = self._config.heads, self._config.head_size
    product = self.dense(x, scope, self._weights.projections)  # [B*T, 3·A·D + A]
    tokens, segments = tf.split(product, [3 * A * D, A], 1)
    apart = tf.reshape(tokens, [self._B, self._T, 3, A, D])
    # Heads come first, so that all rows of a batch go into one product with the keys of the distances, which have none.
    query, key, value = tf.unstack(tf.transpose(apart, [2, 3, 0, 1, 4]))  # [A, B, T, D] each
    by_segment = tf.transpose(self.by_text(segments), [2, 0, 1])[..., tf.newaxis] * self._differs  # [A, B, T, T]
    scores = tf.matmul(query, key, transpose_b=True) + self._by_distance(query, scope) + by_segment + self._masked
    context = tf.matmul(tf.nn.softmax(scores), value)  # [A, B, T, D]
    return tf.reshape(tf.transpose(context, [1, 2, 0, 3]), [-1, A * D])

  def _by_distance(self, query: "tf.Tensor", scope: str) -> "tf.Tensor":
    """The part of the scores that depends on how far apart two tokens are, and which comes first: [A, B, T, T]."""
    A, D = self._config.heads, self._config.head_size
    kernel, more = self.draw(f"{scope}/r", lambda _: self._weights.distances(scope))
    keys = tf.reshape(tf.matmul(self._sinusoids, kernel), [2 * self._T, A, D])
    # No product of [A, B, T, D] and [A, 1, D, 2T]: TensorFlow 2.21 with oneDNN crashes there where A is 1.
    rows = tf.reshape(query, [A, -1, D]) + more  # [A, B*T, D]
    scores = tf.matmul(rows, tf.transpose(keys, [1, 2, 0]))  # [A, B*T, 2T]
    # A row has distance T first, and row i needs what is T - i places on, i - j. Dai et al., "Transformer-XL", 2019,
    # appendix B: read as rows of T, without the first, the numbers are where they belong in rows of 2T - 1.
    shifted = tf.reshape(scores, [A, self._B, 2 * self._T, self._T])[:, :, 1:]
    return tf.reshape(shifted, [A, self._B, self._T, 2 * self._T - 1])[..., : self._T]
