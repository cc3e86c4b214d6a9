"""The raw files of one encoder: which of them gc removes or rewrites, and doing so. No Beam here."""

import datetime
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import new_run_id
from transforms.compact_raw import Compaction, compact_range
from transforms.digest_column import read_digests
from transforms.digests import ALL_DIGESTS, MAX_BITS, DigestRange
from transforms.errors import StoreError
from transforms.raw_store import RawStore, run_of
from transforms.raw_waste import HeldFile, RawFile, choose_files, find_roots, find_waste
from transforms.storage import Storage, sha256

# What the ids end with that gc gives to new files; those of runs end with a hexadecimal digit.
_GC = "gc"


@dataclass(frozen=True, kw_only=True)
class RawPlan:
  """What is to be done with the raw files of one encoder.

  Attributes:
    store: of the files.
    bits: of the digest ranges that new files will have.
    documents: the manifests' entries of the documents files of all runs that are kept.
    rewrite: files to replace by their live rows, sorted by name.
    marked: names of files that were found damaged before, there or not, to remove with their marks.
    marked_bytes: of these.
    damaged: why a file is left as it is, by name.
  """

  store: RawStore
  bits: int
  documents: tuple[Mapping[str, Any], ...]
  rewrite: tuple[RawFile, ...] = ()
  marked: tuple[str, ...] = ()
  marked_bytes: int = 0
  damaged: Mapping[str, str] = field(default_factory=dict)

  @property
  def rows_dropped(self) -> int:
    """How many rows are not taken over into new files."""
    return sum(file.dead for file in self.rewrite)

  @property
  def bytes_freed(self) -> int:
    """How many bytes less there will be, about."""
    return self.marked_bytes + sum(file.bytes * file.dead // max(file.rows, 1) for file in self.rewrite)

  @property
  def bytes_read(self) -> int:
    """How many bytes are read: a file coarser than the new ones once for each of these."""
    return sum(file.bytes * len(DigestRange.named(file.range_name).buckets(self.bits)) for file in self.rewrite)


@dataclass
class RawDone(Compaction):
  """What has been done with raw files, removed ones too."""

  removed: int = 0
  rows_dropped: int = 0
  bytes_freed: int = 0


def new_raw_id(now: datetime.datetime) -> str:
  """Returns an id for the files of one gc; letters and digits, and never a run's."""
  return f"{new_run_id(now)}{_GC}"


def is_newer(name: str, newest: str) -> bool:
  """Says whether a raw file is work of a run that was killed after the newest finished one: the next run wants it."""
  try:
    run_id = run_of(name)
  except StoreError:  # a mark, or none of ours
    return False
  return run_id > newest and not run_id.endswith(_GC)


def plan_raw(
  storage: Storage,
  fingerprint: str,
  documents: Sequence[Mapping[str, Any]],
  bits: int,
  newest: str,
  advance: Callable[[int], None] = lambda _: None,
) -> RawPlan:
  """Finds what is dead among the raw files of an encoder; of each only the digests are read.

  Args:
    storage: of the dataset.
    fingerprint: the encoder's.
    documents: the manifests' entries of the documents files of all runs that are kept and of this encoder.
    bits: of the digest ranges that new files will have.
    newest: id of the newest finished run.
    advance: is told bytes of documents files as they are read.

  Raises:
    StoreError: a documents file is missing or damaged.
  """
  bits = min(max(bits, 0), MAX_BITS)
  store = RawStore(storage, fingerprint, 1)
  sizes = {path.rpartition("/")[2]: size for path, size in storage.sizes(store.folder).items()}
  names, marked = store.find(ALL_DIGESTS), store.damaged(ALL_DIGESTS)
  damaged: dict[str, str] = {}
  files: list[RawFile] = []
  for root in find_roots((name.partition("-")[0] for name in names), bits):
    held = list(_held(store, [n for n in names if root.overlaps(n.partition("-")[0])], sizes, damaged))
    files += find_waste(held, live_texts(storage, documents, root, advance))
  rewrite = choose_files(files, bits, lambda name: is_newer(name, newest))
  return RawPlan(
    store=_with_width(store, rewrite),
    bits=bits,
    documents=tuple(documents),
    rewrite=tuple(rewrite),
    marked=tuple(marked),
    marked_bytes=sum(sizes.get(name, 0) for name in marked),
    damaged=damaged,
  )


def _held(
  store: RawStore, names: Sequence[str], sizes: Mapping[str, int], damaged: dict[str, str]
) -> Iterator[HeldFile]:
  for name in names:
    path = f"{store.folder}/{name}"
    digests = _digests_of_raw(store.storage, path)
    if digests is None:
      damaged[name] = f"{path}: damaged (its digests cannot be read); run `sorbus embed` to encode its texts anew"
    else:
      yield HeldFile(name, sizes.get(name, 0), digests)


def _digests_of_raw(storage: Storage, path: str) -> np.ndarray | None:
  try:
    with storage.open(path) as file:
      return read_digests(file, path)
  except FileNotFoundError:
    return None
  except OSError as error:
    raise StoreError(f"{path}: cannot be read ({error.strerror or error}); mend that and run again") from error


def _with_width(store: RawStore, files: Sequence[RawFile]) -> RawStore:
  """Returns the store with the columns that most of its files have; one with others is damaged, and found so when read.

  No encoder is at hand, and the manifest of a run that could not be whitened does not tell its width.
  """
  found: Counter[tuple[int, int]] = Counter()
  for file in files:
    with store.storage.open(f"{store.folder}/{file.name}") as opened:
      schema = pq.read_schema(opened)
    widths = {f.name: f.type.list_size for f in schema if pa.types.is_fixed_size_list(f.type)}
    found[widths.get("vector", store.hidden_size), widths.get("probabilities", 0)] += 1
  return RawStore(store.storage, store.fingerprint, *found.most_common(1)[0][0]) if found else store


def live_texts(
  storage: Storage,
  documents: Sequence[Mapping[str, Any]],
  wanted: DigestRange,
  advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
  """Returns the digests (S16), sorted, distinct, of all texts of a range that stand in documents files.

  Raises:
    StoreError: a file is missing or damaged: what its run needs is not known, so nothing can be removed.
  """
  live = np.empty(0, "S16")
  for file in documents:
    if wanted.overlaps(file["path"].rpartition("/")[2].partition("-")[0]):
      digests = _digests_of_documents(storage, file)
      live = np.union1d(live, wanted.within(digests))
      advance(file["bytes"])
  return live


def _digests_of_documents(storage: Storage, file: Mapping[str, Any]) -> np.ndarray:
  path, remedy = file["path"], "restore it, or delete the folder of its run if that is not needed; nothing was removed"
  try:
    data = storage.read(path)
  except FileNotFoundError as error:
    raise StoreError(f"{path} is missing, so that what its run needs is not known; {remedy}") from error
  if sha256(data) != file["sha256"]:
    raise StoreError(f"{path} was changed (its sha256 is not the manifest's); {remedy}")
  digests = read_digests(io.BytesIO(data), path)
  if digests is None:
    raise StoreError(f"{path}: not a documents file of this Sorbus; {remedy}")
  return digests


def compact_raw(
  plan: RawPlan,
  run_id: str,
  check: Callable[[], None] = lambda: None,
  advance: Callable[[int], None] = lambda _: None,
) -> RawDone:
  """Writes the live rows of the chosen files as new files and removes the old ones, one group of ranges at a time.

  Args:
    plan: what to do.
    run_id: for the names of new files.
    check: is called before anything is removed; raises if that must not be.
    advance: is told bytes as they are read.
  """
  store, done = plan.store, RawDone(damaged=dict(plan.damaged))
  check()
  _forget(store, plan.marked, done)
  done.bytes_freed += plan.marked_bytes
  for root in find_roots((file.range_name for file in plan.rewrite), plan.bits):
    mine = {file.name: file for file in plan.rewrite if root.overlaps(file.range_name)}
    rows = done.rows
    for bucket in root.buckets(plan.bits):
      wanted = DigestRange(bucket, plan.bits)
      names = [name for name, file in mine.items() if wanted.overlaps(file.range_name)]
      if names:
        live = live_texts(store.storage, plan.documents, wanted)
        compact_range(store, names, wanted, live, run_id, done, lambda name: advance(mine[name].bytes))  # noqa: B023
    check()
    replaced = [name for name in mine if name not in done.damaged]
    done.rows_dropped += sum(mine[name].rows for name in replaced) - (done.rows - rows)
    done.bytes_freed += sum(mine[name].bytes for name in replaced)
    # The last by name first: so long as any copy of a text is there, the one that readers take is.
    _forget(store, replaced[::-1], done)
  sizes = store.storage.sizes(store.folder)
  done.bytes_freed -= sum(sizes.get(f"{store.folder}/{name}", 0) for name in done.written)
  return done


def _forget(store: RawStore, names: Sequence[str], done: RawDone) -> None:
  for name in names:
    store.forget(name)
    done.removed += 1
