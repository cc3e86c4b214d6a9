"""Run `sorbus embed`: plan, encode, finish, and say what came of it; here in waves, on a cluster as one graph."""

import datetime
import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import apache_beam as beam

from pipeline.choose_precision import choose_precision, warn_of_float32
from pipeline.dataset import Dataset
from pipeline.embed_plan import EmbedPlan, start_run
from pipeline.engines import Engine, check_ready, choose_engine
from pipeline.graph import EmbedCorpus, EncodeWave, FinishRun, KeepRecords, Loaders
from pipeline.lock import DatasetLock, Owner
from pipeline.memory import bound_allocators, set_aside
from pipeline.options import EmbedOptions
from pipeline.outcome import Outcome, find_outcome
from pipeline.planning import absolute, choose_long_texts, plan_run
from pipeline.progress import progress_line, say
from pipeline.publish_plan import MeasuredSelfTest
from pipeline.reach_engine import check_reachable
from pipeline.repair import damage_told, repaired
from pipeline.run_pipeline import run_pipeline
from transforms.encoder import Encoder, load_encoder, load_tokenizer, read_spec
from transforms.encoder_spec import GRAPH_FILE, EncoderSpec
from transforms.errors import EncoderError, EngineError, UsageError
from transforms.long_texts import TRUNCATED, LongTexts
from transforms.places import file_system
from transforms.read_documents import Wave
from transforms.records import Record, from_json_lines
from transforms.run_plan import RunPlan
from transforms.self_test import tolerance
from transforms.tokenizer import Tokenizer

AskedLongTexts = tuple[str, int | None]  # mode and stride, as options have them
TRUNCATION: AskedLongTexts = (TRUNCATED.mode, None)

__all__ = ["Loaders", "Outcome", "embed", "outcome", "run_plan"]  # Outcome as part of this interface


def embed(
  options: EmbedOptions,
  loaders: Loaders | None = None,
  spec: EncoderSpec | None = None,
  encoder_bytes: int = 0,
  begun: Callable[[RunPlan], None] = lambda run: None,
  now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
) -> Outcome:
  """Runs the pipeline and returns what came of it; detached, once the engine has it.

  Args:
    options: what is asked.
    loaders: what workers load; None for the encoder folder of `options`. Tests and benchmarks bring their own.
    spec: that of the encoder which `loaders` load.
    encoder_bytes: the size of its graph.
    begun: is told the run once the dataset is held for it.
    now: the clock.

  Raises:
    RunHeldError: another job holds the dataset, and `options.wait` is false.
    SorbusError: with one line for the user; nothing has been published.
  """
  started = now()  # before the encoder is loaded and another job waited for: the whole of it is what the run took
  engine = choose_engine(options.beam_options, runner=options.runner, threads=options.threads)
  _check_detach(options, engine)
  if engine.is_dry_run:
    options = replace(options, detach=False)  # there will be no job that lives on
  places = {"--dataset": (options.dataset,), "--input": options.inputs}
  check_ready(engine, places | ({} if loaders else {"--encoder": (options.encoder,)}), say)
  bound_allocators()
  if loaders is None:
    frozen, encoder_bytes = read_spec(options.encoder), graph_bytes(options.encoder)
    spec = choose_precision(
      options,
      frozen.with_long_texts(choose_long_texts(options, frozen)),
      lambda chosen: make_loaders(options, chosen.fingerprint, engine.threads).encoder(),
      say,
    )
    loaders = make_loaders(options, spec.fingerprint, engine.threads)
  assert spec is not None, "own loaders need their spec"
  while True:
    plan = plan_run(options, spec, encoder_bytes, engine, now, before_new_dataset=loaders.encoder, started=started)
    if not (options.again or options.replay) and (manifest := plan.find_unchanged()):
      return Outcome("unchanged", dict(manifest))
    check_reachable(engine)
    owner = replace(Owner.here("embed", plan.run.run_id), is_elsewhere=not engine.is_local)
    if options.detach:
      owner = replace(owner, pid=None)
    with DatasetLock(plan.run.storage).held(owner, wait=options.wait, say=say, leave=options.detach) as lock:
      if plan.is_current():  # else another run was published before the lock was ours
        plan = replace(plan, publish=replace(plan.publish, frees_lock=lock if options.detach else None))
        begun(plan.run)
        return run_plan(plan, options, loaders, engine)


def _check_detach(options: EmbedOptions, engine: Engine) -> None:
  """Raises UsageError for a job that would not live on without this process."""
  if options.detach and engine.is_local:
    raise UsageError("--detach without --runner: here the run is this process; name a cluster, or leave it out")
  if options.detach and engine.has_own_job_server:
    raise UsageError(
      f"--detach with --runner {engine.runner}: Beam's job server would stop with this command, whether or not the "
      "cluster has the job by then; add --flink_submit_uber_jar behind '--', which sends it without one"
    )


def run_plan(plan: EmbedPlan, options: EmbedOptions, loaders: Loaders, engine: Engine) -> Outcome:
  """Does what was planned."""
  bound_allocators()
  encoder = loaders.encoder()  # before any work: it tests itself, and is kept here for all waves
  warn_of_float32(encoder, say)
  plan = with_self_test(plan, encoder, options)
  plan = start_run(plan, options, say)
  if not engine.is_local:
    del encoder
    return run_on_cluster(plan, loaders, engine, detach=options.detach)
  with set_aside(), progress_line(plan.run, plan.text_bytes, len(plan.waves)), damage_told(plan.run.store, say):
    records = [record for wave in plan.waves for record in run_wave(plan, wave.number, loaders, engine)]
    del encoder
    finish(plan, records, engine)
  return outcome(plan)


def run_on_cluster(plan: EmbedPlan, loaders: Loaders, engine: Engine, *, detach: bool) -> Outcome:
  """Runs the whole plan as one graph, of which the engine tries again what fails.

  Detached, nobody is there to start again where the store turns out to be damaged: the next run does.
  """

  def submit(wave: Wave) -> None:
    with run_pipeline(engine, detach=detach) as p:
      _ = p | "EmbedCorpus" >> EmbedCorpus(plan.run, wave, plan.slices, loaders, plan.publish, plan.fit)

  if engine.is_dry_run:
    try:
      submit(plan.waves[0])
    finally:
      plan.run.storage.remove_folder(plan.run.folder)
    return Outcome("dry run", {"run_id": plan.run.run_id})
  if detach:
    repaired(plan.run, plan.waves[0], submit, say)
    return Outcome("submitted", {"run_id": plan.run.run_id})
  with progress_line(plan.run, plan.text_bytes, 1), damage_told(plan.run.store, say):
    try:
      repaired(plan.run, plan.waves[0], submit, say)
    except Exception:
      # What a job came to stands in its dataset: an engine may lose one that had published already.
      if not is_decided(plan):
        raise
  if not plan.run.is_finished():
    raise EngineError(
      f"{plan.run.storage.root}: the workers have finished, but nothing of it is here: theirs is another folder of "
      "that name; name one that all have mounted, or a URL"
    )
  return outcome(plan)


def is_decided(plan: EmbedPlan) -> bool:
  """Says whether a run came to its end: its last step may also fail between the manifest and publishing it."""
  dataset = Dataset(plan.run.storage)
  return plan.run.is_finished() and find_outcome(dataset, dataset.manifest(plan.run.run_id)) is not None


def with_self_test(plan: EmbedPlan, encoder: Encoder, options: EmbedOptions) -> EmbedPlan:
  """Returns the plan with what the self-test found when the encoder was loaded, for the verdict."""
  error, asked = encoder.self_test_error, options.max_self_test_error
  if error is None:  # an encoder of a test
    return plan
  allowed = tolerance(encoder.spec) if asked is None else asked
  measured = MeasuredSelfTest(error, allowed, encoder.spec.precision)
  return replace(plan, publish=replace(plan.publish, self_test=measured))


def run_wave(plan: EmbedPlan, number: int, loaders: Loaders, engine: Engine) -> list[Record]:
  """Takes one wave of buckets through the encoder; where the store turns out to be damaged, a second time without it.

  Raises:
    KnownTextsLostError: and still known texts get lost.
  """
  return repaired(plan.run, plan.waves[number], lambda wave: encode_wave(plan, wave, loaders, engine), say)


def encode_wave(plan: EmbedPlan, wave: Wave, loaders: Loaders, engine: Engine) -> list[Record]:
  """Takes one wave, once, and returns its records, read back from their file."""
  path = f"{plan.run.folder}/records/wave-{wave.number:03d}.jsonl"
  with run_pipeline(engine) as p:
    records = p | "EncodeWave" >> EncodeWave(plan.run, wave, plan.slices, loaders)
    _ = records | "KeepRecords" >> KeepRecords(plan.run, path)
  return from_json_lines(plan.run.storage.read(path))


def finish(plan: EmbedPlan, records: list[Record], engine: Engine) -> None:
  """Settles ids, whitens, writes and publishes, from the records of all waves."""
  with run_pipeline(engine) as p:
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


def make_loaders(options: EmbedOptions, fingerprint: str, threads: int | None) -> Loaders:
  """Returns what workers load for the encoder folder of `options`, which has to stay the one that was planned with."""
  url = absolute(options.encoder)
  asked = options.long_texts, options.stride
  tokenizer = functools.partial(load_same_tokenizer, url, fingerprint, asked)
  return Loaders(tokenizer, functools.partial(load_same_encoder, url, fingerprint, threads, asked))


def graph_bytes(url: str) -> int:
  """Returns the size of an encoder's graph in bytes."""
  fs, path = file_system(url)
  try:
    return int(fs.size(f"{path}/{GRAPH_FILE}"))
  except FileNotFoundError as error:
    raise EncoderError(f"{url}/{GRAPH_FILE}: not there; an encoder folder is what `sorbus freeze` writes") from error


def load_same_tokenizer(url: str, fingerprint: str, asked: AskedLongTexts = TRUNCATION) -> Tokenizer:
  """Loads the tokeniser of the encoder that the run was planned with; needs no TensorFlow."""
  return load_tokenizer(url, _same_spec(url, read_spec(url), fingerprint, asked))


@functools.lru_cache(maxsize=1)
def load_same_encoder(url: str, fingerprint: str, threads: int | None, asked: AskedLongTexts = TRUNCATION) -> Encoder:
  """Loads the encoder that the run was planned with, once per process: all waves use one session.

  The fingerprint tells its precision too, which so is the same on every worker.
  """
  spec = _same_spec(url, read_spec(url), fingerprint, asked)
  long_texts = spec.long_texts or TRUNCATED
  encoder = load_encoder(url, threads=threads, precision=spec.precision, long_texts=long_texts)
  _same_spec(url, encoder.spec, fingerprint, asked)  # `sorbus freeze --overwrite` may have come in between
  return encoder


def _same_spec(url: str, found: EncoderSpec, fingerprint: str, asked: AskedLongTexts) -> EncoderSpec:
  """Returns a folder's encoder in the precision of the fingerprint; raises EncoderError for another's."""
  long_texts = LongTexts.asked(*asked, found.max_seq_length)
  if (spec := found.with_long_texts(long_texts).variants().get(fingerprint)) is None:
    raise EncoderError(
      f"{url}: encoder {found.fingerprint[:16]}, the run was planned with {fingerprint[:16]}; run again with one of "
      "them"
    )
  return spec
