"""What came of a run, read from its dataset: the same for who ran it and for who waited for it. No Beam here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.dataset import Dataset
from transforms.errors import RunHeldError, SorbusError


@dataclass(frozen=True)
class Outcome:
  """What came of a run.

  Attributes:
    status: 'published', 'held back' (by a verdict), 'overtaken' (another came first), or 'unchanged': nothing was done,
      for the published run, whose manifest this is, was made from the same. Or 'submitted': a cluster has it, or 'dry
      run': it could have; of the manifest there is no more than the run's id.
  """

  status: str
  manifest: dict[str, Any]

  @property
  def exit_code(self) -> int:
    """0 published, unchanged, submitted or dry run, 1 held back, 75 overtaken: trying again later works."""
    return {"held back": SorbusError.exit_code, "overtaken": RunHeldError.exit_code}.get(self.status, 0)


def find_outcome(dataset: Dataset, manifest: Mapping[str, Any]) -> Outcome | None:
  """Returns what came of a finished run; None where it passed, and neither it nor another has been published yet."""
  found = dict(manifest)
  if not all(verdict["passed"] for verdict in found["verdicts"].values()):
    return Outcome("held back", found)
  entry = dataset.published_entry(found["base"] + 1)
  if entry is None:
    return None
  return Outcome("published" if entry.run_id == found["run_id"] else "overtaken", found)
