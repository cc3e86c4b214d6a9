"""How a run comes by its whitening: decided before it starts, from the options and the encoder."""

from pathlib import Path

from pipeline.dataset import whitening_bytes
from pipeline.graph import FitWhitening
from pipeline.options import FIT, NONE, EmbedOptions
from transforms.encoder import EncoderSpec
from transforms.whitening import DEFAULT_COMPONENTS, Whitening, check_n_components, load_whitening


def fit_for(options: EmbedOptions, whitening: str, spec: EncoderSpec) -> FitWhitening:
  """Returns how a run comes by its whitening; raises UsageError for one that cannot be had.

  Args:
    options: what is asked.
    whitening: `fit`, `none` or a path, resolved.
    spec: the encoder's.
  """
  check_n_components(options.n_components, spec.vector_size)
  if whitening == FIT:
    return FitWhitening(spec.fingerprint, n_components=_components_to_fit(options, spec))
  if whitening == NONE:
    return FitWhitening(spec.fingerprint, given=Whitening.none(spec.vector_size, spec.fingerprint))
  given = load_whitening(
    whitening_bytes(Path(whitening)),
    whitening,
    hidden_size=spec.vector_size,
    encoder_fingerprint=spec.fingerprint,
    n_components=options.n_components,
  )
  return FitWhitening(spec.fingerprint, given=given)


def _components_to_fit(options: EmbedOptions, spec: EncoderSpec) -> int | float | None:
  """Returns what is asked; None leaves it to the whitening, which takes one component less than the width at most.

  Layers side by side have one too many each: every layer normalisation gives a plane (docs/numerics.md).
  """
  if options.n_components is None and spec.combine == "concat":
    return min(DEFAULT_COMPONENTS, max(spec.vector_size - len(spec.layers), 1))
  return options.n_components
