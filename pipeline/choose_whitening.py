"""How a run comes by its whitening: decided before it starts, from the options and the encoder."""

from dataclasses import dataclass

from pipeline.dataset import Dataset, Published, whitening_bytes
from pipeline.fit_whitening import FitWhitening, LastWhitening
from pipeline.options import FIT, NONE, REUSE, EmbedOptions
from transforms.encoder import EncoderSpec
from transforms.errors import SorbusError, UsageError
from transforms.storage import Storage
from transforms.whitening import DEFAULT_COMPONENTS, Whitening, check_n_components, load_whitening


@dataclass(frozen=True)
class ChosenWhitening:
  """How a run comes by its whitening.

  Attributes:
    asked: fit, none, reuse or a path, as resolved; for the manifest.
    fit: the same, as the run does it.
    problem: why the published run's whitening could not be reused, although that is the default; None if it was, or
      nothing is published.
  """

  asked: str
  fit: FitWhitening
  problem: str | None


def choose_whitening(options: EmbedOptions, spec: EncoderSpec, published: Published | None) -> ChosenWhitening:
  """Decides how a run comes by its whitening.

  Args:
    options: what is asked.
    spec: the encoder's.
    published: the entry that the run is planned upon, None for none.

  Raises:
    UsageError: it cannot be had.
  """
  last, problem = find_last(Dataset(Storage.at(options.dataset)), published, spec.fingerprint)
  if options.whitening == REUSE and problem:
    raise UsageError(f"--whitening reuse: {problem}; leave it out or give --whitening fit")
  asked = options.resolve_whitening(spec.for_cosine, last.asked if last else None)
  return ChosenWhitening(asked, fit_for(options, asked, spec, last), problem if options.whitening is None else None)


def find_last(
  dataset: Dataset, published: Published | None, encoder_fingerprint: str
) -> tuple[LastWhitening | None, str | None]:
  """Returns the published run's whitening, or why it cannot be had: (None, None) where nothing is published."""
  if published is None:
    return None, None
  try:
    manifest = dataset.manifest(published.run_id)
    if manifest["encoder"]["fingerprint"] != encoder_fingerprint:
      return None, f"run {published.run_id} was made by another encoder ({manifest['encoder']['fingerprint'][:16]})"
    whitening, stated = dataset.whitening(published.run_id), manifest["whitening"]
  except SorbusError as error:
    return None, str(error)
  n_components = manifest["options"].get("n_components")
  return LastWhitening(published.run_id, whitening, stated["asked"], stated.get("fitted_by"), n_components), None


def fit_for(
  options: EmbedOptions, whitening: str, spec: EncoderSpec, last: LastWhitening | None = None
) -> FitWhitening:
  """Returns how a run comes by its whitening; raises UsageError for one that cannot be had.

  Args:
    options: what is asked.
    whitening: `fit`, `none`, `reuse` or a path, resolved.
    spec: the encoder's.
    last: the published run's whitening, if it can be had.
  """
  check_n_components(options.n_components, spec.vector_size)
  if whitening == REUSE:
    assert last is not None, whitening
    return _reuse(options, spec, last)
  if whitening == FIT:
    return FitWhitening(spec.fingerprint, n_components=_components_to_fit(options, spec), last=last)
  return FitWhitening(spec.fingerprint, given=_given(options, whitening, spec), last=last)


def _reuse(options: EmbedOptions, spec: EncoderSpec, last: LastWhitening) -> FitWhitening:
  """Takes the last whitening; where it drifts too far, a new fit has the components asked for, else as many as it."""
  asked, K = options.n_components, last.whitening.n_components
  if asked is not None and asked not in (last.n_components, K):
    raise UsageError(
      f"--n-components {asked}: the published run {last.run_id} has {K}, and its whitening is reused; give "
      f"`sorbus rewhiten {options.dataset} --n-components {asked}` first, or --whitening fit"
    )
  return FitWhitening(
    spec.fingerprint,
    n_components=K if asked is None else asked,
    given=last.whitening,
    given_by=last.fitted_by,
    last=last,
    refit_above=options.refit_above,
  )


def _given(options: EmbedOptions, whitening: str, spec: EncoderSpec) -> Whitening:
  if whitening == NONE:
    if options.n_components is not None:  # published without a whitening, which is reused
      raise UsageError(
        f"--n-components {options.n_components}: the published run has no whitening, which keeps all components; "
        f"give `sorbus rewhiten {options.dataset} --n-components {options.n_components}` first, or --whitening fit"
      )
    return Whitening.none(spec.vector_size, spec.fingerprint)
  return load_given(whitening, spec.vector_size, spec.fingerprint, options.n_components)


def load_given(url: str, hidden_size: int, encoder_fingerprint: str, n_components: int | float | None) -> Whitening:
  """Returns the whitening of `--whitening URL` for one encoder; raises UsageError if it is none, or none for it."""
  return load_whitening(
    whitening_bytes(url),
    url,
    hidden_size=hidden_size,
    encoder_fingerprint=encoder_fingerprint,
    n_components=n_components,
  )


def _components_to_fit(options: EmbedOptions, spec: EncoderSpec) -> int | float | None:
  """Returns what is asked; None leaves it to the whitening, which takes one component less than the width at most.

  Layers side by side have one too many each: every layer normalisation gives a plane (docs/numerics.md).
  """
  if options.n_components is None and spec.combine == "concat":
    return min(DEFAULT_COMPONENTS, max(spec.vector_size - len(spec.layers), 1))
  return options.n_components
