"""The models that encoders are compared with, as sentence-transformers folders that both sides read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LAYERS, H, HEADS, INTERMEDIATE, POSITIONS = 12, 768, 12, 3072, 512
MAX_SEQ_LENGTH = 256  # as all-MiniLM-L6-v2's
CHINESE_VOCABULARY = "vocab/bert-base-chinese.vocab.txt"


def write_bert_base(folder: Path, vocabulary: bytes) -> Path:
  """Writes a BERT-base with random weights, mean pooling and the tokens of `vocabulary`, a vocab.txt."""
  from safetensors.numpy import save_file

  (folder / "1_Pooling").mkdir(parents=True)
  n_tokens = len(vocabulary.decode().removesuffix("\n").split("\n"))  # by line feeds only: U+2028 is a token
  (folder / "vocab.txt").write_bytes(vocabulary)
  save_file(dict(_weights(n_tokens)), folder / "model.safetensors", metadata={"format": "pt"})
  for name, value in _settings(n_tokens).items():
    (folder / name).write_text(json.dumps(value, indent=2))
  return folder


def _settings(vocab_size: int) -> dict[str, Any]:
  """What stands in each JSON file of the folder."""
  kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
  modules = [
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for i, (path, kind) in enumerate(kinds.items())
  ]
  return {
    "config.json": {
      "architectures": ["BertModel"],
      "model_type": "bert",
      "hidden_act": "gelu",
      "hidden_size": H,
      "initializer_range": 0.02,
      "intermediate_size": INTERMEDIATE,
      "layer_norm_eps": 1e-12,
      "max_position_embeddings": POSITIONS,
      "num_attention_heads": HEADS,
      "num_hidden_layers": LAYERS,
      "type_vocab_size": 2,
      "vocab_size": vocab_size,
    },
    "tokenizer_config.json": {"do_lower_case": True, "tokenizer_class": "BertTokenizer"},
    "modules.json": modules,
    "sentence_bert_config.json": {"max_seq_length": MAX_SEQ_LENGTH, "do_lower_case": False},
    "1_Pooling/config.json": {"word_embedding_dimension": H, "pooling_mode_mean_tokens": True},
  }


def _weights(vocab_size: int) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (name, float32 weight [out, in]): N(0, 0.02) as a fresh BertModel of `transformers` draws them.

  Biases and scales are drawn as well: where they are zeros and ones, as in a fresh model and in none that was trained,
  engines leave the sums and products out, and TensorFlow then no longer finds what it fuses.
  """
  generator = np.random.default_rng(0)

  def normal(*shape: int) -> np.ndarray:
    return generator.standard_normal(shape, np.float32) * np.float32(0.02)

  def dense(name: str, rows: int, columns: int) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{name}.weight", normal(rows, columns)
    yield f"{name}.bias", normal(rows)

  def layer_norm(name: str) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{name}.LayerNorm.weight", 1 + normal(H)
    yield f"{name}.LayerNorm.bias", normal(H)

  for name, rows in (("word", vocab_size), ("position", POSITIONS), ("token_type", 2)):
    yield f"embeddings.{name}_embeddings.weight", normal(rows, H)
  yield from layer_norm("embeddings")
  for i in range(LAYERS):
    layer = f"encoder.layer.{i}"
    for name in ("query", "key", "value"):
      yield from dense(f"{layer}.attention.self.{name}", H, H)
    yield from dense(f"{layer}.attention.output.dense", H, H)
    yield from layer_norm(f"{layer}.attention.output")
    yield from dense(f"{layer}.intermediate.dense", INTERMEDIATE, H)
    yield from dense(f"{layer}.output.dense", H, INTERMEDIATE)
    yield from layer_norm(f"{layer}.output")
  yield from dense("pooler.dense", H, H)
