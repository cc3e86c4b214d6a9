"""Say what gc removes: a table and a line for people, a dictionary for `--json`."""

from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table
from rich.text import Text

from pipeline.collect_garbage import Collected, GarbagePlan


def describe_garbage(plan: GarbagePlan, done: Collected | None) -> dict[str, Any]:
  """Returns what `sorbus gc --json` prints; `done` is None where it was only planned."""
  rewritten = sum(len(raw.rewrite) for raw in plan.raw)
  return {
    "status": "planned" if done is None else "done",
    "published": plan.published,
    "runs": {"kept": list(plan.kept), "removed": list(plan.removed), "unfinished": list(plan.unfinished)},
    "half_written_files": len(plan.hidden),
    "encoders_removed": sorted(plan.encoders),
    "raw": {
      "rewritten": rewritten,
      "written": None if done is None else done.written,
      "rows_dropped": sum(raw.rows_dropped for raw in plan.raw) if done is None else done.rows_dropped,
      "damaged": damaged_files(plan, done),
    },
    "bytes_freed": plan.bytes_freed if done is None else done.bytes_freed,
  }


def damaged_files(plan: GarbagePlan, done: Collected | None) -> dict[str, str]:
  """Returns why a raw file was left as it is, by name."""
  found = {name: why for raw in plan.raw for name, why in raw.damaged.items()}
  return found | (done.damaged if done else {})


def show_plan(plan: GarbagePlan, console: Console) -> None:
  """Prints what goes and what stays; what there is nothing of has no line."""
  table = Table("what", Column("number", justify="right"), Column("", overflow="fold"), box=None)
  rewritten = [file for raw in plan.raw for file in raw.rewrite]
  marked = sum(len(raw.marked) for raw in plan.raw)
  table.add_row("runs kept", f"{len(plan.kept):,}", _published(plan))
  for what, number, note in (
    ("runs removed", len(plan.removed), _ids(plan.removed)),
    ("unfinished runs removed", len(plan.unfinished), _ids(plan.unfinished)),
    ("half-written files removed", len(plan.hidden), ""),
    ("encoders without a run removed", len(plan.encoders), _ids([name[:12] for name in plan.encoders])),
    ("raw files rewritten", len(rewritten), f"{decimal(sum(file.bytes for file in rewritten))}, merged where small"),
    ("  rows of these dropped", sum(file.dead for file in rewritten), "no kept run has the text, or another file has"),
    ("damaged raw files removed", marked, "with their marks"),
  ):
    if number:
      table.add_row(what, f"{number:,}", Text(note))
  console.print(table)


def final_line(plan: GarbagePlan, done: Collected | None) -> str:
  """Returns what came of it, or what would."""
  if done is None:
    if not (_has_removals(plan) or any(raw.rewrite or raw.marked for raw in plan.raw)):
      return "would free nothing: every run and file is still needed"
    return f"would free about {decimal(max(plan.bytes_freed, 0))}; nothing was changed"
  if not (_has_removals(plan) or done.removed):
    return "freed nothing: every run and file is still needed"
  parts = [f"{_counted(len(plan.removed) + len(plan.unfinished), 'run')} removed"]
  if done.removed or done.written:
    became = f"became {done.written:,}" if done.written else "removed"
    parts.append(f"{_counted(done.removed, 'raw file')} {became}")
    parts.append(f"{_counted(done.rows_dropped, 'row')} dropped")
  return f"freed {decimal(max(done.bytes_freed, 0))}: {', '.join(parts)}"


def _has_removals(plan: GarbagePlan) -> bool:
  """Says whether more than raw files is removed."""
  return bool(plan.removed or plan.unfinished or plan.hidden or plan.encoders)


def _counted(number: int, noun: str) -> str:
  return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _published(plan: GarbagePlan) -> str:
  return f"{plan.published} is published" if plan.published else "none is published"


def _ids(ids: Any) -> str:
  return ", ".join(ids[:3]) + (f" and {len(ids) - 3:,} more" if len(ids) > 3 else "")
