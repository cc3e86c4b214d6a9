"""How a job ended, in Prometheus' text format, for the textfile collector of a node exporter.

https://prometheus.io/docs/instrumenting/exposition_formats/ says what the format is. The names are stable, and
listed in schedule.md. A file is of one dataset, and stays from night to night: the last success is kept in it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.health import COUNTS, STATUSES, Health
from transforms.errors import UsageError
from transforms.local_storage import LocalFolder

_LAST_SUCCESS = "sorbus_last_success_timestamp_seconds"
_HELP = {
  "read": "Documents in the input.",
  "written": "Documents in the run, each with its vector.",
  "rejected": "Documents that are not in the run; its folder rejected/ says why.",
  "encoded": "Distinct texts that were encoded.",
  "reused": "Distinct texts whose raw vectors were there.",
  "new": "Documents that the run before did not have.",
  "changed": "Documents whose text, kept columns or vector are others than in the run before.",
  "gone": "Documents that the run before had.",
}
_TEXTS = ("encoded", "reused")  # the other counts are of documents
_DRIFT_HELP = {
  "mean": ("sorbus_drift_mean", "Distance of the mean from that of the whitening (docs/numerics.md)."),
  "covariance": ("sorbus_drift_covariance", "Distance of the covariance from that of the whitening."),
  "neighbours": ("sorbus_drift_neighbours_ratio", "Share of nearest neighbours that fitting anew would change."),
}


@dataclass(frozen=True)
class MetricsFile:
  """The file of `--metrics-file`, on this machine."""

  path: Path

  @classmethod
  def at(cls, path: str) -> "MetricsFile":
    """Returns the file at a path.

    Raises:
      UsageError: it cannot be there; told before a night's work rather than after it.
    """
    found = Path(path).expanduser().absolute()
    if "://" in path or found.is_dir() or not found.parent.is_dir():
      raise UsageError(f"--metrics-file {path}: is not a file in a folder of this machine; make the folder, or name it")
    return cls(found)

  def write(self, health: Health, now: float) -> None:
    """Writes the gauges whole, in place of the last job's; `now` is in seconds since 1970.

    Raises:
      StoreError: the file system does not let us.
    """
    success = now if health.is_success else self._last_success(health.dataset)
    text = "".join(_lines(health, now, success))
    # A collector may read at any moment. The temporary name does not end in .prom, so it passes that by.
    LocalFolder(str(self.path.parent)).write(self.path.name, text.encode())

  def _last_success(self, dataset: str) -> float | None:
    """Returns what the file says of the dataset's last success; None if it says nothing."""
    try:
      text = self.path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no file yet, or one that cannot be written either, which is told then
      return None
    series = re.escape(f"{_LAST_SUCCESS}{_labels({'dataset': dataset})}")
    found = re.search(rf"^{series} (\d+(?:\.\d+)?)$", text, re.MULTILINE)
    return float(found[1]) if found else None


def _lines(health: Health, now: float, success: float | None) -> Iterator[str]:
  """Yields the lines of the file; HELP and TYPE stand once before the samples of a name."""
  told = None
  for name, explanation, labels, value in _samples(health, now, success):
    if name != told:
      yield f"# HELP {name} {explanation}\n# TYPE {name} gauge\n"
    told = name
    yield f"{name}{_labels({'dataset': health.dataset, **labels})} {value}\n"


def _samples(health: Health, now: float, success: float | None) -> Iterator[tuple[str, str, dict[str, str], str]]:
  """Yields (name, help, labels beside the dataset, value); what is not known is left out."""
  yield "sorbus_last_run_timestamp_seconds", "When the last job ended.", {}, f"{now:.3f}"
  if success is not None:
    yield _LAST_SUCCESS, "When a job last ended published or unchanged.", {}, f"{success:.3f}"
  for status in STATUSES:  # all of them, so that an alert on one finds its series on every night
    is_it = str(int(status == health.status))
    yield "sorbus_run_status", "1 for how the last job ended, 0 for all else.", {"status": status}, is_it
  yield "sorbus_exit_code", "Exit code of the last job.", {}, str(health.exit_code)
  yield "sorbus_run_seconds", "How long the last job took.", {}, f"{health.seconds:.3f}"
  for count in COUNTS:
    if count in health.counts:
      kind = "texts" if count in _TEXTS else "documents"
      yield f"sorbus_{kind}_{count}", _HELP[count], {}, str(health.counts[count])
  for measure, (name, explanation) in _DRIFT_HELP.items():
    if measure in health.drift:
      yield name, explanation, {}, repr(float(health.drift[measure]))


def _labels(labels: dict[str, str]) -> str:
  pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
  return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
  value = value.encode(errors="replace").decode()  # a path need not be text, and a label has to be
  return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
