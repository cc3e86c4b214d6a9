"""A dataset on disk: what it was made with, its runs, and which of them is published. No Beam here.

The layout is described in docs/formats.md.
"""

import contextlib
import datetime
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pipeline.manifest_keys import find_fault
from transforms.errors import SorbusError, StoreError, UsageError
from transforms.storage import Storage
from transforms.whitening import Whitening, read_whitening

# Raise it when an older Sorbus would misread dataset.json, a plan, a manifest or a published entry.
FORMAT_VERSION = 1
_PUBLISHED_NAME = re.compile(r"(\d{8})\.json")
_RUN_ID = re.compile(r"[0-9A-Za-z]+")


def to_json(value: Mapping[str, Any]) -> bytes:
  """Returns a JSON file for people and programs: sorted keys, two spaces, a final line break."""
  return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def new_run_id(now: datetime.datetime) -> str:
  """Returns an id that sorts by time and that no other run has: UTC to the second, and 6 random digits."""
  return f"{now.astimezone(datetime.UTC):%Y%m%dT%H%M%SZ}{os.urandom(3).hex()}"


def is_dataset(url: str) -> bool:
  """Says whether there is a dataset at a path, whole or not; what is not on a file system for datasets is none."""
  try:
    storage = Storage.at(url)
  except UsageError:
    return False
  try:
    return storage.exists("dataset.json")
  except OSError:
    return False


@dataclass(frozen=True)
class Published:
  """One entry of the list of published runs; the one with the highest number is what readers see."""

  number: int
  run_id: str
  base: int
  time: str


@dataclass(frozen=True)
class Dataset:
  """A dataset's folder."""

  storage: Storage

  @classmethod
  def open(cls, url: str) -> Self:
    """Opens an existing dataset.

    Raises:
      UsageError: there is none at `url`, or it is of another format version.
    """
    dataset = cls(Storage.at(url))
    if not dataset.storage.exists("dataset.json"):
      raise UsageError(
        f"{url}: no Sorbus dataset is there (no dataset.json); make one with `sorbus embed --dataset {url}`"
      )
    dataset.settings()
    return dataset

  @classmethod
  def open_or_create(cls, url: str, encoder: Mapping[str, Any]) -> "Dataset":
    """Opens the dataset at `url`, of whatever encoder, or makes a new one.

    Args:
      url: the dataset.
      encoder: of a new one: its `fingerprint` and tokeniser settings, kept in dataset.json and never changed there.

    Raises:
      UsageError: it cannot be written, or is of another format version.
    """
    dataset = cls(Storage.at(url))
    if not dataset.storage.exists("dataset.json"):
      if dataset.storage.names(""):
        raise UsageError(f"--dataset {url}: holds something that is no dataset; choose a folder that is new or empty")
      dataset._create(url, encoder)
    dataset.settings()
    dataset._check_writable(url)
    return dataset

  def settings(self) -> dict[str, Any]:
    """Returns what dataset.json says; raises UsageError if it is damaged or of another format version."""
    return self._json("dataset.json", "encoder")

  def published(self) -> Published | None:
    """Returns the published run, None if there is none yet."""
    numbers = [int(m[1]) for m in map(_PUBLISHED_NAME.fullmatch, self.storage.names("published")) if m]
    return self._published(max(numbers)) if numbers else None

  def publish(self, run_id: str, base: int, now: datetime.datetime) -> Published:
    """Publishes a run by the exclusive creation of the next number; safe to repeat.

    Args:
      run_id: of a finished run.
      base: the number that was the highest when the run was planned.
      now: the time to record.

    Returns:
      The entry that has the number base + 1: another run's, if that came first.

    Raises:
      UsageError: the run is one that `sorbus gc` has removed, or is about to.
    """
    number = base + 1
    time = now.astimezone(datetime.UTC).isoformat(timespec="seconds")
    entry = {"format_version": FORMAT_VERSION, "run_id": run_id, "base": base, "time": time}
    # gc notes what it removes and then looks for this, we the other way round: one of us sees the other.
    intent = f"publishing/{run_id}-{os.urandom(4).hex()}.json"
    self.storage.write(intent, to_json(entry))
    try:
      if self.was_removed(run_id):
        raise self.no_such_run(run_id)
      self.storage.create(f"published/{number:08d}.json", to_json(entry))
    except FileExistsError:
      pass  # ours from an attempt before, or another run's: the entry itself says which
    else:
      with contextlib.suppress(StoreError):  # a hint for people, and no reason to call a run failed that is published
        self.storage.write("LATEST", f"{run_id}\n".encode())
    finally:
      with contextlib.suppress(SorbusError, OSError):  # what is published is published; gc takes it away
        self.storage.remove(intent)
    return self._published(number)

  def publishing(self) -> dict[str, str]:
    """Returns the runs that are being published, or were by who was killed at it, by the file that says so."""
    names = self.storage.names("publishing")
    return {f"publishing/{name}": name.partition("-")[0] for name in names}

  def published_entry(self, number: int) -> Published | None:
    """Returns the entry with this number, None if nobody has taken it."""
    return self._published(number) if self.storage.exists(f"published/{number:08d}.json") else None

  def run_ids(self) -> list[str]:
    """Returns the ids of all runs, whole or not, oldest first; of those that gc has begun to remove, none."""
    gone = {run_id for run_id in self.run_folders() if self._is_gone(run_id)} if self.storage.names("removed") else ()
    return [run_id for run_id in self.run_folders() if run_id not in gone]

  def run_folders(self) -> list[str]:
    """Returns what has a folder in `runs/`, oldest first."""
    return [name for name in self.storage.names("runs") if _RUN_ID.fullmatch(name)]

  def mark_removed(self, run_id: str, now: datetime.datetime) -> None:
    """Notes that a run is removed, before any of it is: from here on it is not published any more."""
    time = now.astimezone(datetime.UTC).isoformat(timespec="seconds")
    entry = {"format_version": FORMAT_VERSION, "run_id": run_id, "time": time}
    self.storage.write(f"removed/{run_id}.json", to_json(entry))

  def unmark_removed(self, run_id: str) -> None:
    """Takes `mark_removed` back."""
    self.storage.remove(f"removed/{run_id}.json")

  def was_removed(self, run_id: str) -> bool:
    """Says whether gc has removed a run, or was about to."""
    return self.storage.exists(f"removed/{run_id}.json")

  def _is_gone(self, run_id: str) -> bool:
    return self.was_removed(run_id) and not self.storage.exists(f"runs/{run_id}/manifest.json")

  def manifest(self, run_id: str) -> dict[str, Any]:
    """Returns the manifest of a finished run.

    Raises:
      UsageError: there is no such run, it did not finish, or its manifest is damaged.
    """
    is_gone = bool(_RUN_ID.fullmatch(run_id)) and self._is_gone(run_id)
    if is_gone or not _RUN_ID.fullmatch(run_id) or not self.storage.exists(f"runs/{run_id}"):
      raise self.no_such_run(run_id)
    if not self.storage.exists(f"runs/{run_id}/manifest.json"):
      raise UsageError(f"{self.storage.root}: run {run_id} did not finish; run `sorbus embed` again to carry on")
    manifest = self._json(f"runs/{run_id}/manifest.json")
    fault = find_fault(manifest)
    if not fault and manifest["run_id"] != run_id:  # a folder that was copied or renamed: its files are another's
      fault = f"is of run {manifest['run_id']!r}"
    if fault:
      raise UsageError(
        f"{self.storage.root}/runs/{run_id}/manifest.json: {fault}; it was edited or damaged: restore it, or publish "
        "another run with `sorbus publish`"
      )
    return manifest

  def no_such_run(self, run_id: str) -> UsageError:
    """Returns what to raise where a run is asked for that is not there: gc may have removed it."""
    is_removed = bool(_RUN_ID.fullmatch(run_id)) and self.was_removed(run_id)
    what = f"run {run_id} was removed by `sorbus gc`" if is_removed else f"no run {run_id!r}"
    return UsageError(f"{self.storage.root}: {what}; `sorbus show` lists the runs there are")

  def whitening(self, run_id: str) -> Whitening:
    """Returns the whitening of a finished run, checked against its manifest; raises StoreError."""
    manifest = self.manifest(run_id)
    named = manifest["files"].get("whitening")
    if not named:
      raise StoreError(
        f"{self.storage.root}: the manifest of run {run_id} names no whitening; embed again with --again"
      )
    path = named[0]["path"]
    try:
      whitening = Whitening.from_bytes(self.storage.read(path), path)
    except FileNotFoundError as error:
      raise StoreError(f"{self.storage.root}: {path} is missing; embed again with --again") from error
    expected = manifest["whitening"]["fingerprint"]
    if whitening.fingerprint != expected or whitening.ranges_fingerprint != manifest["whitening"].get("ranges", ""):
      raise StoreError(
        f"{self.storage.root}: {path} is not the whitening of the run ({expected[:16]}); embed again with --again"
      )
    return whitening

  def _published(self, number: int) -> Published:
    entry = self._json(f"published/{number:08d}.json", "run_id", "base", "time")
    return Published(number, entry["run_id"], entry["base"], entry["time"])

  def _json(self, relative: str, *required: str) -> dict[str, Any]:
    where = f"{self.storage.root}/{relative}"
    try:
      value = json.loads(self.storage.read(relative))
    except OSError as error:
      raise UsageError(f"{where}: cannot be read ({error.strerror or error}); is it yours to read?") from error
    except ValueError as error:
      # A kill can cut a file short where the file system has no hard links; nothing of it was published then.
      remedy = ": restore or remove it; without it the entry before counts" if relative.startswith("published/") else ""
      raise UsageError(f"{where}: not valid JSON ({error}); it was edited or damaged{remedy}") from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
      raise UsageError(
        f"{where}: format version {version}, this Sorbus reads {FORMAT_VERSION}; use the Sorbus that wrote it"
      )
    missing = [key for key in required if key not in value]
    if missing:
      raise UsageError(f"{where}: has no {missing[0]!r}; it was edited or damaged")
    return value

  def _create(self, url: str, encoder: Mapping[str, Any]) -> None:
    try:
      self.storage.create("dataset.json", to_json({"format_version": FORMAT_VERSION, "encoder": dict(encoder)}))
    except (StoreError, FileExistsError) as error:
      if self.storage.exists("dataset.json"):
        return  # another run made it this moment
      if isinstance(error.__cause__ or error, FileExistsError | NotADirectoryError):
        raise UsageError(f"--dataset {url}: is a file, or has one for a folder on its way; choose a folder") from error
      raise _unwritable(url, error) from error

  def _check_writable(self, url: str) -> None:
    """Raises UsageError if nothing can be written, or if a second creation is not refused: not every S3 does that."""
    probe = f"runs/.probe-{os.urandom(4).hex()}"
    try:
      self.storage.create(probe, b"1")
      is_exclusive = not self._creates(probe)
    except (StoreError, FileExistsError) as error:
      raise _unwritable(url, error) from error
    self.storage.remove(probe)
    if not is_exclusive:
      raise UsageError(
        f"--dataset {url}: this file system lets two writers create the same file, so that two runs could be published "
        "as one; choose another (an object store has to know If-None-Match)"
      )

  def _creates(self, relative: str) -> bool:
    try:
      self.storage.create(relative, b"2")
    except FileExistsError:
      return False
    return True


def _unwritable(url: str, error: Exception) -> UsageError:
  why = error.__cause__ if isinstance(error, StoreError) else error
  return UsageError(
    f"--dataset {url}: cannot be written ({getattr(why, 'strerror', why)}); choose a folder you may write"
  )


def find_whitening(url: str) -> Whitening:
  """Returns the whitening that `url` stands for, with the fingerprint of the encoder it is for where that is known.

  Args:
    url: a run's folder, DATASET/runs/ID; a dataset, for its published run; or a file as `sorbus embed --whitening`
      takes it.

  Raises:
    UsageError: it is none of these, nothing is published, or the run has no whitening.
    StoreError: the run's whitening is missing or damaged.
  """
  storage = Storage.at(url)
  above, _, run_id = storage.root.rpartition("/runs/")
  folder, name = _split(storage.root)
  if name and folder.size(name) is not None:
    return read_whitening(whitening_bytes(storage.root), url)
  in_runs = bool(above) and "/" not in run_id and Storage(above).exists("dataset.json")
  if not in_runs and not storage.exists("dataset.json"):
    raise UsageError(
      f"--whitening {url}: there is no run; give DATASET/runs/ID, DATASET for its published run, or a whitening-*.npz"
    )
  dataset = Dataset.open(above if in_runs else storage.root)
  run_id = run_id if in_runs else _published_run(dataset, url)
  manifest = dataset.manifest(run_id)
  if "whitening" not in manifest["files"]:
    raise UsageError(f"--whitening {url}: run {run_id} has none ({manifest['whitening'].get('refused')}); take another")
  # A whitening that came from elsewhere does not say for which encoder it is; the run's vectors do.
  return replace(dataset.whitening(run_id), encoder_fingerprint=manifest["encoder"]["fingerprint"])


def whitening_bytes(url: str) -> bytes:
  """Returns the bytes of a whitening file, a path or a URL; raises UsageError if it cannot be read."""
  folder, name = _split(Storage.at(url).root)
  try:
    return folder.read(name)
  except FileNotFoundError as error:
    raise UsageError(f"--whitening {url}: no such file; choose fit, none, or a whitening file") from error
  except OSError as error:
    raise UsageError(f"--whitening {url}: cannot be read ({error.strerror or error}); is it yours to read?") from error


def _split(root: str) -> tuple[Storage, str]:
  """Returns the folder of what may be a file, and its name there; a bucket has none."""
  folder, _, name = root.rpartition("/")
  return (Storage(folder or "/"), name) if folder not in ("s3:/", "gs:/") else (Storage(root), "")


def _published_run(dataset: Dataset, url: str) -> str:
  published = dataset.published()
  if published is None:
    raise UsageError(f"--whitening {url}: nothing is published yet; `sorbus show {url}` says which runs there are")
  return published.run_id
