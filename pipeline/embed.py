"""Run `sorbus embed` on the local runner: plan, waves, finish, and say what came of it."""

import functools
import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import apache_beam as beam
import fsspec
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.worker import sdk_worker

from pipeline.dataset import Dataset
from pipeline.embed_plan import EmbedPlan, start_run
from pipeline.graph import EncodeWave, FinishRun, KeepRecords, Loaders
from pipeline.lock import DatasetLock, Owner
from pipeline.memory import bound_allocators, release_memory
from pipeline.options import EmbedOptions, RewhitenOptions
from pipeline.outcome import Outcome, find_outcome
from pipeline.planning import absolute, plan_run
from pipeline.progress import progress_line, say
from pipeline.publish_plan import MeasuredSelfTest
from pipeline.repair import damage_told, repaired
from transforms.encoder import Encoder, load_encoder, load_wordpiece, read_spec
from transforms.encoder_spec import GRAPH_FILE, EncoderSpec
from transforms.errors import EncoderError, SorbusError, StoreError, UsageError
from transforms.read_documents import Wave
from transforms.records import Record, from_json_lines
from transforms.wordpiece import Wordpiece

__all__ = ["Loaders", "Outcome", "embed", "outcome", "run_plan"]  # Outcome as part of this interface

LOCAL_RUNNERS = ("FnApiRunner", "DirectRunner")


def embed(
  options: EmbedOptions, loaders: Loaders | None = None, spec: EncoderSpec | None = None, encoder_bytes: int = 0
) -> Outcome:
  """Runs the pipeline and returns what came of it.

  Args:
    options: what is asked.
    loaders: what workers load; None for the encoder folder of `options`. Tests and benchmarks bring their own.
    spec: that of the encoder which `loaders` load.
    encoder_bytes: the size of its graph.

  Raises:
    RunHeldError: another job holds the dataset, and `options.wait` is false.
    SorbusError: with one line for the user; nothing has been published.
  """
  if loaders is None:
    spec, encoder_bytes = read_spec(options.encoder), graph_bytes(options.encoder)
    loaders = make_loaders(options, spec.fingerprint)
  assert spec is not None, "own loaders need their spec"
  beam_options = local_options(options)
  bound_allocators()
  while True:
    plan = plan_run(options, spec, encoder_bytes, before_new_dataset=loaders.encoder)
    if not (options.again or options.replay) and (manifest := plan.find_unchanged()):
      return Outcome("unchanged", dict(manifest))
    owner = Owner.here("embed", plan.run.run_id)
    with DatasetLock(plan.run.storage).held(owner, wait=options.wait, say=say):
      if plan.is_current():  # else another run was published before the lock was ours
        return run_plan(plan, options, loaders, beam_options)


def run_plan(plan: EmbedPlan, options: EmbedOptions, loaders: Loaders, beam_options: PipelineOptions) -> Outcome:
  """Does what was planned."""
  bound_allocators()
  encoder = loaders.encoder()  # before any work: it tests itself, and is kept here for all waves
  plan = with_self_test(plan, encoder, options)
  plan = start_run(plan, options, say)
  with progress_line(plan.run, plan.text_bytes, len(plan.waves)), damage_told(plan.run.store, say):
    records = [record for wave in plan.waves for record in run_wave(plan, wave.number, loaders, beam_options)]
    del encoder
    finish(plan, records, beam_options)
  return outcome(plan)


def with_self_test(plan: EmbedPlan, encoder: Encoder, options: EmbedOptions) -> EmbedPlan:
  """Returns the plan with what the self-test found when the encoder was loaded, for the verdict."""
  error, asked = encoder.self_test_error, options.max_self_test_error
  if error is None:  # an encoder of a test
    return plan
  measured = MeasuredSelfTest(error, encoder.spec.self_test.tolerance if asked is None else asked)
  return replace(plan, publish=replace(plan.publish, self_test=measured))


def run_wave(plan: EmbedPlan, number: int, loaders: Loaders, beam_options: PipelineOptions) -> list[Record]:
  """Takes one wave of buckets through the encoder; where the store turns out to be damaged, a second time without it.

  Raises:
    KnownTextsLostError: and still known texts get lost.
  """
  return repaired(plan.run, plan.waves[number], lambda wave: encode_wave(plan, wave, loaders, beam_options), say)


def encode_wave(plan: EmbedPlan, wave: Wave, loaders: Loaders, beam_options: PipelineOptions) -> list[Record]:
  """Takes one wave, once, and returns its records, read back from their file."""
  path = f"{plan.run.folder}/records/wave-{wave.number:03d}.jsonl"
  with run_pipeline(beam_options) as p:
    records = p | "EncodeWave" >> EncodeWave(plan.run, wave, plan.slices, loaders)
    _ = records | "KeepRecords" >> KeepRecords(plan.run, path)
  return from_json_lines(plan.run.storage.read(path))


def finish(plan: EmbedPlan, records: list[Record], beam_options: PipelineOptions) -> None:
  """Settles ids, whitens, writes and publishes, from the records of all waves."""
  with run_pipeline(beam_options) as p:
    _ = p | "Records" >> beam.Create(records, reshuffle=False) | "FinishRun" >> FinishRun(plan.publish, plan.fit)


def outcome(plan: EmbedPlan) -> Outcome:
  """Reads from the dataset what came of a run, and tidies what only the run itself needed."""
  dataset = Dataset(plan.run.storage)
  manifest = dataset.manifest(plan.run.run_id)
  with suppress(OSError):  # no reason to call a run failed that is published
    for folder in (f"{plan.run.folder}/progress", f"{plan.run.folder}/known", f"{plan.run.folder}/planned"):
      for name in plan.run.storage.names(folder):
        plan.run.storage.remove(f"{folder}/{name}")
  found = find_outcome(dataset, manifest)
  assert found, (plan.run.run_id, "its last step publishes it, or finds that another was published")
  return found


def make_loaders(options: EmbedOptions, fingerprint: str) -> Loaders:
  """Returns what workers load for the encoder folder of `options`, which has to stay the one that was planned with."""
  url = absolute(options.encoder)
  wordpiece = functools.partial(load_same_wordpiece, url, fingerprint)
  return Loaders(wordpiece, functools.partial(load_same_encoder, url, fingerprint, options.threads))


def graph_bytes(url: str) -> int:
  """Returns the size of an encoder's graph in bytes."""
  fs, path = fsspec.core.url_to_fs(url)
  try:
    return int(fs.size(f"{path}/{GRAPH_FILE}"))
  except FileNotFoundError as error:
    raise EncoderError(f"{url}/{GRAPH_FILE}: not there; an encoder folder is what `sorbus freeze` writes") from error


def load_same_wordpiece(url: str, fingerprint: str) -> Wordpiece:
  """Loads the tokeniser of the encoder that the run was planned with; needs no TensorFlow."""
  spec = read_spec(url)
  _check_same(url, spec, fingerprint)
  return load_wordpiece(url, spec)


@functools.lru_cache(maxsize=1)
def load_same_encoder(url: str, fingerprint: str, threads: int) -> Encoder:
  """Loads the encoder that the run was planned with, once per process: all waves use one session."""
  encoder = load_encoder(url, threads=threads)
  _check_same(url, encoder.spec, fingerprint)
  return encoder


def _check_same(url: str, spec: EncoderSpec, fingerprint: str) -> None:
  if spec.fingerprint != fingerprint:
    raise EncoderError(
      f"{url}: encoder {spec.fingerprint[:16]}, the run was planned with {fingerprint[:16]}; run again with one of them"
    )


def local_options(options: EmbedOptions | RewhitenOptions) -> PipelineOptions:
  """Returns Beam's options for the local runner; raises UsageError for a flag that Beam does not know."""
  flags = list(options.beam_options)
  stray = [flag for before, flag in pairwise(["", *flags]) if not flag.startswith("-") and not before.startswith("-")]
  if stray:
    raise UsageError(f"{stray[0]!r} behind '--': Beam's options begin with dashes")
  known = _parse_beam_options(flags)
  unknown = set(PipelineOptions(flags).get_all_options(retain_unknown_options=True)) - set(known)
  if unknown:
    raise UsageError(f"--{sorted(unknown)[0]} behind '--': Beam has no such option")
  runner = known.get("runner") or LOCAL_RUNNERS[0]
  if runner not in LOCAL_RUNNERS:
    raise UsageError(f"--runner={runner}: this version runs locally only ({LOCAL_RUNNERS[0]})")
  # Pinned: DirectRunner would try to download Prism, and changes engines silently for some transforms.
  flags = [flag for flag in flags if not flag.startswith("--runner")]
  modes = ["--direct_running_mode=multi_threading", f"--direct_num_workers={options.threads}"]
  return PipelineOptions([*modes, *flags, f"--runner={LOCAL_RUNNERS[0]}"])


def _parse_beam_options(flags: list[str]) -> dict[str, Any]:
  said = io.StringIO()
  try:
    with redirect_stderr(said):
      return PipelineOptions(flags).get_all_options()
  except SystemExit as error:  # after three pages of usage
    raise UsageError(f"behind '--': {said.getvalue().strip().rpartition('error: ')[2]}") from error


@contextmanager
def run_pipeline(beam_options: PipelineOptions) -> Iterator[beam.Pipeline]:
  """Runs the pipeline built in the block; an error of ours comes out as itself, not as Beam's traceback in a string."""
  if not logging.getLogger().isEnabledFor(logging.INFO):
    # The SDK prints a worker's traceback past every log level; what went wrong is told in one line, or raised, below.
    sdk_worker.print = lambda *args, **kwargs: None
  try:
    with beam.Pipeline(options=beam_options) as p:
      yield p
    release_memory()
  except Exception as error:
    ours = find_own_error(str(error), error) or find_file_system_error(str(error))
    if ours is None:
      raise
    raise ours from error


def find_own_error(text: str, error: Exception | None = None) -> SorbusError | None:
  """Returns the SorbusError that a worker raised, from the text in which an engine hands it over.

  In process Beam raises our own class, on threads a RuntimeError with the traceback as text; both say where it ran.
  """
  if isinstance(error, SorbusError):
    return type(error)(_without_place(text))
  kinds = {f"{kind.__module__}.{kind.__name__}": kind for kind in _kinds(SorbusError)}
  for line in reversed(text.splitlines()):
    name, separator, message = line.strip().partition(": ")
    if separator and name in kinds:
      return kinds[name](_without_place(message))
  return None


def find_file_system_error(text: str) -> StoreError | None:
  """Returns what a file system said to a worker, such as "Input/output error: '/x/y'", from an engine's text."""
  said = re.findall(r"^(?:\w+: )*\w*Error: \[Errno \d+\] (.*)", text, flags=re.MULTILINE)
  return StoreError(f"{_without_place(said[-1])}; mend that and run again: what is there is kept") if said else None


def _without_place(message: str) -> str:
  return re.sub(r" \[while running .*", "", message, flags=re.DOTALL)


def _kinds(kind: type[SorbusError]) -> Iterator[type[SorbusError]]:
  yield kind
  for child in kind.__subclasses__():
    yield from _kinds(child)
