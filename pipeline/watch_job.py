"""Watch a job from its beginning, and tell monitors how it ended, however it does."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.health import Health, health_of, health_of_failure
from pipeline.log_lines import about_run
from pipeline.metrics_file import MetricsFile
from pipeline.outcome import Outcome
from pipeline.progress import RunFiles
from transforms.errors import SorbusError, printable


class JobWatch:
  """What is known of a job while it runs."""

  def __init__(self) -> None:
    self.run: RunFiles | None = None
    self.outcome: Outcome | None = None

  def begun(self, run: RunFiles) -> None:
    """Notes the run that is made now."""
    self.run = run
    about_run(run.folder.rpartition("/")[2])

  def ended(self, outcome: Outcome) -> Outcome:
    """Notes what came of it, and returns that."""
    self.outcome = outcome
    about_run(outcome.manifest["run_id"])
    return outcome


@contextmanager
def watched_job(
  dataset: str,
  metrics_file: str | None,
  log: Callable[[str], None],
  say: Callable[[str], None],
  clock: Callable[[], float] = time.time,
) -> Iterator[JobWatch]:
  """Says how the job of the block ended, in one line, and writes it to `metrics_file` if there is one.

  Args:
    dataset: that the job is for.
    metrics_file: path, None for none.
    log: is told the line.
    say: is told why the file could not be written.
    clock: seconds since 1970.

  Raises:
    UsageError: there can be no such file; before the job begins.
  """
  file = MetricsFile.at(metrics_file) if metrics_file is not None else None
  watch, started = JobWatch(), clock()
  try:
    yield watch
    assert watch.outcome, "a job ends with an outcome or an error"
  except BaseException as error:  # Ctrl-C and bugs too: nobody else would tell the monitor
    now = clock()
    _tell(health_of_failure(dataset, error, now - started, watch.run), file, now, log, say)
    raise
  now = clock()
  _tell(health_of(dataset, watch.outcome, now - started), file, now, log, say)


def _tell(
  health: Health, file: MetricsFile | None, now: float, log: Callable[[str], None], say: Callable[[str], None]
) -> None:
  log(health.line())
  if file is None:
    return
  try:
    file.write(health, now)
  except (SorbusError, OSError) as error:  # what the job has done stands, and so does its exit code
    say(f"warning: --metrics-file {file.path}: {printable(str(error))}")
