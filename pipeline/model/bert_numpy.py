"""BERT's forward pass in float64 NumPy, one unpadded sequence at a time: what the self-test of an encoder is held to.

Written apart from `bert_graph.py` and sharing nothing with it but the variables: no batches, no mask, no padding.
Follows Devlin et al., "BERT", 2019, and google-research/bert `modeling.py`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.model.functions_numpy import activate, dense, layer_norm, softmax
from pipeline.model.readout_numpy import combine, pool_tokens
from transforms.encoder_spec import BertConfig, Readout


def bert_vector(
  variables: Mapping[str, np.ndarray],
  config: BertConfig,
  input_ids: Sequence[int],
  readout: Readout,
) -> np.ndarray:
  """Returns the raw vector float64 [W] of one sequence of token ids [T], [CLS] and [SEP] with it."""
  layers = readout.layers
  outputs = [x for i, x in enumerate(layer_outputs(variables, config, input_ids, max(layers))) if i in layers]
  hidden = _combine(variables, outputs, readout.combine)  # [T, C]
  if readout.pooling == "pooler":
    return _pooler(variables, hidden)
  return pool_tokens(hidden, readout)


def bert_probabilities(
  variables: Mapping[str, np.ndarray],
  config: BertConfig,
  input_ids: Sequence[int],
  kind: str,
  *,
  fused: bool = False,
) -> np.ndarray:
  """Returns the head's probabilities float64 [n_labels] of one sequence of token ids [T]; `kind` as in `Head`.

  The head stands on the last layer, or on the learned mix of all (`fused`).
  """
  _, *blocks = layer_outputs(variables, config, input_ids, config.layers)
  hidden = _combine(variables, blocks, "fused") if fused else blocks[-1]  # [T, H]
  weights = variables["output_weights"].astype(np.float64)  # [n_labels, H]
  logits = weights @ _pooler(variables, hidden) + variables["output_bias"]
  match kind:
    case "softmax":
      return softmax(logits)
    case "sigmoid":
      return (1 + np.tanh(logits / 2)) / 2  # the same function, and no exponential that overflows
    case _:
      raise ValueError(f"head {kind!r}")


def _pooler(variables: Mapping[str, np.ndarray], hidden: np.ndarray) -> np.ndarray:
  return np.tanh(dense(variables, "bert/pooler/dense", hidden[0]))


def _combine(variables: Mapping[str, np.ndarray], outputs: Sequence[np.ndarray], how: str) -> np.ndarray:
  if how != "fused":
    return combine(outputs, how)
  logits = [dense(variables, f"layer_logit{i}", x) for i, x in enumerate(outputs)]  # L times [T, 1]
  return np.einsum("tl,lth->th", softmax(np.hstack(logits)), np.array(outputs))


def layer_outputs(
  variables: Mapping[str, np.ndarray], config: BertConfig, input_ids: Sequence[int], depth: int
) -> Iterator[np.ndarray]:
  """Yields the embedding output, then the output of each of the first `depth` blocks: float64 [T, H]."""
  table = {name: variables[f"bert/embeddings/{name}_embeddings"] for name in ("word", "token_type", "position")}
  x = table["word"][list(input_ids)].astype(np.float64) + table["token_type"][0] + table["position"][: len(input_ids)]
  x = layer_norm(variables, "bert/embeddings", x, config.layer_norm_eps)
  yield x
  for i in range(depth):
    x = _block(variables, config, f"bert/encoder/layer_{i}", x)
    yield x


def _block(variables: Mapping[str, np.ndarray], config: BertConfig, scope: str, x: np.ndarray) -> np.ndarray:
  epsilon = config.layer_norm_eps
  attention = dense(
    variables, f"{scope}/attention/output/dense", _attention(variables, config, f"{scope}/attention/self", x)
  )
  x = layer_norm(variables, f"{scope}/attention/output", x + attention, epsilon)
  wide = activate(config.activation, dense(variables, f"{scope}/intermediate/dense", x))
  return layer_norm(variables, f"{scope}/output", x + dense(variables, f"{scope}/output/dense", wide), epsilon)


def _attention(variables: Mapping[str, np.ndarray], config: BertConfig, scope: str, x: np.ndarray) -> np.ndarray:
  query, key, value = (
    np.split(dense(variables, f"{scope}/{name}", x), config.heads, axis=1) for name in ("query", "key", "value")
  )
  return np.hstack([softmax(q @ k.T / math.sqrt(q.shape[1])) @ v for q, k, v in zip(query, key, value, strict=True)])
