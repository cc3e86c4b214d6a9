"""Account for every document: by input file, and against the run that was published before."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.publish_plan import PublishPlan
from transforms.input_files import InputFile
from transforms.records import Records
from transforms.run_plan import RunPlan
from transforms.whitening import Whitening
from transforms.write_vectors import NoWhitening


def count_changes(records: Records) -> dict[str, int]:
  """Returns how many documents are new, changed, unchanged and gone; all 0 where nothing was written."""
  return {
    "new": sum(r.new for r in records.changes),
    "changed": sum(r.changed for r in records.changes),
    "unchanged": sum(r.unchanged for r in records.compared),
    "gone": sum(r.gone for r in records.changes),
  }


def describe_changes(
  plan: PublishPlan, records: Records, whitening: Whitening | NoWhitening
) -> dict[str, str | None] | None:
  """Returns against which run the changes are, and why they may lack deletes; None where nothing was written."""
  if isinstance(whitening, NoWhitening):
    return None
  problems = [r.problem for r in records.compared if r.problem]
  problem = plan.base_problem or (problems[0] if problems else None)
  return {"against": plan.base_run.run_id if plan.base_run else None, "problem": problem}


def describe_long_texts(plan: RunPlan, records: Records) -> dict[str, Any]:
  """Returns what was done with texts that have more tokens than fit, and how many of them there are."""
  long, chunks = sum(r.long for r in records.shards), None
  if plan.makes_chunks:
    long, chunks = sum(r.long for r in records.slices), sum(r.chunks for r in records.slices)
  return plan.long_texts.describe() | {"long": long, "chunks": chunks}


def count_by_input(files: Sequence[InputFile], records: Records) -> list[dict[str, int]]:
  """Returns what was read, written and rejected of each input file, in their order."""
  read: Counter[str] = Counter()
  rejected: Counter[str] = Counter()
  for r in records.slices:  # one for each wave that has read it
    n_rejected = sum(r.rejected.values())
    read[files[r.file].name] += r.documents + n_rejected
    rejected[files[r.file].name] += n_rejected
  for encoded in records.buckets:
    rejected.update(encoded.rejected_by_file)
  for shard in records.shards:
    rejected.update(shard.rejected_by_file)
  written = [sum(rows) for rows in zip(*(r.rows for r in records.written), strict=True)] or [0] * len(files)
  return [
    {"read": read[file.name], "written": written[i], "rejected": rejected[file.name]} for i, file in enumerate(files)
  ]


def find_unaccounted(counts: Mapping[str, Any], inputs: Iterable[tuple[str, Mapping[str, int]]]) -> str | None:
  """Returns the first sum that does not come out, in words, of a run that wrote vectors; None if all do.

  Args:
    counts: the run's.
    inputs: name and counts of each input file.
  """
  n_rejected = sum(counts["rejected"].values())
  if counts["read"] != counts["written"] + n_rejected:
    return f"{counts['read']} read are not {counts['written']} written + {n_rejected} rejected"
  if counts["written"] != counts["new"] + counts["changed"] + counts["unchanged"]:
    kinds = f"{counts['new']} new + {counts['changed']} changed + {counts['unchanged']} unchanged"
    return f"{counts['written']} written are not {kinds}"
  totals: Counter[str] = Counter()
  for name, c in inputs:
    totals.update(c)
    if c["read"] != c["written"] + c["rejected"]:
      return f"{name}: {c['read']} read are not {c['written']} written + {c['rejected']} rejected"
  of_all = {"read": counts["read"], "written": counts["written"], "rejected": n_rejected}
  wrong = next((key for key in of_all if totals[key] != of_all[key]), None)
  return f"{totals[wrong]} {wrong} over all files are not {of_all[wrong]}" if wrong else None
