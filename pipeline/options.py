"""The configuration of a run, frozen and checked; what the command line's flags become."""

import os
from dataclasses import dataclass, field

from transforms.digests import MAX_BITS
from transforms.encoder_spec import PRECISIONS
from transforms.errors import UsageError
from transforms.input_files import ReadOptions
from transforms.long_texts import CHUNKS, MODES, TRUNCATE, WINDOWS
from transforms.run_plan import DEFAULT_FLUSH_SECONDS, DEFAULT_TOKEN_BUDGET
from transforms.url_secrets import check_no_secret, check_no_secret_flag
from transforms.vector_table import RESERVED_NAMES
from transforms.vector_types import VECTOR_TYPES

FIT, NONE, REUSE = "fit", "none", "reuse"
# A precision to be decided when a run is submitted.
AUTO = "auto"


def available_threads() -> int:
  """Returns the number of cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_memory_budget() -> int:
  """Returns half of the machine's memory in bytes: the other half is the page cache's and other people's."""
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
  """What `sorbus embed` is asked to do.

  Attributes:
    inputs: globs, files or folders, of any fsspec file system.
    encoder: encoder folder.
    precision: `float32`, `bfloat16`, or `auto`: the dataset's, or else bfloat16 where this machine is fast and right.
    dataset: dataset folder, or s3://BUCKET/PREFIX, or gs://BUCKET/PREFIX.
    read: how documents are found in the input.
    limit: only the first so many documents, None for all.
    long_texts: what becomes of texts with more tokens than fit: 'truncate', 'head-tail', 'windows' or 'chunks'.
    stride: of windows and chunks, in tokens; None for the default.
    whitening: 'fit', 'none', 'reuse', a path or URL, or None: that of the published run, or else the encoder's default.
    n_components: K, a share of the variance in (0, 1), or None for the default.
    max_rejected: share of rejected documents above which nothing is published.
    max_shrink: share of the published run's documents that may be gone.
    max_broken: share of the documents that the encoder may fail on; one always may, unless this is 0.
    max_self_test_error: of the encoder's self-test; None for its own tolerance, beyond which no job starts at all.
    threads: the encoder's, and here bundles at a time; None for every core of the machine that it runs on.
    memory_budget: bytes that the process may use.
    buckets: a power of two, None to plan it from the input's size.
    waves: None to plan it from the memory budget.
    token_budget: rows × longest of a batch.
    flush_seconds: of encoding that a crash may cost.
    again: run although nothing has changed since the published run.
    wait: for another job on the dataset, rather than to be refused.
    replay: id of a run of the dataset whose rejected documents are to be accounted for; implies `again`.
    new_encoder: the dataset may be of another encoder: then a store for this one is begun beside that one's.
    runner: where it runs, None for this machine (`engines.py`).
    detach: submit to a cluster and leave it to itself.
    beam_options: flags for Beam.
    threshold: with a sigmoid head, the probability above which a label is named; None for its default.
    vector_type: of the published vectors: `float32`, `float16` or `int8`; None for the published run's.
    refit_above: with a reused whitening, the share of changed neighbours above which a new one is fitted; None: never.
  """

  inputs: tuple[str, ...]
  encoder: str
  dataset: str
  precision: str = PRECISIONS[0]
  read: ReadOptions = field(default_factory=ReadOptions)
  limit: int | None = None
  long_texts: str = TRUNCATE
  stride: int | None = None
  whitening: str | None = None
  n_components: int | float | None = None
  max_rejected: float = 0.01
  max_shrink: float = 0.5
  max_broken: float = 0.001
  max_self_test_error: float | None = None
  threads: int | None = None
  memory_budget: int = field(default_factory=default_memory_budget)
  buckets: int | None = None
  waves: int | None = None
  token_budget: int = DEFAULT_TOKEN_BUDGET
  flush_seconds: float = DEFAULT_FLUSH_SECONDS
  again: bool = False
  wait: bool = False
  new_encoder: bool = False
  replay: str | None = None
  runner: str | None = None
  detach: bool = False
  beam_options: tuple[str, ...] = ()
  threshold: float | None = None
  refit_above: float | None = None
  vector_type: str | None = None

  def __post_init__(self) -> None:
    for option, value in (("--input", all(self.inputs)), ("--encoder", self.encoder), ("--dataset", self.dataset)):
      if not value:  # an unset variable of a shell would mean the current folder
        raise UsageError(f"{option} is empty: name a path")
    _check_choice("precision", self.precision, (*PRECISIONS, AUTO))
    _check_choice("long-texts", self.long_texts, MODES)
    if self.stride is not None and self.long_texts not in (WINDOWS, CHUNKS):
      raise UsageError(
        f"--stride {self.stride} with --long-texts {self.long_texts}: it says where the next of several windows or "
        "chunks begins; add --long-texts windows or chunks, or drop it"
      )
    _check_secrets(self.inputs, self.encoder, self.dataset, self.whitening)
    for flag in self.beam_options:
      check_no_secret_flag(flag, "behind '--':")
    reserved = sorted(RESERVED_NAMES.intersection(self.read.keep_columns))
    if reserved:
      raise UsageError(f"--keep-columns {reserved[0]}: Sorbus writes a column of that name itself; rename the input's")
    if self.buckets is not None and (self.buckets < 1 or self.buckets.bit_count() != 1 or self.buckets > 1 << MAX_BITS):
      raise UsageError(f"--buckets {self.buckets}: choose a power of two from 1 to {1 << MAX_BITS}")
    for name in ("max_rejected", "max_shrink", "max_broken"):
      if not 0 <= getattr(self, name) <= 1:
        raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name):g}: is no share; choose 0 to 1")
    if self.token_budget < 1:
      raise UsageError(f"--token-budget {self.token_budget}: choose 1 or more")
    if self.threshold is not None and not 0 <= self.threshold <= 1:
      raise UsageError(f"--threshold {self.threshold:g}: probabilities lie between 0 and 1; choose one of them")
    _check_components(self.whitening, self.n_components)
    if self.vector_type is not None:
      _check_choice("vector-type", self.vector_type, VECTOR_TYPES)
    if self.refit_above is not None and self.whitening not in (None, REUSE):
      raise UsageError(
        f"--refit-above {self.refit_above:g} with --whitening {self.whitening}: it is for a whitening that is reused; "
        "drop one of them"
      )

  def resolve_whitening(self, for_cosine: bool, published: str | None = None) -> str:
    """Returns how the whitening is come by.

    Args:
      for_cosine: whether the encoder was trained for cosine similarity as it is.
      published: how the published run came by its whitening, which then is the default; None if there is none.

    Raises:
      UsageError: there is none to reuse, or components are asked for where all are kept.
    """
    if self.whitening in (None, REUSE) and published is not None:
      return NONE if published == NONE else REUSE
    if self.whitening == REUSE:
      raise UsageError(
        f"--whitening reuse: {self.dataset} has no published run to take it from; leave the option out: the first run "
        "fits, later ones reuse"
      )
    if self.whitening is not None:
      return self.whitening
    if for_cosine and self.n_components is not None:
      raise UsageError(
        f"--n-components {self.n_components}: this encoder's default is --whitening none, which keeps all components; "
        f"add --whitening fit"
      )
    return NONE if for_cosine else FIT


@dataclass(frozen=True, kw_only=True)
class RewhitenOptions:
  """What `sorbus rewhiten` is asked to do.

  Attributes:
    dataset: dataset folder.
    run_id: the run whose raw vectors are taken; None for the published one.
    whitening: 'fit', 'none', a path or URL.
    n_components: K, a share of the variance in (0, 1), or None for what that run has.
    max_rejected: as for embed; None for what that run was made with.
    max_shrink: the same.
    vector_type: as for embed; None for that run's.
    threads: bundles at a time; None for all cores.
    wait: for another job on the dataset, rather than to be refused.
  """

  dataset: str
  run_id: str | None = None
  whitening: str = FIT
  n_components: int | float | None = None
  max_rejected: float | None = None
  max_shrink: float | None = None
  vector_type: str | None = None
  threads: int | None = None
  wait: bool = False
  beam_options: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    _check_components(self.whitening, self.n_components)


def _check_secrets(inputs: tuple[str, ...], encoder: str, dataset: str, whitening: str | None) -> None:
  """Raises UsageError for a URL that no plan and no manifest may hold."""
  named = {"--encoder": encoder, "--dataset": dataset, "--whitening": whitening or ""}
  for option, url in (*(("--input", url) for url in inputs), *named.items()):
    check_no_secret(url, option)


def _check_choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise UsageError(f"--{flag} {value}: choose {', '.join(choices[:-1])} or {choices[-1]}")


def _check_components(whitening: str | None, n_components: int | float | None) -> None:
  if whitening == NONE and n_components is not None:
    raise UsageError(
      "--n-components with --whitening none: without whitening all components are kept; drop one of them"
    )
