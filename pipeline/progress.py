"""The progress line: documents, rate and time left, read from the run's own files, so it works on every engine."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from rich.console import Console
from rich.progress import (
  BarColumn,
  DownloadColumn,
  Progress,
  TextColumn,
  TimeElapsedColumn,
  TimeRemainingColumn,
  TransferSpeedColumn,
)

from pipeline.log_lines import draws_progress, speaks_json, tell
from transforms.errors import SorbusError
from transforms.progress_file import read_progress
from transforms.storage import Storage

_POLL_SECONDS = 0.5  # for each second that lies between what is read there
# (what is done, what counts it, of what): a document may be several rows, of which equal texts are encoded once.
_STAGES = (
  ("reading", "rows_read", "documents"),
  ("encoding", "texts_encoded", "texts"),
  ("writing", "rows_written", "rows"),
)


class RunFiles(Protocol):
  """Where the files of a run are; its plan knows."""

  @property
  def storage(self) -> Storage: ...

  @property
  def folder(self) -> str: ...


@contextmanager
def progress_line(plan: RunFiles, text_bytes: int, n_waves: int, console: Console | None = None) -> Iterator[None]:
  """Shows how far the run is until the block ends; quiet where the output is no terminal."""
  console = console or _watched()
  if not console.is_terminal:
    yield
    return
  stop = threading.Event()
  columns = (
    TextColumn("{task.description:>8}"),
    BarColumn(),
    TextColumn("{task.completed:,.0f} {task.fields[unit]}, {task.fields[rate]}"),
    TimeElapsedColumn(),
    TextColumn("left"),
    TimeRemainingColumn(),
  )
  with Progress(*columns, console=console, transient=True) as bar:
    thread = threading.Thread(target=_follow, args=(bar, plan, text_bytes, n_waves, stop), daemon=True)
    thread.start()
    try:
      yield
    finally:
      stop.set()
      thread.join()


def _follow(bar: Progress, plan: RunFiles, text_bytes: int, n_waves: int, stop: threading.Event) -> None:
  tasks = {name: bar.add_task(name, total=None, rate="", unit=unit) for name, _, unit in _STAGES}
  counts: Counter[str] = Counter()
  while not stop.wait(_POLL_SECONDS * plan.storage.rewrite_seconds):
    with suppress(SorbusError):  # only for people
      counts = read_progress(plan.storage, plan.folder)
    for name, key, _ in _STAGES:
      task = bar.tasks[tasks[name]]
      rate = "done" if task.finished else f"{task.speed:,.0f}/s" if task.speed else ""
      bar.update(tasks[name], completed=counts[key], total=expected(counts, name, text_bytes, n_waves), rate=rate)


def expected(counts: Counter[str], stage: str, text_bytes: int, n_waves: int) -> float | None:
  """Returns how many rows or texts a stage will have done in the end, as far as can be told; None for not yet.

  Each wave reads everything, so after the first the number of documents is known; before, bytes tell its share.
  """
  share_read = min(counts["bytes_read"] / max(text_bytes * n_waves, 1), 1.0)
  if not share_read:
    return None
  if stage == "reading":
    return counts["rows_read"] / share_read
  # Texts that the store has are not encoded, and equal texts once: what is known of both grows as buckets are done.
  new = 1 - counts["texts_known"] / max(counts["texts_seen"], 1)
  return counts["documents_kept"] / share_read * (new if stage == "encoding" else 1.0)


@contextmanager
def reading_bar(what: str, total: int, console: Console | None = None) -> Iterator[Callable[[int], None]]:
  """Gives a function to call with bytes as they are read, and shows how far that is and how long it will take."""
  console = console or _watched()
  columns = (
    TextColumn("{task.description}"),
    BarColumn(),
    DownloadColumn(),
    TransferSpeedColumn(),
    TimeRemainingColumn(),
  )
  with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
    task = bar.add_task(what, total=total)
    yield lambda n: bar.update(task, advance=n)


def _watched() -> Console:
  """Returns stderr, which is drawn on only where somebody watches: FORCE_COLOR alone makes no terminal of a log."""
  return Console(stderr=True, force_terminal=draws_progress())


def tell_log(line: str) -> None:
  """Tells a line for programs: where stderr is a terminal of people, they have the progress line."""
  if speaks_json() or not sys.stderr.isatty():
    say(line)


def say(line: str) -> None:
  """Tells a line of what goes on."""
  tell(line, "warning" if line.startswith("warning:") else "info")
