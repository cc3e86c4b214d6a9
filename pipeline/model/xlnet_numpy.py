"""XLNet's content stream in float64 NumPy, one unpadded sequence at a time: what the self-test is held to.

Written apart from `xlnet_graph.py` and sharing nothing with it but the variables: no batches, no mask, no padding, and
no shift: each pair of tokens is given the key of its distance. Follows Yang et al., "XLNet", 2019, section 2.5 and
appendix A, and zihangdai/xlnet `modeling.py`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.model.framing import XLNET_FRAMING
from pipeline.model.functions_numpy import activate, dense, layer_norm, softmax
from pipeline.model.readout_numpy import combine, pool_tokens
from transforms.encoder_spec import Readout, XlnetConfig

_CLS_SEGMENT = 2


def xlnet_vector(
  variables: Mapping[str, np.ndarray], config: XlnetConfig, input_ids: Sequence[int], readout: Readout
) -> np.ndarray:
  """Returns the raw vector float64 [W] of one sequence of token ids [T], <sep> and <cls> at its end."""
  outputs = list(layer_outputs(variables, config, input_ids, max(readout.layers)))
  return pool_tokens(combine([outputs[i] for i in readout.layers], readout.combine), readout, XLNET_FRAMING)


def layer_outputs(
  variables: Mapping[str, np.ndarray], config: XlnetConfig, input_ids: Sequence[int], depth: int
) -> Iterator[np.ndarray]:
  """Yields the word embeddings, then the output of each of the first `depth` blocks: float64 [T, H]."""
  x = variables["model/transformer/word_embedding/lookup_table"][list(input_ids)].astype(np.float64)
  yield x
  for i in range(depth):
    x = _block(variables, config, i, x)
    yield x


def _block(variables: Mapping[str, np.ndarray], config: XlnetConfig, i: int, x: np.ndarray) -> np.ndarray:
  scope, epsilon = f"model/transformer/layer_{i}", config.layer_norm_eps
  x = layer_norm(variables, f"{scope}/rel_attn", x + _attention(variables, config, i, x), epsilon)
  wide = activate(config.activation, dense(variables, f"{scope}/ff/layer_1", x))
  return layer_norm(variables, f"{scope}/ff", x + dense(variables, f"{scope}/ff/layer_2", wide), epsilon)


def _attention(variables: Mapping[str, np.ndarray], config: XlnetConfig, i: int, x: np.ndarray) -> np.ndarray:
  T = len(x)
  kernels = {n: variables[f"model/transformer/layer_{i}/rel_attn/{n}/kernel"].astype(np.float64) for n in "qkvro"}
  q, k, v = (np.einsum("th,had->tad", x, kernels[name]) for name in "qkv")
  far = np.arange(1 - T, T)  # distances
  r = np.einsum("th,had->tad", _sinusoids(far, config), kernels["r"])  # [2T - 1, A, D]
  token, place, segment = (q + _bias(variables, config, f"r_{name}_bias", i) for name in "wrs")
  segments = np.array([*[0] * (T - 1), _CLS_SEGMENT])
  of_segments = np.einsum("iad,sad->ais", segment, variables["model/transformer/seg_embed"][i])
  by_distance = np.einsum("iad,nad->ain", place, r)  # [A, T, 2T - 1]
  apart = np.subtract.outer(np.arange(T), np.arange(T))  # how far i is behind j
  differ = (segments[:, np.newaxis] != segments).astype(int)
  rows = np.arange(T)[:, np.newaxis]
  scores = np.einsum("iad,jad->aij", token, k) + by_distance[:, rows, apart + T - 1] + of_segments[:, rows, differ]
  return np.einsum("aij,jad,had->ih", softmax(scores / np.sqrt(config.head_size)), v, kernels["o"], optimize=True)


def _bias(variables: Mapping[str, np.ndarray], config: XlnetConfig, name: str, i: int) -> np.ndarray:
  """[A, D]: a block's own, or that of all."""
  value = variables[f"model/transformer/{name}"].astype(np.float64)
  return value[i] if config.untie_r else value


def _sinusoids(distances: np.ndarray, config: XlnetConfig) -> np.ndarray:
  """[N] → [N, H]: sines of H / 2 frequencies, then cosines."""
  if config.clamp_len > 0:
    distances = np.clip(distances, -config.clamp_len, config.clamp_len)
  angles = np.outer(distances, 1 / 10000 ** (np.arange(0, config.hidden_size, 2) / config.hidden_size))
  return np.hstack([np.sin(angles), np.cos(angles)])
