"""What each command does with its flags: they become options, the work is called, what came of it is printed.

Each imports what it needs when it runs: `sorbus --help` should not wait for Beam or TensorFlow. Each takes the parsed
flags as attributes and returns its exit code.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.log_lines import about_run, tell
from transforms.errors import UsageError


def run_freeze(args: Any) -> int:
  """Makes an encoder folder, and a SavedModel where one is asked for."""
  from pipeline.dataset import find_whitening
  from pipeline.model.freeze import freeze
  from pipeline.model.freeze_graph import freeze_graph, is_graph
  from pipeline.model.saved_model import check_target, write_saved_model

  if args.whitening is not None and args.saved_model is None:
    raise UsageError("--whitening goes into a SavedModel: give --saved-model OUT with it")
  whitening = find_whitening(args.whitening) if args.whitening is not None else None
  if args.saved_model is not None:  # before a checkpoint is read, which takes minutes where it is large
    check_target(args.saved_model, args.encoder_dir, args.overwrite)
  fingerprint = whitening.encoder_fingerprint if whitening else None
  if is_graph(args.checkpoint):
    freeze_graph(args.checkpoint, args.encoder_dir, _graph_options(args, fingerprint), say=_tell)
  else:
    freeze(args.checkpoint, args.encoder_dir, _freeze_options(args, fingerprint), say=_tell)
  if args.saved_model is not None:
    write_saved_model(args.saved_model, args.encoder_dir, whitening, overwrite=args.overwrite, say=_tell)
  return 0


def _tell(line: str) -> None:
  """Prints what was decided; a warning to stderr, where `> log` does not hide it."""
  tell(line, "warning") if line.startswith("warning:") else print(line)


def _freeze_options(args: Any, fingerprint: str | None) -> Any:
  from pipeline.model.freeze import FreezeOptions

  _refuse_for(args, "a graph frozen elsewhere, GRAPH.pb", "output", "input_ids", "input_mask", "token_type_ids")
  return FreezeOptions(
    bert_config=args.bert_config,
    vocab=args.vocab,
    pooling=args.pooling,
    layers=None if args.layers is None else tuple(args.layers),
    combine=args.combine,
    exclude_special_tokens=args.exclude_special_tokens,
    max_seq_length=args.max_seq_length,
    activation=args.activation,
    lowercase=args.lowercase,
    strip_accents=args.strip_accents,
    tokenize_chinese_chars=args.tokenize_chinese_chars,
    overwrite=args.overwrite,
    fingerprint=fingerprint,
    head=args.head,
    labels=args.labels,
  )


def _graph_options(args: Any, fingerprint: str | None) -> Any:
  from pipeline.model.freeze_graph import AskedEnds, GraphOptions

  _refuse_for(args, "a checkpoint; a graph has that in it", "layers", "combine", "activation", "bert_config")
  _refuse_for(args, "a checkpoint; of a graph, give --output loss/Softmax for probabilities", "head", "labels")
  return GraphOptions(
    vocab=args.vocab,
    asked=AskedEnds(args.output, args.input_ids, args.input_mask, args.token_type_ids),
    pooling=args.pooling,
    exclude_special_tokens=args.exclude_special_tokens,
    max_seq_length=args.max_seq_length,
    lowercase=args.lowercase,
    strip_accents=args.strip_accents,
    tokenize_chinese_chars=args.tokenize_chinese_chars,
    overwrite=args.overwrite,
    fingerprint=fingerprint,
  )


def _refuse_for(args: Any, kind: str, *names: str) -> None:
  """Raises UsageError for an option that says nothing about the kind of thing that is frozen."""
  for name in names:
    if getattr(args, name) is not None:
      raise UsageError(f"--{name.replace('_', '-')} is for {kind}; leave it out for {args.checkpoint}")


def embed_options(args: Any) -> Any:
  """Returns the EmbedOptions that the flags of `sorbus embed` stand for; flags not given keep their defaults there."""
  from pipeline.options import EmbedOptions
  from transforms.input_files import ReadOptions

  args = _complete(args)
  read = ReadOptions(
    text_columns=tuple(args.text_column),
    id_column=args.id_column,
    keep_columns=tuple(args.keep_columns),
    encoding=args.encoding,
    format=args.format,
    header=not args.no_header,
    allow_bad_files=args.allow_bad_files,
  )
  names = ("threads", "memory_budget", "token_budget", "flush_seconds", "precision", "long_texts")
  given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
  return EmbedOptions(
    inputs=tuple(args.input),
    encoder=args.encoder,
    dataset=args.dataset,
    read=read,
    limit=args.limit,
    stride=args.stride,
    whitening=args.whitening,
    n_components=args.n_components,
    max_rejected=args.max_rejected,
    max_shrink=args.max_shrink,
    max_broken=args.max_broken,
    max_self_test_error=args.max_self_test_error,
    buckets=args.buckets,
    waves=args.waves,
    beam_options=args.beam_options,
    threshold=args.threshold,
    refit_above=args.refit_above,
    vector_type=args.vector_type,
    again=args.again,
    wait=args.wait,
    new_encoder=args.new_encoder,
    replay=args.replay,
    runner=args.runner,
    detach=args.detach,
    **given,
  )


# Flags of `sorbus embed` that are None until it is known whether a run that is replayed says otherwise.
_EMBED_DEFAULTS: dict[str, Any] = {
  "text_column": ["text"],
  "keep_columns": [],
  "encoding": "utf-8",
  "no_header": False,
  "max_rejected": 0.01,
  "max_shrink": 0.5,
  "max_broken": 0.001,
  "allow_bad_files": False,
}


def _complete(args: Any) -> Any:
  """Returns the flags with those that were not given: from the run that is replayed, if one is, or else by default."""
  given = {name: value for name, value in vars(args).items() if value is not None}
  recorded: dict[str, Any] = {}
  if args.replay is not None:
    from pipeline.replay import find_replay

    if args.input is not None:
      raise UsageError("--input with --replay: a replay reads the input of that run once more; leave one of them out")
    replay = find_replay(args.replay, args.dataset)
    recorded = {"dataset": replay.dataset, **replay.flags}
    given["replay"] = replay.run_id
  flags = {**dict.fromkeys(vars(args)), **_EMBED_DEFAULTS, **recorded, **given}
  if missing := [name for name in ("input", "encoder", "dataset") if flags[name] is None]:
    names = ", ".join(f"--{name}" for name in missing)
    raise UsageError(f"the following arguments are required: {names} (`sorbus embed --help` explains)")
  return SimpleNamespace(**flags)


def run_embed(args: Any) -> int:
  """Embeds a corpus, and says what the run did."""
  options = embed_options(args)  # first: a typing mistake should not wait for Beam
  from pipeline.embed import embed
  from pipeline.progress import say, tell_log
  from pipeline.watch_job import watched_job

  with watched_job(options.dataset, args.metrics_file, tell_log, say) as watch:
    outcome = watch.ended(embed(options, begun=watch.begun))
  _print_outcome(outcome, options.dataset, args)
  if outcome.status == "unchanged" and not args.json:
    say("input, encoder and options are those of the published run; --again runs it all the same")
  return outcome.exit_code


def run_rewhiten(args: Any) -> int:
  """Makes a new run from stored raw vectors, and says what the run did."""
  from pipeline.options import RewhitenOptions
  from pipeline.rewhiten import rewhiten

  names = ("dataset", "run_id", "n_components", "max_rejected", "max_shrink", "vector_type", "wait")
  given = {name: getattr(args, name) for name in ("threads", "whitening") if getattr(args, name) is not None}
  outcome = rewhiten(RewhitenOptions(**{name: getattr(args, name) for name in names}, **given))
  _print_outcome(outcome, args.dataset, args)
  return outcome.exit_code


def run_wait(args: Any) -> int:
  """Follows a run that another process makes, and ends as that does."""
  from pipeline.dataset import Dataset
  from pipeline.progress import progress_line, say
  from pipeline.wait import Follower, expected_work, running

  dataset = Dataset.open(args.dataset)
  run_id = args.run_id or running(dataset)
  about_run(run_id)
  follower = Follower(dataset, run_id, args.timeout, say)
  with progress_line(follower, *expected_work(dataset, run_id)):
    outcome = follower.wait()
  _print_outcome(outcome, args.dataset, args)
  return int(outcome.exit_code)


def _print_outcome(outcome: Any, dataset: str, args: Any) -> None:
  """Prints what came of a run, and only then writes its report: an interrupt of that leaves what was said."""
  from pipeline.progress import say
  from pipeline.report import report_outcome

  if args.json:
    print(json.dumps({"status": outcome.status, "run": outcome.manifest}, indent=2, sort_keys=True), flush=True)
  else:
    _show_outcome(outcome, dataset, say)
  report = None if args.no_report else report_outcome(outcome, dataset, say)
  if report is not None and not args.json:
    Console().print(Text(f"report: {report}"), soft_wrap=True)  # a path is for copying


def _show_outcome(outcome: Any, dataset: str, say: Callable[[str], None]) -> None:
  """Prints what came of a run, for people."""
  from pipeline.show import show_run

  console = Console()
  run_id = outcome.manifest["run_id"]
  folder = f"{dataset}/runs/{run_id}"
  if outcome.status == "submitted":
    console.print(Text(f"submitted: {folder}\nfollow it with: sorbus wait {dataset} {run_id}"), soft_wrap=True)
    return
  if outcome.status == "dry run":
    console.print(Text("dry run: the job could be made; nothing was sent, and no run is left"), soft_wrap=True)
    return
  if outcome.status != "unchanged":
    show_run(outcome.manifest, console)
  where = folder if outcome.status in ("held back", "overtaken") else f"{folder}/vectors"
  console.print(Text(f"{outcome.status}: {where}"), soft_wrap=True)
  if outcome.status == "overtaken":
    say("another run was published meanwhile; this one is kept unpublished: run again")


def run_verify(args: Any) -> int:
  """Re-reads every file of a run; the exit code is 1 if anything is not as its manifest says."""
  from pipeline.dataset import Dataset
  from pipeline.progress import reading_bar
  from pipeline.verify import total_bytes, verify_run

  dataset = Dataset.open(args.dataset)
  run_id = args.run_id or _published(dataset)
  with reading_bar(f"verifying {run_id}", total_bytes(dataset, run_id)) as advance:
    checks = verify_run(dataset, run_id, advance)
  if args.json:
    print(json.dumps({"run_id": run_id, "checks": [asdict(check) for check in checks]}, indent=2, sort_keys=True))
  else:
    table = Table(
      "check", "", Column("finding", overflow="fold"), title=f"run {run_id}", title_justify="left", box=None
    )
    for check in checks:
      table.add_row(check.name, "passed" if check.passed else Text("FAILED", "bold red"), Text(check.finding))
    Console().print(table)
  return 0 if all(check.passed for check in checks) else 1


def run_publish(args: Any) -> int:
  """Publishes a run that is there already."""
  from pipeline.dataset import Dataset
  from pipeline.progress import reading_bar, say
  from pipeline.publish_run import publish_run
  from pipeline.verify import total_bytes

  dataset = Dataset.open(args.dataset)
  with reading_bar(f"verifying {args.run_id}", total_bytes(dataset, args.run_id)) as advance:
    entry = publish_run(dataset, args.run_id, anyway=args.anyway, advance=advance, say=say)
  if args.json:
    print(json.dumps({"status": "published", "run_id": entry.run_id, "number": entry.number}, indent=2, sort_keys=True))
  else:
    print(f"published: {args.dataset}/runs/{entry.run_id}/vectors (number {entry.number})")
  return 0


def run_diff(args: Any) -> int:
  """Says what differs between two runs."""
  from pipeline.dataset import Dataset
  from pipeline.diff import diff_runs, show_diff

  dataset = Dataset.open(args.dataset)
  old, new = (_published(dataset) if run == "published" else run for run in (args.old, args.new))
  difference = diff_runs(dataset, old, new)
  if args.json:
    print(json.dumps(difference, indent=2, sort_keys=True))
  else:
    show_diff(difference, Console())
  return 0


def _published(dataset: Any) -> str:
  published = dataset.published()
  if published is None:
    raise UsageError(f"{dataset.storage.root}: nothing is published yet; name a run, `sorbus show` lists them")
  return str(published.run_id)


def run_show(args: Any) -> int:
  """Says what a dataset or a model is."""
  from pipeline.describe_path import describe_path, show_description

  description = describe_path(
    args.path,
    run_id=args.run_id,
    sample=args.sample,
    text_column=args.text_column,
    no_header=args.no_header,
    bert_config=args.bert_config,
    vocab=args.vocab,
  )
  if args.json:
    print(json.dumps(description, indent=2, sort_keys=True))
  else:
    show_description(description, Console())
  # The model is described all the same, but not all that was asked for could be done.
  return UsageError.exit_code if "problem" in (description.get("sample") or {}) else 0


def run_search(args: Any) -> int:
  """Prints the documents nearest to a text."""
  from pipeline.search import Searcher
  from pipeline.show_hits import hits_to_json, show_hits

  hits = Searcher.open(args.dataset, args.encoder).search(args.text, args.k)
  if args.json:
    print(hits_to_json(hits))
  else:
    show_hits(hits, Console())
  return 0


def run_gc(args: Any) -> int:
  """Removes what no kept run needs: first says what, then does it."""
  from pipeline.collect_garbage import collect_garbage, documents_bytes, plan_garbage
  from pipeline.dataset import Dataset
  from pipeline.lock import DatasetLock, Owner
  from pipeline.progress import reading_bar, say
  from pipeline.show_garbage import damaged_files, describe_garbage, final_line, show_plan

  dataset = Dataset.open(args.dataset)
  lock, owner, done = DatasetLock(dataset.storage), Owner.here("gc"), None
  with lock.held(owner, wait=args.wait, say=say):
    with reading_bar("planning", documents_bytes(dataset)) as advance:
      plan = plan_garbage(dataset, args.keep_runs, advance=advance)
    if not args.json:
      show_plan(plan, Console())
    if not args.dry_run:
      with reading_bar("rewriting", plan.bytes_read) as advance:
        done = collect_garbage(dataset, plan, check=lambda: lock.check(owner), advance=advance)
  for why in damaged_files(plan, done).values():
    say(f"warning: left as it is: {why}")
  if args.json:
    print(json.dumps(describe_garbage(plan, done), indent=2, sort_keys=True))
  else:
    Console().print(Text(final_line(plan, done)), soft_wrap=True)
  return 0
