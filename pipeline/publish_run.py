"""Publish a run that is there already: a rollback, or a person's decision about a run that a gate has held back."""

import datetime
from collections.abc import Callable

from pipeline.dataset import Dataset, Published
from pipeline.verify import verify_run
from transforms.errors import RunHeldError, StoreError, UsageError


def publish_run(
  dataset: Dataset,
  run_id: str,
  *,
  anyway: bool = False,
  now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
  advance: Callable[[int], None] = lambda _: None,
) -> Published:
  """Publishes a finished run under a new number, once every file of it is found whole; nothing is copied.

  Args:
    dataset: an open dataset.
    run_id: the run; the one that is published already stays so, under its number.
    anyway: also a run that a gate has held back.
    now: the clock.
    advance: is told bytes as they are read.

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
  if broken := [check for check in verify_run(dataset, run_id, advance) if not check.passed]:
    raise StoreError(
      f"run {run_id} is not whole ({broken[0].name}: {broken[0].finding}); publish another, or embed again with --again"
    )
  if published and published.run_id == run_id:
    return published
  entry = dataset.publish(run_id, published.number if published else 0, now())
  if entry.run_id != run_id:
    raise RunHeldError(f"run {entry.run_id} was published at the same moment; look at it, and publish again if need be")
  return entry
