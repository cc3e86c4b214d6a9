"""Google's names of the tensors in Hugging Face folders."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable

from pipeline.model.bert_variables import HEAD_BIAS, HEAD_WEIGHTS
from pipeline.model.xlnet_variables import BIASES, SCOPE, SEGMENTS, WORD_EMBEDDINGS

# PyTorch's [out, in] is what `run_classifier.py` has too.
_HEAD = {"classifier.weight": HEAD_WEIGHTS, "classifier.bias": HEAD_BIAS}
_KERNEL = re.compile(r"\b(query|key|value|dense|layer_[12])\.weight$")
_XLNET_BLOCK = re.compile(r"layer\.(\d+)\.(.+)")
_IN_XLNET_BLOCKS = {
  r"rel_attn\.([qkvro])": r"rel_attn/\1/kernel",
  r"(rel_attn|ff)\.layer_norm\.weight": r"\1/LayerNorm/gamma",
  r"(rel_attn|ff)\.layer_norm\.bias": r"\1/LayerNorm/beta",
  r"ff\.(layer_[12])\.weight": r"ff/\1/kernel",
  r"ff\.(layer_[12])\.bias": r"ff/\1/bias",
}
# Variables that have those of all blocks: a tensor a block there.
_STACKED = {name.rpartition("/")[2]: name for name in (*BIASES, SEGMENTS)}


def is_transposed(name: str) -> bool:
  """Says whether a tensor is a kernel that PyTorch has as [out, in], where Google has [in, out]."""
  return bool(_KERNEL.search(name))


def is_stacked(google: str) -> bool:
  """Says whether a variable, by Google's name, is the stack of tensors that each block has there."""
  return google in _STACKED.values()


def group_names(names: Iterable[str], google_name: Callable[[str], str | None]) -> dict[str, list[str]]:
  """Returns the tensors of each variable, by Google's name or, where it has none, their own; stacks from block 0 on."""
  groups: dict[str, list[str]] = defaultdict(list)
  for name in names:
    groups[google_name(name) or name].append(name)
  return {google: sorted(group, key=_numbers) for google, group in groups.items()}


def _numbers(name: str) -> list[int]:
  return [int(number) for number in re.findall(r"\d+", name)]


def bert_google_name(name: str) -> str | None:
  """Returns Google's name of a PyTorch BERT's tensor, None for what is of neither the encoder nor a head on it.

  >>> bert_google_name("bert.encoder.layer.0.output.dense.weight")
  'bert/encoder/layer_0/output/dense/kernel'
  """
  if name in _HEAD:
    return _HEAD[name]
  name = name.removeprefix("bert.")
  if not re.match(r"(embeddings|encoder|pooler)\.", name) or name.endswith("_ids"):
    return None
  name = _KERNEL.sub(r"\1.kernel", name.replace("_embeddings.weight", "_embeddings"))
  name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
  return "bert/" + name.replace("layer.", "layer_").replace(".", "/")


def xlnet_google_name(name: str) -> str | None:
  """Returns Google's name of a PyTorch XLNet's tensor, None for what is not of the content stream.

  Several tensors have one name where Google has the biases of all blocks in one variable.

  >>> xlnet_google_name("transformer.layer.3.ff.layer_1.weight")
  'model/transformer/layer_3/ff/layer_1/kernel'
  >>> xlnet_google_name("layer.3.rel_attn.r_w_bias")
  'model/transformer/r_w_bias'
  """
  name = name.removeprefix("transformer.")
  if name == "word_embedding.weight":
    return WORD_EMBEDDINGS
  if not (match := _XLNET_BLOCK.fullmatch(name)):
    return None
  number, rest = match.groups()
  if (shared := rest.removeprefix("rel_attn.")) in _STACKED:
    return _STACKED[shared]
  found = (re.sub(theirs, google, rest) for theirs, google in _IN_XLNET_BLOCKS.items() if re.fullmatch(theirs, rest))
  google = next(found, None)
  return google and f"{SCOPE}/layer_{number}/{google}"
