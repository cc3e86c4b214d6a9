"""BERT's forward pass in float64 NumPy, one unpadded sequence at a time: what the self-test of an encoder is held to.

Written apart from `bert_graph.py` and sharing nothing with it but the variables: no batches, no mask, no padding.
Follows Devlin et al., "BERT", 2019, and google-research/bert `modeling.py`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

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


def pool_tokens(hidden: np.ndarray, readout: Readout) -> np.ndarray:
  """Returns the vector [W] of one unpadded sequence of token vectors [T, C]; any pooling but `pooler`."""
  words = hidden[1:-1] if readout.exclude_special_tokens else hidden
  match readout.pooling:
    case "mean":
      return words.mean(axis=0)
    case "max":
      return words.max(axis=0)
    case "mean-max":
      return np.hstack([words.mean(axis=0), words.max(axis=0)])
    case "cls":
      return hidden[0]
    case "last":
      return hidden[-1]
    case _:
      raise ValueError(f"pooling {readout.pooling!r}")


def bert_probabilities(
  variables: Mapping[str, np.ndarray],
  config: BertConfig,
  input_ids: Sequence[int],
  kind: str,
) -> np.ndarray:
  """Returns the head's probabilities float64 [n_labels] of one sequence of token ids [T]; `kind` as in `Head`."""
  *_, last = layer_outputs(variables, config, input_ids, config.layers)
  weights = variables["output_weights"].astype(np.float64)  # [n_labels, H]
  logits = weights @ _pooler(variables, last) + variables["output_bias"]
  match kind:
    case "softmax":
      return _softmax(logits)
    case "sigmoid":
      return (1 + np.tanh(logits / 2)) / 2  # the same function, and no exponential that overflows
    case _:
      raise ValueError(f"head {kind!r}")


def _pooler(variables: Mapping[str, np.ndarray], hidden: np.ndarray) -> np.ndarray:
  return np.tanh(_dense(variables, "bert/pooler/dense", hidden[0]))


def _combine(variables: Mapping[str, np.ndarray], outputs: Sequence[np.ndarray], combine: str) -> np.ndarray:
  match combine:
    case "average":
      return np.mean(outputs, axis=0)
    case "sum":
      return np.sum(outputs, axis=0)
    case "concat":
      return np.hstack(outputs)
    case "fused":
      logits = [_dense(variables, f"layer_logit{i}", x) for i, x in enumerate(outputs)]  # L times [T, 1]
      return np.einsum("tl,lth->th", _softmax(np.hstack(logits)), np.array(outputs))
    case _:
      raise ValueError(f"combine {combine!r}")


def layer_outputs(
  variables: Mapping[str, np.ndarray], config: BertConfig, input_ids: Sequence[int], depth: int
) -> Iterator[np.ndarray]:
  """Yields the embedding output, then the output of each of the first `depth` blocks: float64 [T, H]."""
  table = {name: variables[f"bert/embeddings/{name}_embeddings"] for name in ("word", "token_type", "position")}
  x = table["word"][list(input_ids)].astype(np.float64) + table["token_type"][0] + table["position"][: len(input_ids)]
  x = _layer_norm(variables, config, "bert/embeddings", x)
  yield x
  for i in range(depth):
    x = _block(variables, config, f"bert/encoder/layer_{i}", x)
    yield x


def _block(variables: Mapping[str, np.ndarray], config: BertConfig, scope: str, x: np.ndarray) -> np.ndarray:
  attention = _attention(variables, config, f"{scope}/attention/self", x)
  x = _layer_norm(
    variables, config, f"{scope}/attention/output", x + _dense(variables, f"{scope}/attention/output/dense", attention)
  )
  wide = _activate(config.activation, _dense(variables, f"{scope}/intermediate/dense", x))
  return _layer_norm(variables, config, f"{scope}/output", x + _dense(variables, f"{scope}/output/dense", wide))


def _attention(variables: Mapping[str, np.ndarray], config: BertConfig, scope: str, x: np.ndarray) -> np.ndarray:
  query, key, value = (
    np.split(_dense(variables, f"{scope}/{name}", x), config.heads, axis=1) for name in ("query", "key", "value")
  )
  return np.hstack([_softmax(q @ k.T / math.sqrt(q.shape[1])) @ v for q, k, v in zip(query, key, value, strict=True)])


def _softmax(x: np.ndarray) -> np.ndarray:
  weights = np.exp(x - x.max(axis=-1, keepdims=True))
  return weights / weights.sum(axis=-1, keepdims=True)


def _layer_norm(variables: Mapping[str, np.ndarray], config: BertConfig, scope: str, x: np.ndarray) -> np.ndarray:
  centred = x - x.mean(axis=-1, keepdims=True)
  deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + config.layer_norm_eps)
  return centred / deviation * variables[f"{scope}/LayerNorm/gamma"] + variables[f"{scope}/LayerNorm/beta"]


def _dense(variables: Mapping[str, np.ndarray], scope: str, x: np.ndarray) -> np.ndarray:
  return x @ variables[f"{scope}/kernel"].astype(np.float64) + variables[f"{scope}/bias"]


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _activate(name: str, x: np.ndarray) -> np.ndarray:
  match name:
    case "gelu_tanh":
      return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    case "gelu_erf":
      return x / 2 * (1 + _erf(x / math.sqrt(2)))
    case "relu":
      return np.maximum(x, 0)
    case "tanh":
      return np.tanh(x)
    case _:
      raise ValueError(f"activation {name!r}")
