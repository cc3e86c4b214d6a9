"""Remove what no run that is kept names: plan first, then do it. The caller holds the dataset's lock. No Beam here.

A run that goes is noted in `removed/` first and loses its manifest next: from there on it is unfinished for everyone,
wherever this stops. Of the raw vectors, new files are written before old ones are removed, and these go last by name
first, so that at every moment each text has a whole row, and the same one comes first. What was left half-done is
found by the next plan.
"""

import datetime
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.dataset import Dataset
from pipeline.lock import DEAD_AFTER_SECONDS
from pipeline.raw_garbage import RawDone, RawPlan, compact_raw, is_newer, new_raw_id, plan_raw
from transforms.errors import RunHeldError, UsageError

KEEP_RUNS = 7
# What a write or a probe leaves that was killed.
_HIDDEN = (".tmp-", ".probe-")
_INTENT = "publishing/"


@dataclass(frozen=True, kw_only=True)
class GarbagePlan:
  """What is to be removed, and what for.

  Attributes:
    published: id of the published run, None if there is none.
    kept: ids of the finished runs that stay.
    removed: ids of the finished runs that go.
    unfinished: ids of folders without a manifest, which go too.
    hidden: paths of half-written files.
    run_bytes: of the runs and hidden files.
    encoders: fingerprints whose raw vectors no run needs: folder and bytes.
    raw: what is to be done for the other encoders.
  """

  published: str | None
  kept: tuple[str, ...]
  removed: tuple[str, ...]
  unfinished: tuple[str, ...]
  hidden: tuple[str, ...]
  run_bytes: int
  encoders: Mapping[str, int]
  raw: tuple[RawPlan, ...]

  @property
  def bytes_freed(self) -> int:
    """How many bytes it will free, about: how large new files are is known once they are written."""
    return self.run_bytes + sum(self.encoders.values()) + sum(plan.bytes_freed for plan in self.raw)

  @property
  def bytes_read(self) -> int:
    """How many bytes are read for it."""
    return sum(plan.bytes_read for plan in self.raw)


@dataclass
class Collected:
  """What was done with raw files."""

  written: int = 0
  removed: int = 0
  rows_dropped: int = 0
  bytes_freed: int = 0
  damaged: dict[str, str] = field(default_factory=dict)


def choose_runs(
  finished: Collection[str], held_back: Collection[str], published: str | None, keep_runs: int
) -> tuple[list[str], list[str]]:
  """Returns (ids to keep, ids to remove) of finished runs: the published one and the newest are kept.

  Runs that a gate has held back are counted apart: else a week of them would leave none to roll back to.
  """
  if keep_runs < 1:
    raise ValueError(f"keep_runs is {keep_runs}; it has to be 1 or more")
  good = sorted(set(finished) - set(held_back))
  newest = {*good[-keep_runs:], *sorted(held_back)[-keep_runs:]}
  kept = [run_id for run_id in sorted(finished) if run_id in newest or run_id == published]
  return kept, sorted(set(finished) - set(kept))


def plan_garbage(
  dataset: Dataset,
  keep_runs: int = KEEP_RUNS,
  now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
  advance: Callable[[int], None] = lambda _: None,
) -> GarbagePlan:
  """Finds what can go; writes nothing. Memory: 70 bytes for each raw vector and kept text of one digest range.

  Args:
    dataset: an open dataset.
    keep_runs: how many of the newest finished runs are kept, beside the published one, and how many held back ones.
    now: the clock.
    advance: is told bytes of documents files as they are read.

  Raises:
    UsageError: the manifest of a run that is to be kept cannot be read: what it needs is not known.
    StoreError: a documents file of such a run is missing or damaged.
  """
  storage, published = dataset.storage, dataset.published()
  current = published.run_id if published else None
  folders = dataset.run_folders()
  with_manifest = [run_id for run_id in folders if storage.exists(f"runs/{run_id}/manifest.json")]
  # A manifest that a zombie wrote into a run that was removed does not bring it back.
  finished = [run_id for run_id in with_manifest if run_id == current or not dataset.was_removed(run_id)]
  kept, removed = choose_runs(
    finished, [run_id for run_id in finished if _is_held_back(dataset, run_id)], current, keep_runs
  )
  manifests = [_manifest(dataset, run_id, current) for run_id in sorted({*kept, *([current] if current else [])})]
  removed = sorted({*removed, *(set(with_manifest) - set(finished))})
  unfinished = sorted(set(folders) - set(with_manifest))
  sizes = storage.sizes("")
  hidden = find_hidden(dataset, sizes, now())
  below = tuple(f"runs/{run_id}/" for run_id in (*removed, *unfinished))
  goes = {*hidden, *(path for path in sizes if path.startswith(below))}
  encoders, raw = _plan_encoders(dataset, manifests, max(finished, default=""), current, advance)
  return GarbagePlan(
    published=current,
    kept=tuple(kept),
    removed=tuple(removed),
    unfinished=tuple(unfinished),
    hidden=tuple(hidden),
    run_bytes=sum(sizes[path] for path in goes),
    encoders=encoders,
    raw=tuple(raw),
  )


def _manifest(dataset: Dataset, run_id: str, published: str | None) -> dict[str, Any]:
  try:
    return dataset.manifest(run_id)
  except UsageError as error:
    if run_id == published:
      raise
    raise UsageError(
      f"run {run_id} is to be kept, and what it needs is not known; restore its manifest, or delete runs/{run_id} if "
      f"nobody needs that run; nothing was removed: {error}"
    ) from error


def _is_held_back(dataset: Dataset, run_id: str) -> bool:
  try:
    return not all(verdict["passed"] for verdict in dataset.manifest(run_id)["verdicts"].values())
  except UsageError:  # what cannot be read may be good: who needs it is told so
    return False


def documents_bytes(dataset: Dataset) -> int:
  """Returns about how many bytes of documents files there are to read for a plan."""
  storage = dataset.storage
  return sum(sum(storage.sizes(f"runs/{run_id}/documents").values()) for run_id in dataset.run_ids())


def find_hidden(dataset: Dataset, paths: Iterable[str], now: datetime.datetime) -> list[str]:
  """Returns those of `paths` that are half-written by processes which are dead.

  One that is new may be of a living one: who waits for the lock, or publishes, writes too.
  """
  before = now.timestamp() - DEAD_AFTER_SECONDS
  hidden = [path for path in sorted(paths) if path.rpartition("/")[2].startswith(_HIDDEN) or path.startswith(_INTENT)]
  return [path for path in hidden if (time := dataset.storage.modified(path)) is not None and time <= before]


def _plan_encoders(
  dataset: Dataset,
  manifests: Sequence[Mapping[str, Any]],
  newest: str,
  published: str | None,
  advance: Callable[[int], None],
) -> tuple[dict[str, int], list[RawPlan]]:
  """Returns (bytes of encoders that no run needs by fingerprint, plans for the others)."""
  storage = dataset.storage
  encoders, raw = {}, []
  for fingerprint in storage.names("raw"):
    mine = [m for m in manifests if m["encoder"]["fingerprint"] == fingerprint]
    folder = f"raw/{fingerprint}"
    if not mine and not any(is_newer(name, newest) for name in storage.names(folder)):
      encoders[fingerprint] = sum(storage.sizes(folder).values())
      continue
    # The buckets of the published run: the next run, of about the same size, reads what it needs and no more.
    like = next((m for m in mine if m["run_id"] == published), mine[-1] if mine else {"buckets": 1})
    documents = [file for m in mine for file in m["files"].get("documents", ())]
    raw.append(plan_raw(storage, fingerprint, documents, like["buckets"].bit_length() - 1, newest, advance))
  return encoders, raw


def collect_garbage(
  dataset: Dataset,
  plan: GarbagePlan,
  now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
  check: Callable[[], None] = lambda: None,
  advance: Callable[[int], None] = lambda _: None,
) -> Collected:
  """Does what was planned; safe to stop anywhere, and to start anew with a new plan.

  Args:
    dataset: an open dataset.
    plan: of this moment, under the same lock.
    now: the clock.
    check: is called before anything is removed; raises if the lock is another's by now.
    advance: is told bytes of raw files as they are read.

  Raises:
    RunHeldError: a run that was to go was published meanwhile, or is about to be.
  """
  check()
  _condemn(dataset, plan, now())
  for path in plan.hidden:
    dataset.storage.remove(path)
  for run_id in (*plan.removed, *plan.unfinished):
    check()
    dataset.storage.remove(f"runs/{run_id}/manifest.json")
    dataset.storage.remove_folder(f"runs/{run_id}")
  done = Collected(bytes_freed=plan.run_bytes + sum(plan.encoders.values()))
  for fingerprint in plan.encoders:
    check()
    done.removed += len(dataset.storage.names(f"raw/{fingerprint}"))
    dataset.storage.remove_folder(f"raw/{fingerprint}")
  for raw in plan.raw:
    _add(done, compact_raw(raw, new_raw_id(now()), check, advance))
  return done


def _condemn(dataset: Dataset, plan: GarbagePlan, now: datetime.datetime) -> None:
  """Notes which runs go. Publishing needs no lock: it is refused from here on, and what came before is found here."""
  goes = (*plan.removed, *plan.unfinished)
  for run_id in goes:
    dataset.mark_removed(run_id, now)
  if saved := _find_saved(dataset, goes, now):
    for run_id in goes:
      dataset.unmark_removed(run_id)
    raise RunHeldError(f"run {saved} was published at the same moment, or is about to be; run gc again")
  if plan.published:
    dataset.unmark_removed(plan.published)


def _find_saved(dataset: Dataset, goes: Sequence[str], now: datetime.datetime) -> str | None:
  """Returns a run that was to go, but is published, or is being published by somebody who may live."""
  for path, run_id in dataset.publishing().items():  # before we look what is published: it may be done in between
    time = dataset.storage.modified(path)
    if run_id in goes and time is not None and time > now.timestamp() - DEAD_AFTER_SECONDS:
      return run_id
  published = dataset.published()
  return published.run_id if published and published.run_id in goes else None


def _add(done: Collected, other: RawDone) -> None:
  done.written += len(other.written)
  done.removed += other.removed
  done.rows_dropped += other.rows_dropped
  done.bytes_freed += other.bytes_freed
  done.damaged.update(other.damaged)
