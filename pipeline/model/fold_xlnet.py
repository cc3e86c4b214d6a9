"""An XLNet's weights as its graph has them; see fold_weights.py for the scale.

With q, k the products of a token's vector and the kernels, R(n) the key of the distance n, e what `seg_embed` has for
another segment less what it has for the same, and D the head size, Google's score of token i for token j is, but for
what is the same for all j,

  (q_i + r_w)·k_j / √D  +  (q_i + r_r)·R(i − j) / √D  +  [their segments differ] (q_i + r_s)·e / √D

So the root of D and r_w are in the query's part, r_r − r_w is added to it for the distances, and the last term is one
number a token and head, of a column of its own in the one product that gives query, key and value too.
"""

import math
from collections.abc import Mapping

import numpy as np

from pipeline.model.fold_weights import StreamWeights, Weights
from pipeline.model.xlnet_variables import BIASES, SCOPE, SEGMENTS, WORD_EMBEDDINGS
from transforms.encoder_spec import XlnetConfig


class FoldedXlnet(StreamWeights):
  """Gives them for the scope of a block's attention, `model/transformer/layer_3/rel_attn`."""

  def __init__(self, variables: Mapping[str, np.ndarray], config: XlnetConfig, depth: int):
    """Takes the variables, and how many blocks there are."""
    super().__init__(variables, config.layer_norm_eps, f"{SCOPE}/layer_{depth - 1}/ff/LayerNorm")
    self._untie_r, self._factor = config.untie_r, 1 / math.sqrt(config.head_size)
    self._words = self.scale if depth else 1.0

  def embeddings(self, scope: str) -> Weights:
    """Of words [V, H], which are the stream as they stand: no normalisation comes before the first block's."""
    return {"word_embeddings": self._times(WORD_EMBEDDINGS, self._words)}

  def projections(self, scope: str) -> Weights:
    """Kernel [H, 3·A·D + A] and bias of what reads the stream: query, key, value, and how much a segment counts."""
    kernels = {name: self._variables[f"{scope}/{name}/kernel"] for name in "qkv"}  # [H, A, D] each
    content, _, segment = self._biases(scope)  # [A, D] each
    same, other = self._of_block(SEGMENTS, scope)
    direction = (other - same) * self._factor  # [A, D]
    columns = [kernels["q"] * self._factor, kernels["k"], kernels["v"]]
    kernel = [_flat(x) for x in columns] + [np.einsum("had,ad->ha", kernels["q"], direction)]
    zeros = np.zeros(2 * content.size)
    bias = [_flat(content * self._factor), zeros, np.einsum("ad,ad->a", segment, direction)]
    return {"kernel": _float32(np.concatenate(kernel, 1) / self.scale), "bias": _float32(np.concatenate(bias))}

  def distances(self, scope: str) -> Weights:
    """Kernel [H, A·D] of the sinusoids, and what a query for them has more than one for tokens, [A, 1, D]."""
    content, place, _ = self._biases(scope)
    more = (place - content)[:, np.newaxis] * self._factor
    return {"kernel": _flat(self._variables[f"{scope}/r/kernel"]), "bias": _float32(more)}

  def output(self, scope: str) -> Weights:
    """Kernel [A·D, H] of attention's output, which is added to the stream; XLNet has no bias there."""
    kernel = _flat(self._variables[f"{scope}/o/kernel"]).T
    return {"kernel": _float32(kernel * self.scale)}

  def _biases(self, scope: str) -> list[np.ndarray]:
    """The biases of tokens, distances and segments, [A, D] each."""
    return [self._of_block(name, scope) if self._untie_r else self._variables[name] for name in BIASES]

  def _of_block(self, name: str, scope: str) -> np.ndarray:
    """A block's part of a variable that has those of all."""
    return self._variables[name][int(scope.split("/")[-2].removeprefix("layer_"))]


def _flat(x: np.ndarray) -> np.ndarray:
  """[..., A, D] → [..., A·D]."""
  return x.reshape(*x.shape[:-2], -1)


def _float32(x: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(x, np.float32)
