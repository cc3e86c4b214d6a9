"""A run as it was planned, and what is said and written down of it before it starts."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.dataset import FORMAT_VERSION, Dataset, to_json
from pipeline.fit_whitening import FitWhitening
from pipeline.options import NONE, EmbedOptions
from pipeline.publish import list_inputs, versions
from pipeline.publish_plan import PublishPlan
from transforms.base_run import BaseShard
from transforms.input_files import InputFile, Slice
from transforms.planned_list import PlannedList
from transforms.read_documents import Wave
from transforms.run_plan import RunPlan


@dataclass(frozen=True)
class EmbedPlan:
  """A run ready to start: of the dataset nothing but dataset.json has been written.

  Attributes:
    base: manifest of the run that is published, None if there is none or it cannot be read.
    base_problem: why it cannot be.
    migration: what to say of the encoder, where it is not, or need not be, that of the published run.
    whitening_problem: why the published run's whitening cannot be taken again.
  """

  run: RunPlan
  publish: PublishPlan
  fit: FitWhitening
  slices: Sequence[Slice]
  waves: tuple[Wave, ...]
  text_bytes: int
  first_run: bool
  base: Mapping[str, Any] | None
  base_problem: str | None
  migration: str | None = None
  whitening_problem: str | None = None

  def is_current(self) -> bool:
    """Says whether the published run is still the one that this run was planned upon."""
    published = Dataset(self.run.storage).published()
    return (published.number if published else 0) == self.publish.base

  def find_unchanged(self) -> Mapping[str, Any] | None:
    """Returns the manifest of the published run if this one would be made from the same, and its files are there.

    An input whose file system tells no version may have changed.
    """
    manifest = self.base
    if manifest is None or not all(file.version for file in self.run.files):
      return None
    given, sizes = self.fit.given, self.run.storage.sizes(f"runs/{manifest['run_id']}")
    same = (
      manifest["inputs"] == list_inputs(self.run.files)
      and manifest["options"] == json.loads(json.dumps(dict(self.publish.options)))
      and manifest["encoder"]["fingerprint"] == self.run.store.fingerprint
      and (given is None or manifest["whitening"]["fingerprint"] == given.fingerprint)
      and not manifest["bad_files"]
      and all(sizes.get(f["path"]) == f["bytes"] for files in manifest["files"].values() for f in files)
    )
    return manifest if same else None


def start_run(plan: EmbedPlan, options: EmbedOptions, say: Callable[[str], None]) -> EmbedPlan:
  """Writes the plan down, once nothing more can be refused, and says one line for each decision the user did not make.

  Returns:
    The plan to make graphs of, see `write_plan`.
  """
  _say_decisions(plan, options, say)
  return write_plan(plan)


def write_plan(plan: EmbedPlan) -> EmbedPlan:
  """Writes plan.json, and the lists that grow with the corpus; returns the plan that names these in place of them."""
  storage, folder = plan.run.storage, f"{plan.run.folder}/planned"
  run = replace(plan.run, files=PlannedList.write(storage, folder, "files", InputFile, plan.run.files))
  base = plan.publish.base_run
  if base is not None:
    base = replace(base, shards=PlannedList.write(storage, folder, "base", BaseShard, base.shards))
  slices = PlannedList.write(storage, folder, "slices", Slice, plan.slices)
  storage.create(f"{plan.run.folder}/plan.json", to_json(describe_plan(plan)))
  return replace(plan, run=run, publish=replace(plan.publish, run=run, base_run=base), slices=slices)


def _say_decisions(plan: EmbedPlan, options: EmbedOptions, say: Callable[[str], None]) -> None:
  files: Sequence[InputFile] = plan.run.files
  say(
    f"run {plan.run.run_id}: {_counted(len(files), 'file')}, about {plan.text_bytes / 1e6:,.1f} MB of text, "
    f"{_counted(1 << plan.run.bits, 'bucket')}, {_counted(len(plan.waves), 'wave')}"
  )
  if options.whitening is None and plan.publish.whitening == NONE:
    say(
      "whitening none: this encoder was trained for cosine similarity as it is (--whitening fit to whiten all the same)"
    )
  if plan.publish.replay:
    say(f"replay of run {plan.publish.replay}: its job once more; what it has encoded is reused")
  if plan.migration:
    say(plan.migration)
  if plan.whitening_problem:
    say(
      f"warning: whitening {plan.publish.whitening}, and not the published run's, so that all vectors will be others: "
      f"{plan.whitening_problem}"
    )
  if plan.base_problem:
    kind = "" if options.vector_type else f" with {plan.run.vector_type} vectors (--vector-type for others)"
    say(f"warning: this run cannot be compared with the published one, but takes its place{kind}: {plan.base_problem}")
  if options.read.id_column is None:
    kind = "note" if plan.first_run else "warning"
    say(f"{kind}: without --id-column ids are file#position, so they change when a text moves to another file or place")
  if options.limit is not None and not plan.first_run:
    say(f"warning: --limit {options.limit}: this run, once published, takes the place of the one that is")


def _counted(number: int, noun: str) -> str:
  return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def describe_plan(plan: EmbedPlan) -> dict[str, Any]:
  """Returns what plan.json says."""
  return {
    "format_version": FORMAT_VERSION,
    "run_id": plan.run.run_id,
    "base": plan.publish.base,
    "started": plan.publish.started,
    "options": dict(plan.publish.options),
    "encoder": dict(plan.publish.encoder),
    "whitening": plan.publish.whitening,
    "inputs": list_inputs(plan.run.files),
    "replay": plan.publish.replay,
    "text_bytes": plan.text_bytes,
    "buckets": 1 << plan.run.bits,
    "waves": [[wave.first, wave.stop] for wave in plan.waves],
    "versions": versions(),
  }
