"""Which encoder a dataset is of, and whether a run may be made with another: a migration is asked for, never met.

Vectors of two encoders cannot be compared, so each has a store of its own in `raw/<fingerprint>/`, and a run is of one.
The dataset's encoder is that of the published run; dataset.json names the one that it was made for, and counts only
while nothing is published. So publishing an older run rolls a migration back.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pipeline.dataset import Dataset, Published
from transforms.encoder_spec import EncoderSpec
from transforms.errors import UsageError
from transforms.long_texts import TRUNCATED

_SHOWN = 16


def allow_encoder(
  dataset: Dataset,
  published: Published | None,
  manifest: Mapping[str, Any] | None,
  fingerprint: str,
  *,
  new_encoder: bool,
  variants: Mapping[str, EncoderSpec] = MappingProxyType({}),
) -> str | None:
  """Returns what to say of the encoder of a run that is planned; None where it is as ever.

  Args:
    dataset: an open dataset.
    published: the published run that the new one is planned upon.
    manifest: its manifest, None where it cannot be read.
    fingerprint: of the encoder of the new run.
    new_encoder: whether a migration was asked for.
    variants: the same encoder in other precisions and with other long texts, by fingerprint.

  Raises:
    UsageError: the dataset is, or may be, of another encoder, and no migration was asked for.
  """
  theirs = encoder_of(dataset, published, manifest)
  if theirs == fingerprint:
    return "note: --new-encoder: the dataset is of this encoder already" if new_encoder else None
  ours, root = fingerprint[:_SHOWN], dataset.storage.root
  if new_encoder:
    return f"new encoder {ours}{_until(theirs, published)}"
  if theirs is None and published is not None:
    raise UsageError(
      f"{root}: of which encoder the published run {published.run_id} is cannot be told, as its manifest.json and "
      f"plan.json are damaged: restore one, publish another run, or go on with this encoder ({ours}) by --new-encoder"
    )
  that, instead = "", "use that encoder"
  if variant := variants.get(str(theirs)):
    what, flags = _difference(variant, variants.get(fingerprint))
    that, instead = f", the same {what}", f"add {flags}"
  raise UsageError(
    f"{root}: is of encoder {str(theirs)[:_SHOWN]}{that}, not of this one ({ours}); their vectors cannot be mixed: "
    f"{instead} or another --dataset, or migrate with --new-encoder (what is published stays until the new run is "
    "whole)"
  )


def _difference(theirs: EncoderSpec, ours: EncoderSpec | None) -> tuple[str, str]:
  """Returns in what an encoder of a run differs from ours: in words, and the flags that choose it."""
  precision, long_texts = theirs.precision, theirs.long_texts or TRUNCATED
  if ours is None or theirs.long_texts == ours.long_texts:
    return f"in precision {precision}", f"--precision {precision}"
  flags = f"--long-texts {long_texts.mode}"
  flags += f" --stride {long_texts.stride}" if long_texts.stride is not None else ""
  flags += f" --precision {precision}" if precision != ours.precision else ""
  return f"with {flags}", flags


def _until(theirs: str | None, published: Published | None) -> str:
  instead = f" in place of {theirs[:_SHOWN] if theirs else 'an unknown one'}"
  if published is None:
    return f"{instead}, of which nothing is published"
  return (
    f"{instead}: run {published.run_id} stays published until this one is whole and passes its gates; `sorbus publish` "
    "of it is the way back"
  )


def encoder_of(dataset: Dataset, published: Published | None, manifest: Mapping[str, Any] | None) -> str | None:
  """Returns the fingerprint of the dataset's encoder; None where the published run cannot tell."""
  if published is None:
    return str(dataset.settings()["encoder"]["fingerprint"])
  if manifest is not None:
    return str(manifest["encoder"]["fingerprint"])
  try:  # a damaged manifest is to be replaced by a new run, which the plan can still hold to the encoder
    plan = json.loads(dataset.storage.read(f"runs/{published.run_id}/plan.json"))
    return str(plan["encoder"]["fingerprint"])
  except (OSError, ValueError, LookupError, TypeError):
    return None
