"""Tiny random BERTs in the three layouts that `sorbus freeze` reads, for tests on any machine.

The weights are random but not degenerate: different texts get clearly different vectors. A vocabulary of single letters
(`a`, `##a`) tokenises every ASCII word, so few texts need [UNK].
"""

import json
import string
from pathlib import Path
from typing import Any

import numpy as np

WORDS = [
  *("the", "of", "and", "to", "in", "it", "was", "that", "he", "she"),
  *("had", "with", "not", "but", "rain", "sun", "tree"),
]
VOCABULARY = (
  ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  + list(string.ascii_lowercase + string.digits)
  + [f"##{c}" for c in string.ascii_lowercase + string.digits]
  + list(".,;:!?'\"-()[]")
  + WORDS
  + ["##ing", "##ed", "##er"]
  + list("白面子树天地人大中文，。")
)
MAX_POSITIONS = 64


def write_google_checkpoint(
  folder: Path,
  *,
  hidden_size: int = 32,
  layers: int = 2,
  heads: int = 2,
  seed: int = 0,
  classifier: bool = False,
  adam: bool = False,
  mix: bool = False,
  head: int = 0,
  prefix: str = "model.ckpt-100",
) -> Path:
  """Write a TF1 checkpoint with `bert_config.json`, `vocab.txt` and a `checkpoint` file; return the folder.

  `mix` adds a learned mix of the layers, `head` a classifier of so many labels with random weights.
  """
  import tensorflow as tf

  folder.mkdir(parents=True, exist_ok=True)
  variables = random_variables(hidden_size=hidden_size, layers=layers, seed=seed)
  variables["global_step"] = np.asarray(100, np.int64)
  variables["cls/predictions/output_bias"] = np.zeros(len(VOCABULARY), np.float32)
  if classifier:
    variables["output_weights"] = np.zeros((3, hidden_size), np.float32)
    variables["output_bias"] = np.zeros(3, np.float32)
  if head:
    variables |= random_head(hidden_size=hidden_size, labels=head, seed=seed)
  if mix:
    variables |= random_mix(hidden_size=hidden_size, layers=layers, seed=seed)
  if adam:
    slots = {f"{name}/{slot}": value for name, value in variables.items() for slot in ("adam_m", "adam_v")}
    variables |= {name: value for name, value in slots.items() if name.startswith("bert/")}
  write_variables(folder / prefix, variables, tf)
  (folder / "checkpoint").write_text(f'model_checkpoint_path: "{prefix}"\nall_model_checkpoint_paths: "{prefix}"\n')
  _write_json(folder / "bert_config.json", bert_config(hidden_size=hidden_size, layers=layers, heads=heads))
  write_vocabulary(folder)
  return folder


def write_hugging_face_folder(
  folder: Path,
  *,
  hidden_size: int = 32,
  layers: int = 2,
  heads: int = 2,
  seed: int = 0,
  classifier: bool = False,
  prefix: str = "",
  old_layer_norm_names: bool = False,
  head: int = 0,
  **stated: Any,
) -> Path:
  """Write a Hugging Face BERT folder with the weights that the same seed gives in Google's layout.

  `prefix` is `bert.` for a model that was saved with a head on top, `head` is the number of that one's labels, and
  `stated` stands in `config.json`.
  """
  from safetensors.numpy import save_file

  folder.mkdir(parents=True, exist_ok=True)
  variables = random_variables(hidden_size=hidden_size, layers=layers, seed=seed)
  tensors = dict(_hugging_face_tensor(name, value, old_layer_norm_names) for name, value in variables.items())
  tensors = {prefix + name: value for name, value in tensors.items()}
  tensors[f"{prefix}embeddings.position_ids"] = np.arange(MAX_POSITIONS)[None]
  if classifier:
    tensors["classifier.weight"] = np.zeros((3, hidden_size), np.float32)
  if head:
    theirs = random_head(hidden_size=hidden_size, labels=head, seed=seed)
    tensors |= {"classifier.weight": theirs["output_weights"], "classifier.bias": theirs["output_bias"]}
  save_file(tensors, folder / "model.safetensors")
  config = bert_config(hidden_size=hidden_size, layers=layers, heads=heads)
  _write_json(folder / "config.json", config | {"model_type": "bert", "layer_norm_eps": 1e-12} | stated)
  _write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
  write_vocabulary(folder)
  return folder


def write_sentence_transformers_folder(
  folder: Path, *, pooling: str = "mean", max_seq_length: int = 32, normalize: bool = True, **model: Any
) -> Path:
  """Write a sentence-transformers folder: `pooling` is `mean`, `cls` or `max`; `model` as for the Hugging Face one."""
  write_hugging_face_folder(folder, **model)
  kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalize
  paths = ["", "1_Pooling", "2_Normalize"]
  modules = [
    {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"}
    for i, kind in enumerate(kinds)
  ]
  _write_json(folder / "modules.json", modules)
  _write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
  flags = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
  (folder / "1_Pooling").mkdir(exist_ok=True)
  _write_json(
    folder / "1_Pooling" / "config.json",
    {"word_embedding_dimension": model.get("hidden_size", 32)}
    | {f"pooling_mode_{flag}": mode == pooling for mode, flag in flags.items()},
  )
  return folder


def bert_config(*, hidden_size: int, layers: int, heads: int) -> dict[str, Any]:
  """Google's `bert_config.json` for these sizes."""
  return {
    "hidden_act": "gelu",
    "hidden_size": hidden_size,
    "intermediate_size": 4 * hidden_size,
    "max_position_embeddings": MAX_POSITIONS,
    "num_attention_heads": heads,
    "num_hidden_layers": layers,
    "type_vocab_size": 2,
    "vocab_size": len(VOCABULARY),
  }


def random_variables(*, hidden_size: int, layers: int, seed: int) -> dict[str, np.ndarray]:
  """Float32 weights under Google's variable names, with the pooler."""
  generator = np.random.default_rng(seed)
  wide = 4 * hidden_size

  def normal(*shape: int) -> np.ndarray:
    return (generator.standard_normal(shape) / np.sqrt(hidden_size)).astype(np.float32)

  def layer_norm(scope: str) -> dict[str, np.ndarray]:
    return {f"{scope}/LayerNorm/beta": normal(hidden_size), f"{scope}/LayerNorm/gamma": 1 + normal(hidden_size)}

  def dense(scope: str, rows: int, columns: int) -> dict[str, np.ndarray]:
    return {f"{scope}/kernel": normal(rows, columns), f"{scope}/bias": normal(columns)}

  variables = {
    "bert/embeddings/word_embeddings": normal(len(VOCABULARY), hidden_size),
    "bert/embeddings/token_type_embeddings": normal(2, hidden_size),
    "bert/embeddings/position_embeddings": normal(MAX_POSITIONS, hidden_size),
  } | layer_norm("bert/embeddings")
  for i in range(layers):
    scope = f"bert/encoder/layer_{i}"
    for name in ("query", "key", "value"):
      variables |= dense(f"{scope}/attention/self/{name}", hidden_size, hidden_size)
    variables |= dense(f"{scope}/attention/output/dense", hidden_size, hidden_size)
    variables |= layer_norm(f"{scope}/attention/output")
    variables |= dense(f"{scope}/intermediate/dense", hidden_size, wide)
    variables |= dense(f"{scope}/output/dense", wide, hidden_size) | layer_norm(f"{scope}/output")
  return variables | dense("bert/pooler/dense", hidden_size, hidden_size)


def random_mix(*, hidden_size: int, layers: int, seed: int) -> dict[str, np.ndarray]:
  """Float32 `layer_logit` weights whose logits differ by some units from token to token and from layer to layer."""
  generator = np.random.default_rng([seed, 1])
  return {
    f"layer_logit{i}/{name}": generator.standard_normal(shape).astype(np.float32) / scale
    for i in range(layers)
    for name, shape, scale in (
      ("kernel", (hidden_size, 1), np.float32(np.sqrt(hidden_size))),
      ("bias", (1,), np.float32(1)),
    )
  }


def random_head(*, hidden_size: int, labels: int, seed: int) -> dict[str, np.ndarray]:
  """Float32 weights of a classifier whose logits differ by some units from text to text and from label to label."""
  generator = np.random.default_rng([seed, 2])
  return {
    "output_weights": generator.standard_normal((labels, hidden_size)).astype(np.float32),
    "output_bias": generator.standard_normal(labels).astype(np.float32),
  }


def write_variables(prefix: Path, variables: dict[str, np.ndarray], tf: Any) -> None:
  """Write `PREFIX.index` and `PREFIX.data-00000-of-00001`, without a `.meta`."""
  names = sorted(variables)
  with tf.device("CPU:0"):
    tf.raw_ops.SaveV2(
      prefix=str(prefix),
      tensor_names=names,
      shape_and_slices=[""] * len(names),
      tensors=[tf.constant(variables[n]) for n in names],
    )


def write_vocabulary(folder: Path) -> None:
  """Write `vocab.txt`."""
  (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")


def _hugging_face_tensor(name: str, value: np.ndarray, old_layer_norm_names: bool) -> tuple[str, np.ndarray]:
  """Google's name and [in, out] kernel as PyTorch's name and [out, in] weight."""
  *scope, last = name.removeprefix("bert/").replace("layer_", "layer/").split("/")
  if last == "kernel":
    last, value = "weight", np.ascontiguousarray(value.T)
  elif last in ("gamma", "beta") and not old_layer_norm_names:
    last = {"gamma": "weight", "beta": "bias"}[last]
  elif last.endswith("_embeddings"):
    last += ".weight"
  return ".".join([*scope, last]), value


def _write_json(path: Path, value: Any) -> None:
  path.write_text(json.dumps(value, indent=2), encoding="utf-8")
