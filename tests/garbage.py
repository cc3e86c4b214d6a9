"""gc over nights made by hand, what it leaves, and ways to disturb it."""

from pipeline.collect_garbage import collect_garbage, plan_garbage
from pipeline.raw_coverage import find_uncovered
from tests.made_nights import NOW
from transforms.errors import RunHeldError


def gc(nights, keep_runs=1):
  """Plans and collects; returns both."""
  plan = plan_garbage(nights.dataset, keep_runs, lambda: NOW)
  return plan, collect_garbage(nights.dataset, plan, lambda: NOW)


def uncovered(nights, run_id):
  """What find_uncovered says of a run."""
  return list(find_uncovered(nights.dataset, nights.dataset.manifest(run_id), {}, lambda _: None))


def files(nights):
  """Every file of the dataset with its bytes."""
  return {path: nights.storage.read(path) for path in nights.storage.walk("")}


def lost_at(n):
  """A check that finds the lock taken over when it is called for the n-th time."""
  calls = []

  def check():
    calls.append(1)
    if len(calls) == n:
      raise RunHeldError("taken over")

  return check
