"""Tiny random XLNets in the two layouts that `sorbus freeze` reads, for tests on any machine.

The weights are random but not degenerate: a token's neighbours, their distance and the segment of <cls> all show.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny_bert import write_variables


def xlnet_config(
  *, vocab_size: int, hidden_size: int = 32, layers: int = 2, heads: int = 2, untie_r: bool = True, **stated: Any
) -> dict[str, Any]:
  """Google's `xlnet_config.json` for these sizes; `stated` comes on top."""
  return {
    "d_head": hidden_size // heads,
    "d_inner": 4 * hidden_size,
    "d_model": hidden_size,
    "ff_activation": "gelu",
    "n_head": heads,
    "n_layer": layers,
    "n_token": vocab_size,
    "untie_r": untie_r,
  } | stated


def random_variables(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
  """Float32 weights under Google's variable names, with what only pre-training needs."""
  generator = np.random.default_rng(seed)
  H, wide, L = config["d_model"], config["d_inner"], config["n_layer"]
  heads = (config["n_head"], config["d_head"])

  def normal(*shape: int, scale: float = float(1 / np.sqrt(H))) -> np.ndarray:
    return (generator.standard_normal(shape) * scale).astype(np.float32)

  def layer_norm(scope: str) -> dict[str, np.ndarray]:
    return {f"{scope}/LayerNorm/beta": normal(H), f"{scope}/LayerNorm/gamma": 1 + normal(H)}

  top = "model/transformer"
  shared = (L, *heads) if config["untie_r"] else heads
  variables = {
    f"{top}/word_embedding/lookup_table": normal(config["n_token"], H, scale=1),
    f"{top}/mask_emb/mask_emb": normal(1, 1, H),
    f"{top}/seg_embed": normal(L, 2, *heads, scale=1),
    "model/lm_loss/bias": normal(config["n_token"]),
  } | {f"{top}/{name}": normal(*shared, scale=1) for name in ("r_w_bias", "r_r_bias", "r_s_bias")}
  for i in range(L):
    attention, ff = f"{top}/layer_{i}/rel_attn", f"{top}/layer_{i}/ff"
    variables |= {f"{attention}/{name}/kernel": normal(H, *heads) for name in "qkvro"} | layer_norm(attention)
    variables |= {f"{ff}/layer_1/kernel": normal(H, wide), f"{ff}/layer_1/bias": normal(wide)}
    variables |= {f"{ff}/layer_2/kernel": normal(wide, H), f"{ff}/layer_2/bias": normal(H)} | layer_norm(ff)
  return variables


def write_google_xlnet(
  folder: Path, spiece: bytes, *, adam: bool = False, prefix: str = "xlnet_model.ckpt", seed: int = 0, **config: Any
) -> Path:
  """Write a TF1 checkpoint, `xlnet_config.json` and `spiece.model`; return the folder. `config` is xlnet_config's."""
  import tensorflow as tf

  folder.mkdir(parents=True, exist_ok=True)
  stated = xlnet_config(**config)
  variables = random_variables(stated, seed)
  if adam:
    variables |= {f"{name}/{slot}": value for name, value in variables.items() for slot in ("Adam", "Adam_1")}
  variables["global_step"] = np.asarray(100, np.int64)
  write_variables(folder / prefix, variables, tf)
  _write(folder, "xlnet_config.json", stated, spiece)
  return folder


def write_hugging_face_xlnet(
  folder: Path, spiece: bytes, *, prefix: str = "transformer.", seed: int = 0, old: bool = False, **config: Any
) -> Path:
  """Write a Hugging Face folder with the weights that the same seed gives in Google's layout; return the folder.

  `prefix` is that of a model which was saved with a head on top, and `old` names the vocabulary's size as the first
  versions did.
  """
  from safetensors.numpy import save_file

  folder.mkdir(parents=True, exist_ok=True)
  stated = xlnet_config(**config)
  tensors = {}
  for name, value in random_variables(stated, seed).items():
    tensors |= {prefix * ("lm_loss" not in theirs) + theirs: x for theirs, x in _tensors(name, value, stated)}
  save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, folder / "model.safetensors")
  if not old:
    stated["vocab_size"] = stated.pop("n_token")
  more = {"model_type": "xlnet", "attn_type": "bi", "layer_norm_eps": 1e-12, "mem_len": None, "clamp_len": -1}
  _write(folder, "config.json", more | stated, spiece)
  return folder


def _tensors(name: str, value: np.ndarray, config: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
  """Google's variable as PyTorch's: for biases one a block, and dense kernels as [out, in]."""
  name = name.removeprefix("model/").removeprefix("transformer/")
  shared = name.split("/")[-1]
  if shared in ("r_w_bias", "r_r_bias", "r_s_bias", "seg_embed"):
    whole = value if config["untie_r"] or shared == "seg_embed" else [value] * config["n_layer"]
    return [(f"layer.{i}.rel_attn.{shared}", x) for i, x in enumerate(whole)]
  if match := re.fullmatch(r"layer_(\d+)/rel_attn/([qkvro])/kernel", name):
    return [(f"layer.{match[1]}.rel_attn.{match[2]}", value)]
  renamed = re.sub(r"^layer_", "layer/", name).replace("LayerNorm/gamma", "layer_norm/weight")
  renamed = renamed.replace("LayerNorm/beta", "layer_norm/bias").replace("kernel", "weight")
  renamed = renamed.replace("lookup_table", "weight").replace("mask_emb/mask_emb", "mask_emb")
  return [(renamed.replace("/", "."), value.T if name.endswith("kernel") else value)]


def _write(folder: Path, file: str, config: dict[str, Any], spiece: bytes) -> None:
  (folder / file).write_text(json.dumps(config, indent=2), encoding="utf-8")
  (folder / "spiece.model").write_bytes(spiece)
