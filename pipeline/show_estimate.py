"""Say what a run will take: tables for people, a dictionary for `--json`."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table
from rich.text import Text

from pipeline.estimate import Estimate
from pipeline.forecast import Seconds, forecast
from pipeline.show import truncation_warning, unknown_warning
from transforms.long_texts import CHUNKS, WINDOWS

WORKERS = (1, 4, 16)


def describe_estimate(found: Estimate) -> dict[str, Any]:
  """Returns what `sorbus estimate --json` prints; its names are stable."""
  plan, corpus, trial = found.plan, found.corpus, found.trial
  return {
    "kind": "estimate",
    "input": {"files": len(plan.files), "text_bytes": plan.text_bytes},
    "sample": {"documents": corpus.n_sampled, "text_bytes": corpus.sampled_bytes, "is_whole": corpus.is_whole},
    "documents": {
      "number": corpus.documents.number,
      "margin": corpus.documents.margin,
      "rejected_share": round(corpus.rejected, 4),
      "chunks": corpus.accepted if plan.options.long_texts == CHUNKS else None,
      "distinct": corpus.n_distinct if corpus.is_whole else None,
      "known_share": round(corpus.known, 4),
      "to_encode": corpus.to_encode,
    },
    "tokens": {
      "number": round(corpus.accepted * corpus.mean_tokens),
      "to_encode": round(corpus.tokens_to_encode),
      "per_document": round(corpus.mean_tokens, 1),
      "truncated_share": round(corpus.truncated, 4),
      "unknown_share": round(corpus.unknown, 4),
      "padding_share": round(found.padding, 4),
    },
    "plan": {
      "threads": plan.engine.parallelism,
      "buckets": 1 << plan.bits,
      "waves": len(plan.waves),
      "memory_bytes": plan.memory_bytes,
      "memory_budget": plan.options.memory_budget,
    },
    "dataset": {
      "n_components": trial.n_components,
      "store_bytes": _store_bytes(found),
      "output_bytes": _output_bytes(found),
    },
    "precisions": [_describe_precision(found, i) for i in range(len(found.timed))],
  }


def _store_bytes(found: Estimate) -> int:
  """Returns what the run will add to the store of raw vectors."""
  return round(found.trial.raw_bytes / max(1, found.trial.texts) * found.corpus.to_encode)


def _output_bytes(found: Estimate) -> int:
  return round(found.trial.output_bytes / max(1, found.trial.documents) * found.corpus.accepted)


def _describe_precision(found: Estimate, i: int) -> dict[str, Any]:
  timed, speed = found.timed[i], found.timed[i].speed
  took = [forecast(found.work, found.costs[i], workers) for workers in WORKERS]
  return {
    "precision": timed.precision,
    "timed_batches": speed.batches,
    "tokens_per_second": round((1 - found.padding) / speed.seconds_per_token) if speed.batches else None,
    "seconds": _describe_seconds(took[0]),
    "by_workers": [{"workers": n, "seconds": round(each.total, 1)} for n, each in zip(WORKERS, took, strict=True)],
  }


def _describe_seconds(seconds: Seconds) -> dict[str, float]:
  parts = {"loading": seconds.loading, "encoding": seconds.encoding, "rest": seconds.rest, "total": seconds.total}
  return {name: round(value, 1) for name, value in parts.items()}


def show_estimate(found: Estimate, console: Console) -> None:
  """Prints it for people."""
  table = Table("what", Column("number", justify="right"), Column("", overflow="fold"), box=None, show_header=False)
  for what, number, note in _lines(found):
    table.add_row(what, number, Text(note))
  console.print(table)
  console.print()
  console.print(_times(found))
  console.print(Text(_how(found), style="dim"))
  for warning in _warnings(found):
    console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def _lines(found: Estimate) -> Iterator[tuple[str, str, str]]:
  """Yields (what, how many, what to know of it)."""
  plan, corpus = found.plan, found.corpus
  count = corpus.documents
  about = f"± {count.margin:,}" if count.margin else "exactly" if corpus.is_whole else ""
  files = f"{len(plan.files):,} file{'s' * (len(plan.files) != 1)}, {decimal(plan.text_bytes)} of text"
  yield "documents", f"{count.number:,}", f"{about}{', ' if about else ''}in {files}"
  yield "  rejected", f"{corpus.rejected:.1%}", ""
  what = "document"
  if plan.options.long_texts == CHUNKS:
    yield "  chunks", f"{corpus.accepted:,}", "of which all that follows is"
    what = "chunk"
  if corpus.is_whole:
    yield "  distinct", f"{corpus.n_distinct:,}", ""
  if corpus.known:
    yield "  known", f"{corpus.known:.1%}", f"encoded already, in {plan.options.dataset}"
  yield "  to encode", f"{corpus.to_encode:,}", "" if corpus.is_whole else "at most: texts that repeat are encoded once"
  yield "tokens", f"{corpus.accepted * corpus.mean_tokens:,.0f}", f"{corpus.mean_tokens:.0f} a {what}"
  if plan.options.long_texts == WINDOWS:
    yield "  in windows", f"{corpus.tokens_to_encode:,.0f}", "to encode, as windows overlap"
  yield "  truncated", f"{corpus.truncated:.1%}", f"of the {what}s, at {plan.spec.max_seq_length} tokens"
  yield "  unknown", f"{corpus.unknown:.1%}", "of the tokens"
  yield "  padding", f"{found.padding:.1%}", "of what is computed"
  waves = f"{len(plan.waves):,} wave{'s' * (len(plan.waves) != 1)}"
  yield "memory", decimal(plan.memory_bytes), f"at most, of a budget of {decimal(plan.options.memory_budget)}; {waves}"
  yield "raw vectors", decimal(_store_bytes(found)), "added to the store"
  kept = f" of {found.trial.n_components} components" if found.trial.n_components else ""
  yield "output", decimal(_output_bytes(found)), f"a run: vectors{kept}, documents, changes"


def _times(found: Estimate) -> Table:
  columns = [Column(name, justify="right") for name in ("tokens/s", "loading", "encoding", "the rest")]
  workers = [Column(f"{n} machines" if n > 1 else "total", justify="right") for n in WORKERS]
  table = Table(Column("time", no_wrap=True), *columns, *workers, box=None)
  for timed, costs in zip(found.timed, found.costs, strict=True):
    took = [forecast(found.work, costs, n) for n in WORKERS]
    speed = timed.speed
    rate = f"{(1 - found.padding) / speed.seconds_per_token:,.0f}" if speed.batches else "–"
    parts = map(duration, (took[0].loading, took[0].encoding, took[0].rest))
    table.add_row(timed.precision, rate, *parts, *(Text(duration(each.total), style="bold") for each in took))
  return table


def duration(seconds: float) -> str:
  """Returns a time as people say it, to two or three digits: 8 s, 12 min, 3.5 h, 2.1 days."""
  for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
    if seconds >= 1.5 * size:
      return f"{seconds / size:,.{0 if seconds >= 10 * size else 1}f} {unit}"
  return f"{seconds:.0f} s"


def _how(found: Estimate) -> str:
  corpus, n_batches = found.corpus, sum(timed.speed.batches for timed in found.timed)
  read = "all documents" if corpus.is_whole else f"{corpus.n_sampled:,} documents from everywhere in the input"
  return (
    f"By {read}, {n_batches:,} batches on {found.plan.engine.parallelism} threads, and a trial of the rest. It holds "
    "for this machine, as busy as it was just now; several are as fast as said if they are like this one."
  )


def _warnings(found: Estimate) -> Iterator[str]:
  if warning := unknown_warning(round(found.corpus.unknown * 10**6), 10**6):
    yield warning
  spec = found.plan.spec
  positions = spec.config.position_limit if spec.config else None
  if warning := truncation_warning(found.corpus.truncated, spec.max_seq_length, positions):
    yield warning
  if found.corpus.rejected > found.plan.options.max_rejected:
    yield (
      f"{found.corpus.rejected:.1%} would be rejected, more than --max-rejected "
      f"{found.plan.options.max_rejected:.1%}: nothing would be published"
    )
