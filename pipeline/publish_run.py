"""Publish a run that is there already: a rollback, or a person's decision about a run that a gate has held back."""

import datetime
from collections.abc import Callable

from pipeline.dataset import Dataset, Published
from pipeline.verify import RAW_FILES, verify_run
from transforms.errors import RunHeldError, StoreError, UsageError


def publish_run(
  dataset: Dataset,
  run_id: str,
  *,
  anyway: bool = False,
  now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
  advance: Callable[[int], None] = lambda _: None,
  say: Callable[[str], None] = lambda _: None,
) -> Published:
  """Publishes a finished run under a new number, once every file of it is found whole; nothing is copied.

  Raw vectors that were lost keep no run from its readers, who never see them, and texts that are in no input any more
  are never encoded again: such a run is published all the same.

  Args:
    dataset: an open dataset.
    run_id: the run; the one that is published already stays so, under its number.
    anyway: also a run that a gate has held back.
    now: the clock.
    advance: is told bytes as they are read.
    say: is told of raw vectors that were lost.

  Raises:
    UsageError: there is no such run, it did not finish, has no vectors, or was held back.
    StoreError: a file of it is missing or damaged.
    RunHeldError: another run was published at the same moment.
  """
  manifest, published = dataset.manifest(run_id), dataset.published()
  for gate, verdict in manifest["verdicts"].items():
    if not verdict["passed"] and (gate == "whitening" or not anyway):
      remedy = "it has no vectors to publish" if gate == "whitening" else "publish it all the same with --anyway"
      raise UsageError(f"run {run_id} was held back ({gate}): {verdict['finding']}; {remedy}")
  failed = [check for check in verify_run(dataset, run_id, advance) if not check.passed]
  if broken := [check for check in failed if check.name != RAW_FILES]:
    raise StoreError(
      f"run {run_id} is not whole ({broken[0].name}: {broken[0].finding}); publish another, or embed again with --again"
    )
  if failed:
    say(
      f"warning: raw vectors of run {run_id} are lost; the next night encodes what it needs anew: {failed[0].finding}"
    )
  if published and published.run_id == run_id:
    return published
  entry = dataset.publish(run_id, published.number if published else 0, now())
  if entry.run_id != run_id:
    raise RunHeldError(f"run {entry.run_id} was published at the same moment; look at it, and publish again if need be")
  return entry
