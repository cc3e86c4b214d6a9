"""Estimate a run: plan it as `sorbus embed` would, read a sample, time the encoder and all the rest on this machine."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from pipeline.choose_precision import BFLOAT16_FLAGS, choose_precision, processor_flags, warn_of_float32
from pipeline.choose_whitening import choose_whitening
from pipeline.dataset import Dataset
from pipeline.dataset_encoder import allow_encoder
from pipeline.embed import graph_bytes
from pipeline.engines import Engine, choose_engine
from pipeline.forecast import Costs, Work, fit_line, padding_share
from pipeline.memory import bound_allocators
from pipeline.options import NONE, EmbedOptions
from pipeline.planning import (
  SHUFFLE_BYTES_PER_TEXT_BYTE,
  batch_memory,
  choose_bits,
  choose_long_texts,
  choose_waves,
  find_published,
  fixed_memory,
  list_input,
  list_variants,
  read_base,
)
from pipeline.sampled_corpus import SampledCorpus, look_into
from pipeline.time_encoder import Speed, time_encoder
from pipeline.trial_run import Trial, try_run
from transforms.encoder import Encoder, EncoderSpec, load_encoder, load_tokenizer, read_spec
from transforms.errors import UsageError
from transforms.input_files import InputFile, Slice
from transforms.input_slices import piece_bytes
from transforms.known_texts import KnownTexts, find_known
from transforms.long_texts import CHUNKS, TRUNCATED
from transforms.raw_store import RawStore
from transforms.read_documents import Wave
from transforms.rows import Row
from transforms.self_test import SelfTestError
from transforms.spread_sample import read_spread
from transforms.storage import Storage
from transforms.text_chunks import check_kept_with_chunks

# Of the two trials that tell what a run takes whatever its size from what a document takes.
_FEW_DOCUMENTS = 500


@dataclass(frozen=True)
class Plan:
  """The run as it is planned before anything is read.

  Attributes:
    options: what is asked.
    engine: this machine.
    spec: the encoder's, in the run's precision.
    files: the input's.
    slices: in which it is read.
    text_bytes: as listed.
    bits: of a digest that choose its bucket.
    waves: by the memory budget.
    memory_bytes: that the process will hold at its peak, by the constants of `planning.py`.
  """

  options: EmbedOptions
  engine: Engine
  spec: EncoderSpec
  files: tuple[InputFile, ...]
  slices: tuple[Slice, ...]
  text_bytes: int
  bits: int
  waves: tuple[Wave, ...]
  memory_bytes: int


@dataclass(frozen=True)
class Timed:
  """What one precision takes on this machine: `loading` seconds until the encoder is ready, and its speed."""

  precision: str
  loading: float
  speed: Speed


@dataclass(frozen=True)
class Estimate:
  """What a run will take, and by what.

  Attributes:
    plan: the run.
    corpus: what the sample says of the input.
    padding: share of the computed tokens.
    work: what has to be done.
    trial: of everything but encoding.
    timed: each precision, that of the run first.
    costs: of each of these.
  """

  plan: Plan
  corpus: SampledCorpus
  padding: float
  work: Work
  trial: Trial
  timed: tuple[Timed, ...]
  costs: tuple[Costs, ...]


def estimate(
  options: EmbedOptions,
  *,
  sample: int,
  seconds: float,
  every_precision: bool,
  report: bool,
  started: float,
  say: Callable[[str], None],
  step: Callable[[str], object] = lambda what: None,
) -> Estimate:
  """Returns what a run with some options will take on machines like this one.

  Args:
    options: of the run; its dataset need not be there.
    sample: documents to read, about.
    seconds: of timing encoders.
    every_precision: time each that this processor is fast in, `options.precision` first; of a dataset that is there
      another precision would be a migration, and is not timed.
    report: the run will write one.
    started: when the command was, by `time.perf_counter`.
    say: takes a line.
    step: is told what is done now.

  Raises:
    SorbusError: what would end the run before its start.
  """
  engine = choose_engine(options.beam_options, runner=options.runner, threads=options.threads)
  if not engine.is_local:
    raise UsageError(
      f"--runner {engine.runner}: what is timed is this machine; leave it out: several like it are in the table"
    )
  bound_allocators()
  step("listing the input")
  choosing = time.perf_counter()
  is_new = not Storage.at(options.dataset).exists("dataset.json")
  specs = _precisions(options, engine, every_precision and is_new, say)
  if not is_new:
    _check_encoder(options, specs[0])
  chosen = time.perf_counter() - choosing  # may have loaded the encoder, which is timed below
  plan = _plan(options, specs[0], engine)
  n_components = _n_components(options, specs[0])
  import_module("transforms.frozen_graph")  # TensorFlow: loading a second encoder would not wait for it
  before = time.perf_counter() - started - chosen
  step("reading a sample")
  reading = time.perf_counter()
  taken = read_spread(plan.files, plan.slices, options.read, sample)
  read = time.perf_counter() - reading
  tokenizer, long_texts = load_tokenizer(options.encoder, specs[0]), choose_long_texts(options, specs[0])
  corpus = look_into(taken, tokenizer, _held(plan, specs[0]), options.limit, long_texts)
  batches = corpus.batches(plan.bits, options.token_budget)
  timed = tuple(_time_each(plan, specs, corpus, batches, seconds, before, say, step))
  work = Work(corpus.accepted, corpus.computed_tokens(batches), plan.text_bytes, len(plan.waves))
  step("trying the rest")
  trial, rest = _try_rest(plan, specs[0], taken.rows, timed[0].speed.vectors, n_components, report)
  per_byte = read / max(1, corpus.sampled_bytes) / engine.parallelism
  costs = tuple(Costs(each.loading, *rest, per_byte, each.speed.seconds_per_token) for each in timed)
  return Estimate(plan, corpus, padding_share(corpus.windows.lengths, batches), work, trial, timed, costs)


def _plan(options: EmbedOptions, spec: EncoderSpec, engine: Engine) -> Plan:
  long_texts = choose_long_texts(options, spec)
  if long_texts.mode == CHUNKS:
    check_kept_with_chunks(options.read)
  files, slices = list_input(options)
  text_bytes = sum(piece_bytes(files[piece.file], piece) for piece in slices)
  travelling = round(text_bytes * long_texts.growth)  # as in `plan_run`
  bits = choose_bits(options, travelling, engine.parallelism)
  encoder_bytes, n_labels = graph_bytes(options.encoder), len(spec.labels)
  batch = batch_memory(spec, options.token_budget)
  waves = choose_waves(options, travelling, encoder_bytes, bits, engine, n_labels, batch)
  fixed = fixed_memory(encoder_bytes, engine, n_labels, batch)
  memory = fixed + SHUFFLE_BYTES_PER_TEXT_BYTE * travelling // len(waves)
  return Plan(options, engine, spec, files, slices, text_bytes, bits, waves, memory)


def _precisions(
  options: EmbedOptions, engine: Engine, every: bool, say: Callable[[str], None]
) -> tuple[EncoderSpec, ...]:
  """Returns the encoder in the run's precision and, where every one is asked for, in what else is fast here."""

  def load(spec: EncoderSpec) -> Encoder:
    return _load(options, engine, spec)

  frozen = read_spec(options.encoder)
  frozen = frozen.with_long_texts(choose_long_texts(options, frozen))
  chosen = choose_precision(options, frozen, load, say)
  others = [frozen.at("bfloat16")] if every and BFLOAT16_FLAGS & processor_flags() else []
  return chosen, *others


def _load(options: EmbedOptions, engine: Engine, spec: EncoderSpec) -> Encoder:
  long_texts = spec.long_texts or TRUNCATED
  return load_encoder(options.encoder, engine.threads, precision=spec.precision, long_texts=long_texts)


def _check_encoder(options: EmbedOptions, spec: EncoderSpec) -> None:
  """Raises UsageError where the run would be refused, as the dataset is of another encoder."""
  dataset, published = Dataset.open(options.dataset), find_published(options.dataset)
  base, _ = read_base(dataset, published)
  variants = list_variants(spec, base)
  allow_encoder(dataset, published, base, spec.fingerprint, new_encoder=options.new_encoder, variants=variants)


def _n_components(options: EmbedOptions, spec: EncoderSpec) -> int | float | None:
  """Returns the components of the whitening, or how they are found; 0 for none."""
  chosen = choose_whitening(options, spec, find_published(options.dataset))
  if chosen.asked == NONE:
    return 0
  return chosen.fit.given.n_components if chosen.fit.given else chosen.fit.n_components


def _held(plan: Plan, spec: EncoderSpec) -> Callable[[np.ndarray], np.ndarray]:
  """Returns what says of digests whether the dataset has their raw vectors; looks wave by wave, as the run does."""
  store = RawStore(Storage.at(plan.options.dataset), spec.fingerprint, spec.vector_size, len(spec.labels))

  def held(digests: np.ndarray) -> np.ndarray:
    found = np.zeros(len(digests), dtype=bool)
    for wave in plan.waves:
      found |= KnownTexts(find_known(store, range(wave.first, wave.stop), plan.bits, whole=False)).holds(digests)
    return found

  return held


def _time_each(
  plan: Plan,
  specs: Sequence[EncoderSpec],
  corpus: SampledCorpus,
  batches: Sequence[np.ndarray],
  seconds: float,
  before: float,
  say: Callable[[str], None],
  step: Callable[[str], object],
) -> Iterator[Timed]:
  """Yields what each precision takes; one that nobody asked for, and that is not good enough, is left out."""
  for spec in specs:
    step(f"timing the encoder in {spec.precision}")
    started = time.perf_counter()
    try:
      encoder = _load(plan.options, plan.engine, spec)
    except SelfTestError as failure:
      if spec is specs[0]:
        raise
      say(f"precision {spec.precision}: its vectors are not good enough here ({failure.finding})")
      continue
    loading = before + time.perf_counter() - started
    warn_of_float32(encoder, say)
    threads, each = plan.engine.parallelism, seconds / len(specs)
    speed = time_encoder(encoder, corpus.input_ids, corpus.windows, batches, threads, each)
    yield Timed(spec.precision, loading, speed)


def _try_rest(
  plan: Plan,
  spec: EncoderSpec,
  rows: Sequence[Row],
  vectors: np.ndarray,
  n_components: int | float | None,
  report: bool,
) -> tuple[Trial, tuple[float, float, float]]:
  """Returns a trial of all rows, and seconds of a wave, of the finish, and of a document, by one of a few rows too."""
  if len(vectors) < 2 * spec.vector_size:  # of so few no whitening can be fitted
    vectors = np.random.default_rng(0).standard_normal((2 * spec.vector_size, spec.vector_size), np.float32)

  def trial(some: Sequence[Row], report: bool) -> Trial:
    return try_run(some, plan.options, spec, plan.engine, vectors, n_components, report=report)

  few, every = trial(rows[:_FEW_DOCUMENTS], False), trial(rows, report)
  wave, per_read = fit_line((few.documents, few.wave_seconds), (every.documents, every.wave_seconds))
  finish, per_written = fit_line((few.documents, few.finish_seconds), (every.documents, every.finish_seconds))
  return every, (wave, finish + every.report_seconds, per_read + per_written)
