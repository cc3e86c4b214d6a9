"""The last step of a run: account for every document, write the manifest, publish. Safe to repeat.

It runs inside the pipeline, so that a detached job ends by itself, and decides from the workers' records and the files
that they name. A verdict is recorded, not raised: raising would make the engine run everything again.
"""

import contextlib
import datetime
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from importlib import metadata
from typing import Any

from pipeline.accounts import count_by_input, count_changes, describe_changes, describe_long_texts
from pipeline.dataset import FORMAT_VERSION, Dataset, to_json
from pipeline.fit_whitening import WhiteningDecision
from pipeline.gates import judge
from pipeline.lock import DatasetLock
from pipeline.publish_plan import PublishPlan
from pipeline.replay_account import account_for_replay
from transforms.input_files import InputFile
from transforms.moments import Moments
from transforms.records import Record, Records
from transforms.run_plan import RunPlan
from transforms.storage import StoredFile
from transforms.whitening import Whitening
from transforms.write_vectors import NoWhitening

_WORKER_FOLDERS = ("vectors", "documents", "rejected", "changes")


def finish_run(
  plan: PublishPlan,
  records: Iterable[Record],
  moments: Moments,
  whitening: Whitening | NoWhitening,
  now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
  decision: WhiteningDecision | None = None,
) -> None:
  """Writes the manifest of a run and publishes it if every verdict allows; `decision` is how it came by `whitening`."""
  storage, folder = plan.run.storage, plan.run.folder
  if not plan.run.is_finished():
    manifest = make_manifest(plan, Records.of(records), whitening, now())
    if decision is not None:
      manifest["whitening"]["fitted_by"] = decision.fitted_by
      manifest["drift"] = decision.describe_drift()
      manifest["made_from"] = plan.made_from
    # Named after their content: a late attempt whose moments differ in the last bits must not replace the winner's.
    manifest["files"]["moments"] = [asdict(storage.write_content(folder, "moments", ".npz", moments.to_bytes(), 0))]
    if isinstance(whitening, Whitening):
      stored = storage.write_content(folder, "whitening", ".npz", whitening.to_bytes(), 0)
      manifest["files"]["whitening"] = [asdict(stored)]
      if plan.replay is not None:
        manifest["replay"] = account_for_replay(Dataset(storage), plan.replay, manifest)
    create_once(plan, manifest)
  manifest = Dataset(storage).manifest(plan.run.run_id)
  remove_orphans(plan.run, manifest)
  if all(verdict["passed"] for verdict in manifest["verdicts"].values()):
    Dataset(storage).publish(plan.run.run_id, plan.base, now())
  if plan.frees_lock is not None:
    DatasetLock(storage).release(plan.frees_lock)


def create_once(plan: PublishPlan, manifest: Mapping[str, Any]) -> None:
  """Writes the manifest unless an attempt before has: what it names then is what counts."""
  with contextlib.suppress(FileExistsError):
    plan.run.storage.create(f"{plan.run.folder}/manifest.json", to_json(manifest))


def make_manifest(
  plan: PublishPlan, records: Records, whitening: Whitening | NoWhitening, now: datetime.datetime
) -> dict[str, Any]:
  """Returns the record of a run: its files, its counts, and the verdicts that decide whether it is published."""
  counts = count(records)
  return {
    "format_version": FORMAT_VERSION,
    "run_id": plan.run.run_id,
    "base": plan.base,
    "started": plan.started,
    "finished": now.isoformat(timespec="seconds"),
    "options": dict(plan.options),
    "inputs": list_inputs(plan.run.files),
    "encoder": dict(plan.encoder),
    "whitening": describe_whitening(plan.whitening, whitening),
    "vectors": {"type": plan.run.vector_type, "clipped": sum(r.clipped for r in records.shards)},
    "kept_columns": {field.name: str(field.type) for field in plan.run.kept},
    "buckets": 1 << plan.run.bits,
    "counts": counts,
    "long_texts": describe_long_texts(plan.run, records),
    "by_input": count_by_input(plan.run.files, records),
    "changes": describe_changes(plan, records, whitening),
    "seconds": {
      "read": round(sum(r.seconds for r in records.slices), 3),
      "encode": round(sum(r.seconds for r in records.buckets), 3),
      "write": round(sum(r.seconds for r in records.shards), 3),
    },
    "files": files_of(records),
    "raw_files": sorted({name for r in records.buckets for name in r.raw_files}),
    "bad_files": sorted({r.bad_file for r in records.slices if r.bad_file}),
    "verdicts": judge(plan, counts, records, whitening),
    "versions": versions(),
  }


def list_inputs(files: Iterable[InputFile]) -> list[dict[str, Any]]:
  """Returns what plan and manifest say of the input."""
  return [{"name": f.name, "url": f.url, "bytes": f.size, "version": f.version} for f in files]


def count(records: Records) -> dict[str, Any]:
  """Returns the run's counts of documents and tokens, from the records and the files that they name."""
  rejected = records.rejected()
  return {
    "read": sum(r.documents + sum(r.rejected.values()) for r in records.slices),
    "written": sum(r.vectors.rows for r in records.shards if r.vectors),
    "rejected": dict(sorted(rejected.items())),
    **count_changes(records),
    "distinct": sum(r.distinct for r in records.buckets),
    "encoded": sum(r.encoded for r in records.buckets),
    "reused": sum(r.reused for r in records.buckets),
    "truncated": sum(r.truncated for r in records.shards),
    "unknown_tokens": sum(r.n_unknown for r in records.shards),
    "tokens": sum(r.n_tokens for r in records.shards),
    "encoded_tokens": sum(r.tokens for r in records.buckets),
    "computed_tokens": sum(r.computed_tokens for r in records.buckets),
    "bad_files": len({r.file for r in records.slices if r.bad_file}),
  }


def describe_whitening(asked: str, whitening: Whitening | NoWhitening) -> dict[str, Any]:
  """Returns what the manifest says of the whitening."""
  if isinstance(whitening, NoWhitening):
    return {"asked": asked, "refused": whitening.reason}
  kept = whitening.kept_variance
  return {
    "asked": asked,
    "fingerprint": whitening.fingerprint,
    "hidden_size": whitening.hidden_size,
    "n_components": whitening.n_components,
    "count": whitening.count,
    "kept_variance": None if kept is None else round(kept, 6),
    **({"ranges": whitening.ranges_fingerprint} if whitening.ranges.size else {}),
  }


def files_of(records: Records) -> dict[str, list[dict[str, Any]]]:
  """Returns the files that count, by folder, each with its rows, bytes and sha256."""
  vectors = [r.vectors for r in records.shards if r.vectors]
  documents = [r.documents for r in records.buckets]
  rejected = [file for r in records.all() for file in r.files]
  return {
    "vectors": _listed(vectors),
    "documents": _listed(documents),
    "rejected": _listed(rejected),
    "changes": _listed(r.changes for r in records.changes),
  }


def _listed(files: Iterable[StoredFile]) -> list[dict[str, Any]]:
  return [asdict(file) for file in sorted(files, key=lambda file: file.path)]


def remove_orphans(plan: RunPlan, manifest: Mapping[str, Any]) -> None:
  """Removes what attempts that did not win have left, so that whoever reads the folders by a glob reads the run."""
  named = {file["path"] for files in manifest["files"].values() for file in files}
  written = [f"{plan.folder}/{name}" for name in plan.storage.names(plan.folder) if name.endswith(".npz")]
  for folder in _WORKER_FOLDERS:
    written += [f"{plan.folder}/{folder}/{name}" for name in plan.storage.names(f"{plan.folder}/{folder}")]
  for path in written:
    if path not in named:
      plan.storage.remove(path)


def versions() -> dict[str, str]:
  """Returns the versions that a run was made with."""
  names = ("apache-beam", "tensorflow", "numpy", "pyarrow", "tokenizers", "sentencepiece")
  return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
