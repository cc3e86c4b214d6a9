"""What a checkpoint is, what is in it and what it can be frozen to, without reading a weight."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pipeline.model.bert_variables import LAYER_LOGIT
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.checkpoint_listing import CheckpointListing
from pipeline.model.choose_head import possible_head
from pipeline.model.choose_readout import choose_readout
from pipeline.model.describe_tokens import casing_warnings, describe_sample, describe_vocabulary
from pipeline.model.freeze import DEFAULT_MAX_SEQ_LENGTH, FreezeOptions, choose
from transforms.casing import other_casing
from transforms.encoder_spec import COMBINES, POOLINGS, Readout
from transforms.errors import UsageError
from transforms.text_sample import Sample

# What a variable that no encoder has is for: the first of these that its name matches.
_PURPOSES = {
  "optimizer": re.compile(
    r"(/|^)(adam_[mv]|Adam(_\d+)?|AdamWeightDecay\w*|LAMB\w*|lamb_[mv]|Momentum|RMSProp(_\d+)?|beta[12]_power)$"
    r"|OPTIMIZER_SLOT|loss_scale|good_steps"
  ),
  "training state": re.compile(r"(/|^)(global_step|save_counter|learning_rate)\b"),
  "pre-training heads": re.compile(r"^(cls[/.]|(model/)?lm_loss\b|(model/)?transformer[/.]mask_emb\b|mask_emb$)"),
  # `sequnece_summary`: so in Google's checkpoints of XLNet.
  "classifier": re.compile(
    r"^(output_weights|output_bias|classifier\b|(model/)?(sequnece|sequence)_summary\b|logits_proj\b"
    r"|model/(classification|regression)_)"
  ),
  "learned mix of layers": re.compile(r"^layer_logit\d+/"),
  "position numbers": re.compile(r"position_ids$"),
}
# More names than these say nothing more.
_NAMED = 6
_NOT_USEFUL = ("optimizer", "training state", "position numbers")


def describe_checkpoint(listing: CheckpointListing, sample: Sample | None = None) -> dict[str, Any]:
  """Returns the description of a checkpoint as plain values; what cannot be known is None.

  Args:
    listing: from `list_checkpoint`.
    sample: texts in which to count unknown tokens and truncated texts.
  """
  outline = listing.outline()
  choices = choose(outline, FreezeOptions()) if outline else None
  length = choices.max_seq_length if choices else listing.max_seq_length or DEFAULT_MAX_SEQ_LENGTH
  return {
    "kind": listing.kind,
    "path": listing.name,
    "can_be_frozen": not listing.problems,
    "architecture": listing.architecture.name,
    "model": asdict(listing.config) if listing.config else None,
    "weights": _weights(listing),
    "variables": _variables(listing),
    "tokenizer": asdict(listing.tokenizer) | {"casing_is": listing.casing} if listing.tokenizer else None,
    **_tokens(listing, length, sample),
    "stated": {name: getattr(listing, name) for name in ("pooling", "layers", "max_seq_length", "for_cosine")},
    "freezes_to": _freezes_to(outline) if outline else None,
    "defaults": asdict(choices.readout) | {"max_seq_length": length} if choices else None,
    "notes": list(listing.notes),
    "problems": [str(problem) for problem in listing.problems],
  }


def purpose(name: str) -> str:
  """Returns what a variable that no encoder has is for.

  >>> purpose("bert/pooler/dense/kernel/adam_m")
  'optimizer'
  """
  return next((what for what, pattern in _PURPOSES.items() if pattern.search(name)), "other")


def _tokens(listing: CheckpointListing, length: int, sample: Sample | None) -> dict[str, Any]:
  """Vocabulary and sample, under the casing that the checkpoint has by default and under the other."""
  if not (listing.vocabulary and listing.tokenizer):
    return {"vocabulary": None, "sample": None, "warnings": []}
  casings = (listing.tokenizer, other_casing(listing.tokenizer))
  return {
    "vocabulary": describe_vocabulary(listing.vocabulary, casings),
    "sample": describe_sample(sample, listing.vocabulary, casings, length) if sample else None,
    "warnings": casing_warnings(listing.vocabulary, listing.tokenizer),
  }


def _weights(listing: CheckpointListing) -> dict[str, Any] | None:
  """The sizes that the variables have, whatever the configuration says."""
  shapes, model = listing.shapes, listing.architecture
  table = shapes.get(model.word_embeddings, ())
  if len(table) != 2:
    return None
  positions = shapes.get("bert/embeddings/position_embeddings", (None,))
  return {
    "layers": model.count_layers(shapes),
    "hidden_size": table[1],
    "vocab_size": table[0],
    "max_position_embeddings": positions[0],
  }


def _variables(listing: CheckpointListing) -> dict[str, Any] | None:
  if not listing.shapes:
    return None
  used = [name for name in _useful(listing) if name in listing.shapes]
  config = listing.config
  needed = listing.architecture.needed_shapes(config, config.layers, True) if config else {}
  return {
    "used": len(used),
    "numbers": sum(math.prod(listing.shapes[name]) for name in used),
    "missing": [name for name in needed if name not in listing.shapes],
    "unused": _by_purpose(sorted(listing.shapes.keys() - set(used))),
  }


def _useful(listing: CheckpointListing) -> Iterable[str]:
  if listing.config:
    return listing.architecture.useful_names(listing.config)
  pattern = listing.architecture.useful_variable
  return [name for name in listing.shapes if pattern.match(name) and purpose(name) not in _NOT_USEFUL]


def _by_purpose(names: Iterable[str]) -> dict[str, dict[str, Any]]:
  """For each purpose that there is how many variables have it, and the names of some."""
  groups: dict[str, list[str]] = defaultdict(list)
  for name in names:
    groups[purpose(name)].append(name)
  return {what: {"count": len(names), "names": names[:_NAMED]} for what, names in groups.items()}


def _freezes_to(outline: Checkpoint) -> dict[str, Any] | None:
  """The readouts that are possible, and why others are not, as freezing itself would say; None if none is."""
  L = outline.config.layers
  if _why_not(outline, pooling="mean", layers=(L,)):
    return None
  poolings = {pooling: _why_not(outline, pooling=pooling) for pooling in POOLINGS}
  combines = {
    combine: _why_not(outline, pooling="mean", combine=combine, layers=None if combine == "fused" else (0, L))
    for combine in COMBINES
  }
  labels, no_head = _labels(outline)
  reasons = poolings | combines | {"head": no_head}
  return {
    "layers": [0, L],
    "poolings": [name for name, why in poolings.items() if why is None],
    "combines": [name for name, why in combines.items() if why is None],
    "labels": labels,
    "mix_variables": sum(name.startswith(LAYER_LOGIT) for name in outline.variables),
    "not": {name: why for name, why in reasons.items() if why},
  }


def _why_not(outline: Checkpoint, **asked: Any) -> str | None:
  try:
    readout, _ = choose_readout(outline, **asked)
    outline.used(readout)
  except UsageError as error:
    return _reason(outline, error)
  return None


def _labels(outline: Checkpoint) -> tuple[list[str] | None, str | None]:
  """The labels of a head, or why there can be none."""
  readout = Readout("pooler", (outline.config.layers,))
  try:
    return list(possible_head(outline, readout).labels), None
  except UsageError as error:
    return None, _reason(outline, error)


def _reason(outline: Checkpoint, error: UsageError) -> str:
  """What is wrong, without whose it is and what to do about it."""
  without_option = re.sub(r"^--\S+ \S+: ", "", str(error))
  return without_option.removeprefix(outline.name).lstrip(": ").partition(";")[0]
