"""How a job ended, in values, and as the one line that a monitor of logs matches.

schedule.md has that line, and it is stable. It tells of the job, the manifest of the run: a job that found nothing
new, or was refused, has made none.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.outcome import Outcome
from pipeline.progress import RunFiles
from transforms.errors import INTERRUPTED, RunHeldError, SorbusError, UsageError, printable
from transforms.progress_file import read_progress
from transforms.url_secrets import hide_secrets

# How a job can end. The first six are what came of a run, the others what ended it before that.
STATUSES = (
  *("published", "unchanged", "held-back", "overtaken", "submitted", "dry-run"),
  *("busy", "refused", "interrupted", "failed"),
)
COUNTS = ("read", "written", "rejected", "encoded", "reused", "new", "changed", "gone")
_OF_WRITTEN = ("written", "new", "changed", "gone")
_DRIFT = ("mean", "covariance", "neighbours")


@dataclass(frozen=True)
class Health:
  """How a job ended.

  Attributes:
    dataset: path or URL, without credentials.
    status: one of STATUSES.
    seconds: that the job took.
    run_id: of the run that it made, None if it came to none; where nothing had changed, of the published run.
    counts: by the names of COUNTS, as far as they are known.
    drift: `mean`, `covariance` and `neighbours` of the manifest, as far as they were measured.
  """

  dataset: str
  status: str
  exit_code: int
  seconds: float
  run_id: str | None = None
  counts: Mapping[str, int] = field(default_factory=dict)
  drift: Mapping[str, float] = field(default_factory=dict)

  @property
  def is_success(self) -> bool:
    """Says whether what is published is what the input gives now."""
    return self.status in ("published", "unchanged")

  def line(self) -> str:
    """Returns the line: keys and their order stay as they are, and what is not known is `-`."""
    numbers = (f"{name}={self.counts.get(name, '-')}" for name in COUNTS)
    words = (f"status={self.status}", f"run={self.run_id or '-'}", *numbers, f"seconds={self.seconds:.1f}")
    return printable(" ".join(("sorbus embed", *words, f"exit={self.exit_code}", f"dataset={_word(self.dataset)}")))


def _word(text: str) -> str:
  """Returns a text so that a space in it does not end the value."""
  return text if re.fullmatch(r"[^\s\"]+", text) else json.dumps(text, ensure_ascii=False)


def health_of(dataset: str, outcome: Outcome, seconds: float) -> Health:
  """Returns the health of a job that came to an outcome."""
  manifest, status = outcome.manifest, outcome.status.replace(" ", "-")
  measured = manifest.get("drift") or {}
  drift = {name: measured[name] for name in _DRIFT if measured.get(name) is not None}
  return Health(
    hide_secrets(dataset), status, outcome.exit_code, seconds, manifest["run_id"], _counts_of(outcome), drift
  )


def health_of_failure(dataset: str, error: BaseException, seconds: float, run: RunFiles | None = None) -> Health:
  """Returns the health of a job that an error ended, with exit code and meaning as the command line has them.

  Args:
    dataset: path or URL.
    error: what ended it.
    seconds: that it took.
    run: the run that it was making; its progress tells how far it came.
  """
  code = error.exit_code if isinstance(error, SorbusError) else SorbusError.exit_code
  kinds = ((RunHeldError, "busy"), (UsageError, "refused"), (KeyboardInterrupt, "interrupted"))
  status = next((status for kind, status in kinds if isinstance(error, kind)), "failed")
  code = INTERRUPTED if status == "interrupted" else code
  run_id = run.folder.rpartition("/")[2] if run else None
  return Health(hide_secrets(dataset), status, code, seconds, run_id, _counts_so_far(run) if run else {})


def _counts_of(outcome: Outcome) -> dict[str, int]:
  """Returns a run's counts; where nothing had changed, those that running it all the same would give."""
  if "counts" not in outcome.manifest:  # submitted or dry run: there is none yet
    return {}
  counts = outcome.manifest["counts"]
  found: dict[str, int] = {**{name: counts[name] for name in COUNTS}, "rejected": sum(counts["rejected"].values())}
  if outcome.status == "unchanged":
    found |= {"encoded": 0, "reused": counts["distinct"], "new": 0, "changed": 0, "gone": 0}
  if "refused" in outcome.manifest["whitening"]:  # nothing was written, so that nothing is known of it
    found = {name: n for name, n in found.items() if name not in _OF_WRITTEN}
  return found


def _counts_so_far(run: RunFiles) -> dict[str, int]:
  """Returns what the workers last wrote down of a run that did not finish; nothing if that cannot be read."""
  try:
    progress = read_progress(run.storage, run.folder)
  except (SorbusError, OSError, ValueError):
    return {}
  return {
    "read": progress["documents_kept"] + progress["rejected_reading"],
    "written": progress["rows_written"],
    "rejected": sum(progress[f"rejected_{doing}"] for doing in ("reading", "encoding", "writing")),
    "encoded": progress["texts_encoded"],
    "reused": progress["texts_known"],
  }
