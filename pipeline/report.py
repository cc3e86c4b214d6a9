"""Write the report of a run: beside its files in the dataset, or elsewhere. A report decides nothing, and is made anew.

What imports plots and templates is imported here when it is needed: no other command waits for it.
"""

import datetime
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.dataset import Dataset
from pipeline.outcome import Outcome
from transforms.errors import SorbusError, UsageError, printable

# A report with texts has a name of its own: what is mailed around by habit never has any.
REPORT_NAME, REPORT_WITH_TEXTS_NAME = "report.html", "report-with-texts.html"
_OF_RUNS = ("published", "held back", "overtaken", "unchanged")


@dataclass(frozen=True)
class Report:
  """A report that was written: where, and whether one of that name was there before."""

  run_id: str
  path: str
  bytes: int
  replaced: bool


def write_report(
  dataset: Dataset,
  run_id: str,
  out: str | None = None,
  *,
  with_texts: bool = False,
  now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
) -> Report:
  """Writes the report of a finished run.

  Args:
    dataset: an open dataset.
    run_id: the run.
    out: a file on this machine; None for the run's own folder, where an earlier report of the same kind is replaced.
    with_texts: also show texts of documents.
    now: the clock.

  Raises:
    UsageError: there is no such run, it did not finish, or `out` cannot be written.
    StoreError: the dataset cannot be written.
  """
  from pipeline.report_facts import gather
  from pipeline.report_page import render

  page = render(gather(dataset, run_id, now(), with_texts=with_texts))
  data = page.encode(errors="backslashreplace")  # a rejected text may hold half a character
  if out is not None:
    file = Path(out)
    replaced = file.exists()
    try:
      file.write_bytes(data)
    except OSError as error:
      raise UsageError(
        f"--out {out}: cannot be written ({error.strerror}); name a file in a folder of yours"
      ) from error
    return Report(run_id, out, len(data), replaced)
  path = report_path(run_id, with_texts)
  replaced = dataset.storage.exists(path)
  dataset.storage.write(path, data)
  return Report(run_id, f"{dataset.storage.root}/{path}", len(data), replaced)


def report_path(run_id: str, with_texts: bool = False) -> str:
  """Returns where in its dataset the report of a run is."""
  return f"runs/{run_id}/{REPORT_WITH_TEXTS_NAME if with_texts else REPORT_NAME}"


def report_outcome(outcome: Outcome, url: str, say: Callable[[str], None]) -> str | None:
  """Writes the report of a run that has come to its end, and returns where, as `url` is written; None for no run.

  One that is there already stays: who waits for a run may not be the only one. A job that found its run `unchanged`
  says nothing of that, and writes what is missing. Whatever goes wrong, an interrupt too, is said in a line: the run is
  what it is, and its report can be made again.
  """
  if outcome.status not in _OF_RUNS:
    return None
  run_id = outcome.manifest["run_id"]
  try:
    dataset, path = Dataset.open(url), report_path(run_id)
    if dataset.storage.exists(path):
      return None if outcome.status == "unchanged" else f"{url}/{path}"
    write_report(dataset, run_id)
    return f"{url}/{path}"
  except KeyboardInterrupt:
    signal.setitimer(signal.ITIMER_REAL, 0)  # nothing is left that would have to be interrupted again
    what = "interrupted"
  except Exception as error:  # a fault of a plot or of a template too
    what = str(error) if isinstance(error, SorbusError | OSError) else f"{type(error).__name__}: {error}"
  say(printable(f"warning: no report of run {run_id} ({what}); `sorbus report {url} --run {run_id}` makes it again"))
  return None
