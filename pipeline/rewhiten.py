"""Run `sorbus rewhiten`: a new run from the raw vectors of another, whitened anew; nothing is read or encoded.

The source's documents and rejected documents are copied, and the ordinary last steps do the rest, with the same gates.
"""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.choose_whitening import find_last, load_given
from pipeline.dataset import Dataset, new_run_id
from pipeline.embed import finish, outcome
from pipeline.embed_plan import EmbedPlan, write_plan
from pipeline.engines import choose_engine
from pipeline.fit_whitening import FitWhitening, LastWhitening
from pipeline.lock import DatasetLock, Owner
from pipeline.log_lines import about_run
from pipeline.memory import bound_allocators
from pipeline.options import FIT, NONE, REUSE, RewhitenOptions
from pipeline.outcome import Outcome
from pipeline.planning import describe_vector_type, find_base_run, read_base
from pipeline.progress import say
from pipeline.publish_plan import PublishPlan
from pipeline.rewhiten_source import RewhitenSource
from transforms.base_run import vector_type_of
from transforms.errors import UsageError
from transforms.input_types import ReadOptions
from transforms.long_texts import LongTexts
from transforms.predictions import Predictions
from transforms.raw_store import RawStore
from transforms.records import to_json_lines
from transforms.run_plan import RunPlan
from transforms.whitening import Whitening, check_n_components


@dataclass(frozen=True)
class RewhitenPlan:
  """A run that is ready to start, and the one that it is made from."""

  source: RewhitenSource
  run: EmbedPlan


def rewhiten(options: RewhitenOptions) -> Outcome:
  """Makes a new run from the raw vectors of the published or the named run, and publishes it if every gate allows.

  Raises:
    RunHeldError: another job holds the dataset, and `options.wait` is false.
    SorbusError: with one line for the user; nothing has been published.
  """
  engine = choose_engine(options.beam_options, threads=options.threads)
  bound_allocators()
  while True:
    plan = plan_rewhiten(options)
    storage, run = plan.source.storage, plan.run.run
    with DatasetLock(storage).held(Owner.here("rewhiten", run.run_id), wait=options.wait, say=say):
      if not plan.run.is_current():  # another run was published before the lock was ours
        continue
      about_run(run.run_id)
      say(f"run {run.run_id}: whitening {plan.run.publish.whitening} of the raw vectors of run {plan.source.run_id}")
      records = list(plan.source.copy_to(run.folder, run.store, run.kept))
      started = write_plan(plan.run)
      storage.create(f"{run.folder}/records/wave-000.jsonl", to_json_lines(records))  # it may be a source itself
      finish(started, records, engine)
      return outcome(started)


def plan_rewhiten(
  options: RewhitenOptions, now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
) -> RewhitenPlan:
  """Returns the plan of a run; nothing is written.

  Raises:
    UsageError: what is asked cannot be had.
    StoreError: the source is damaged.
  """
  dataset = Dataset.open(options.dataset)
  published = dataset.published()
  run_id = options.run_id or (published.run_id if published else None)
  if run_id is None:
    raise UsageError(f"{options.dataset}: nothing is published yet; name a run with --run, `sorbus show` lists them")
  source = RewhitenSource.read(dataset, run_id)
  base, base_problem = read_base(dataset, published)
  _check_encoder(source, base)
  base_run, compare_problem = find_base_run(base, base_problem)
  last, _ = find_last(dataset, published, source.manifest["encoder"]["fingerprint"])
  started = now()
  vector_type = options.vector_type or vector_type_of(source.manifest)
  run = _run_plan(source, new_run_id(started), vector_type)
  fit = _fit(options, source, run.store, last)
  publish = PublishPlan(
    run=run,
    base=published.number if published else 0,
    max_rejected=_or(options.max_rejected, source.manifest["options"].get("max_rejected", 1.0)),
    max_shrink=_or(options.max_shrink, source.manifest["options"].get("max_shrink", 1.0)),
    max_broken=source.manifest["options"].get("max_broken", 1.0),
    base_rows=base["counts"]["written"] if base else 0,
    base_run=base_run,
    base_problem=compare_problem,
    started=started.isoformat(timespec="seconds"),
    options=_describe(options, source) | describe_vector_type(vector_type),
    encoder=source.manifest["encoder"],
    whitening=options.whitening,
    made_from=source.run_id,
  )
  plan = EmbedPlan(run, publish, fit, (), (), 0, first_run=published is None, base=None, base_problem=None)
  return RewhitenPlan(source, plan)


def _check_encoder(source: RewhitenSource, base: Mapping[str, Any] | None) -> None:
  """Raises UsageError for a run of another encoder than the published one: it would undo a migration by the way."""
  ours = source.manifest["encoder"]["fingerprint"]
  theirs = base["encoder"]["fingerprint"] if base else ours
  if theirs != ours:
    raise UsageError(
      f"run {source.run_id} is of encoder {ours[:16]}, the published run of {theirs[:16]}; take another with --run, or "
      f"go back to that encoder first with `sorbus publish {source.storage.root} {source.run_id}`"
    )


def _run_plan(source: RewhitenSource, run_id: str, vector_type: str) -> RunPlan:
  encoder, options = source.manifest["encoder"], source.manifest["options"]
  labels = tuple(encoder.get("labels", ()))
  return RunPlan(
    run_id=run_id,
    files=source.files,
    options=ReadOptions(id_column=options.get("id_column")),
    kept=source.kept(),
    bits=source.bits,
    store=RawStore(source.storage, encoder["fingerprint"], source.hidden_size(), len(labels)),
    predictions=Predictions(labels, options.get("threshold")),
    vector_type=vector_type,
    long_texts=LongTexts.of(source.manifest),
  )


def _fit(options: RewhitenOptions, source: RewhitenSource, store: RawStore, last: LastWhitening | None) -> FitWhitening:
  check_n_components(options.n_components, store.hidden_size)
  if options.whitening == FIT:
    return FitWhitening(store.fingerprint, n_components=_components(options, source), last=last)
  if options.whitening == NONE:
    return FitWhitening(store.fingerprint, given=Whitening.none(store.hidden_size, store.fingerprint), last=last)
  given = load_given(options.whitening, store.hidden_size, store.fingerprint, options.n_components)
  return FitWhitening(store.fingerprint, given=given, last=last)


def _components(options: RewhitenOptions, source: RewhitenSource) -> int | float | None:
  """Returns how many components to fit: what is asked, or what the source was asked for, or what it has.

  A source without a whitening has all, which is no choice; it leaves the number to the fit.
  """
  asked = _or(options.n_components, source.manifest["options"].get("n_components"))
  whitening = source.manifest["whitening"]
  has_choice = "refused" not in whitening and whitening["asked"] != NONE
  return whitening["n_components"] if asked is None and has_choice else asked


def _describe(options: RewhitenOptions, source: RewhitenSource) -> dict[str, Any]:
  """Returns the source's options with what is other now, so that a night with the same options finds this unchanged."""
  theirs = {key: value for key, value in source.manifest["options"].items() if key != "vector_type"}
  stays = options.whitening == FIT and theirs.get("whitening") in (None, FIT, REUSE)
  changed: dict[str, Any] = {"n_components": _or(options.n_components, theirs.get("n_components"))}
  if not stays:
    changed["whitening"] = None if options.whitening == FIT else options.whitening
  if options.whitening != FIT:
    changed["n_components"] = options.n_components
  gates = {"max_rejected": options.max_rejected, "max_shrink": options.max_shrink}
  return {**theirs, **changed, **{gate: share for gate, share in gates.items() if share is not None}}


def _or(asked: Any, otherwise: Any) -> Any:
  return otherwise if asked is None else asked
