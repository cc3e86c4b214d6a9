"""Which vector an encoder gives: the user's wishes and what the checkpoint states, resolved into one `Readout`."""

from collections.abc import Sequence
from typing import Literal

from pipeline.model.checkpoint import Checkpoint
from transforms.encoder_spec import COMBINES, POOLINGS, POOLINGS_OVER_TOKENS, Combine, Pooling, Readout
from transforms.errors import UsageError

Layer = int | Literal["first-last"]


def choose_readout(
  checkpoint: Checkpoint,
  *,
  pooling: str | None = None,
  layers: Sequence[Layer] | None = None,
  combine: str | None = None,
  exclude_special_tokens: bool = False,
) -> tuple[Readout, tuple[str, ...]]:
  """Returns the readout, and lines that tell where each part of it was taken from; None is not asked for.

  Raises:
    UsageError: wishes that do not go together, or are not known, with those that are.
  """
  asked = [
    option
    for option, given in (
      ("--layers", layers is not None),
      ("--combine", combine is not None),
      ("--exclude-special-tokens", exclude_special_tokens),
    )
    if given
  ]
  chosen, pooling_why = _choose_pooling(checkpoint, pooling, asked)
  L = checkpoint.config.layers
  # The pooler may stand on the learned mix, with which it was trained.
  against = [option for option in asked if (option, combine) != ("--combine", "fused")]
  if chosen == "pooler" and against:
    raise UsageError(
      f"{against[0]} does not go with --pooling pooler, which stands on [CLS] of the last layer, {L}, or of the mix of "
      f"all (--combine fused); choose --pooling {_either(_without_pooler(checkpoint, asked))}"
    )
  if exclude_special_tokens and chosen not in POOLINGS_OVER_TOKENS:
    raise UsageError(
      f"--exclude-special-tokens does not go with --pooling {chosen}, whose token is a special one; "
      f"choose --pooling {_either(POOLINGS_OVER_TOKENS)}"
    )
  kind = _check_combine(checkpoint, combine)
  numbers, layers_why = _choose_layers(checkpoint, chosen, layers, kind)
  if kind is not None and kind != "fused" and len(numbers) == 1:
    raise UsageError(f"--combine {kind}: there is only layer {numbers[0]} to combine; give --layers, such as 1 {L}")
  readout = Readout(chosen, numbers, kind or "average", exclude_special_tokens)
  return readout, _lines(readout, L, pooling_why, layers_why, "default" if kind is None else "asked for")


def resolve_layers(layers: Sequence[Layer], L: int) -> tuple[int, ...]:
  """Returns layers 0…L in order for what a user counts, −1 = L … −L = 1; raises UsageError for anything else."""
  numbers = [i for layer in layers for i in ({1, L} if layer == "first-last" else {layer})]
  for layer in numbers:
    if not -L <= layer <= L:
      raise UsageError(f"--layers {layer}: the model has {L} layers; choose 0 (embedding output) to {L}, or -1 to -{L}")
  resolved = tuple(sorted(layer + L + 1 if layer < 0 else layer for layer in numbers))
  if not resolved or len(set(resolved)) < len(resolved):
    raise UsageError(f"--layers {' '.join(map(str, layers))}: name one layer or more, each once")
  return resolved


def _choose_pooling(checkpoint: Checkpoint, pooling: str | None, asked: Sequence[str]) -> tuple[Pooling, str]:
  model = checkpoint.architecture
  if pooling is not None:
    for known in model.poolings:
      if known == pooling:
        return known, "asked for"
    why = f"{model.a_name} has none" if pooling in POOLINGS else "not known"
    raise UsageError(f"--pooling {pooling}: {why}; choose {_either(model.poolings)}")
  if checkpoint.pooling is not None:
    return checkpoint.pooling, "stated by the folder"
  if asked:
    return "mean", f"default with {asked[0]}"
  if checkpoint.has_classifier:
    return "pooler", "the checkpoint has a classifier, whose training made the pooler's vector"
  return "mean", "default"


def _check_combine(checkpoint: Checkpoint, combine: str | None) -> Combine | None:
  if combine is None:
    return None
  model = checkpoint.architecture
  if combine == "fused" and "fused" in model.combines and checkpoint.kind != "google":
    raise UsageError(
      f"--combine fused: {checkpoint.name} is no Google checkpoint, and only those have a learned mix of layers; "
      "choose average, sum or concat"
    )
  for known in model.combines:
    if known == combine:
      return known
  why = f"{model.a_name} has no learned mix of layers" if combine in COMBINES else "not known"
  raise UsageError(f"--combine {combine}: {why}; choose {_either(model.combines)}")


def _choose_layers(
  checkpoint: Checkpoint, pooling: Pooling, layers: Sequence[Layer] | None, combine: Combine | None
) -> tuple[tuple[int, ...], str]:
  L = checkpoint.config.layers
  if combine == "fused":
    if layers is not None:
      raise UsageError(
        f"--layers does not go with --combine fused, which takes all, 1 to {L}; choose average, sum or concat, "
        "or leave --layers out"
      )
    return tuple(range(1, L + 1)), "a learned mix takes all"
  if pooling == "pooler":
    return (L,), "the pooler stands on the last"
  if layers is not None:
    return resolve_layers(layers, L), "asked for"
  if checkpoint.layers is not None:
    return checkpoint.layers, "stated by the folder"
  return (max(L - 1, 0),), "default, the last but one"


def _lines(readout: Readout, L: int, pooling_why: str, layers_why: str, combine_why: str) -> tuple[str, ...]:
  without = ", special tokens not counted" if readout.exclude_special_tokens else ""
  lines = [
    f"pooling: {readout.pooling}{without} ({pooling_why})",
    f"layers: {' '.join(map(str, readout.layers))} of {L} ({layers_why})",
  ]
  if len(readout.layers) > 1:
    lines.append(f"combine: {readout.combine} ({combine_why})")
  return tuple(lines)


def _without_pooler(checkpoint: Checkpoint, asked: Sequence[str]) -> Sequence[Pooling]:
  """The poolings that the wishes leave."""
  if "--exclude-special-tokens" in asked:
    return POOLINGS_OVER_TOKENS
  return [pooling for pooling in checkpoint.architecture.poolings if pooling != "pooler"]


def _either(words: Sequence[str]) -> str:
  return f"{', '.join(words[:-1])} or {words[-1]}"
