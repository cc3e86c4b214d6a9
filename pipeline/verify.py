"""Re-read every file of a run and hold it to what the manifest says. No Beam here, and nothing is written.

Memory holds one row group or raw file, and the digest of every id or text (16 bytes a document).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.accounts import find_unaccounted
from pipeline.dataset import Dataset
from pipeline.published_rows import PublishedRows
from pipeline.raw_coverage import find_uncovered, raw_bytes
from pipeline.verify_changes import changes_as_counted, wrong_changes
from transforms.base_run import vector_type_of
from transforms.digests import digest_array, from_arrow
from transforms.errors import SorbusError
from transforms.storage import sha256_of_file
from transforms.vector_table import from_vectors
from transforms.vector_types import wrong_lengths

# The one check that is not about what readers of the run take.
RAW_FILES = "raw files"
# Columns that are summed, and the counts of the manifest that they come to.
_COUNTS = {"n_tokens": "tokens", "truncated": "truncated", "n_unknown": "unknown_tokens"}


@dataclass(frozen=True)
class Check:
  """One promise of a manifest, whether it holds, and what was found, in a line."""

  name: str
  passed: bool
  finding: str


@dataclass
class _Found:
  """What the published rows come to, and what is wrong with them."""

  rows: int = 0
  sums: Counter[str] = field(default_factory=Counter)
  ids: list[np.ndarray] = field(default_factory=list)
  wrong: list[str] = field(default_factory=list)
  last_digest: np.ndarray = field(default_factory=lambda: np.empty(0, "S16"))  # of the row group before, [0 or 1]


def verify_run(dataset: Dataset, run_id: str, advance: Callable[[int], None] = lambda _: None) -> list[Check]:
  """Checks every file of a finished run, published or not.

  Args:
    dataset: an open dataset.
    run_id: the run.
    advance: is told bytes as they are read, for a progress line.

  Raises:
    UsageError: there is no such run, or it did not finish.
  """
  manifest = dataset.manifest(run_id)
  broken = _broken_files(dataset, manifest, advance)
  found, published = _Found(), PublishedRows(dataset, manifest)
  for file in manifest["files"].get("vectors", ()):
    if file["path"] not in broken:
      _read_shard(published, file, found)
  by_reason, by_file = _count_rejected(dataset, manifest, broken)
  return [
    _check("files", list(broken.values()), f"{_number(manifest)} files, each with the bytes and sha256 it should have"),
    _check(
      RAW_FILES,
      list(find_uncovered(dataset, manifest, broken, advance)),
      f"{manifest['counts']['distinct']:,} texts, each with its vector in a whole file",
    ),
    _check("vectors", found.wrong, f"{found.rows:,} rows, all of length 1"),
    _check("ids", _repeated_ids(found.ids), f"{found.rows:,} ids, each once"),
    _check("counts", list(_wrong_counts(manifest, found, by_reason)), "read = written + rejected, as counted anew"),
    _check("inputs", list(_wrong_inputs(manifest, by_file)), "read = written + rejected of each input file"),
    _check("changes", wrong_changes(dataset, manifest, broken), changes_as_counted(manifest)),
    _check("whitening", list(_wrong_whitening(dataset, run_id, broken)), "the one that the manifest names"),
  ]


def total_bytes(dataset: Dataset, run_id: str) -> int:
  """Returns how many bytes `verify_run` reads."""
  manifest = dataset.manifest(run_id)
  return sum(file["bytes"] for file in _files(manifest)) + raw_bytes(dataset, manifest)


def _check(name: str, wrong: Sequence[str], good: str) -> Check:
  more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
  return Check(name, not wrong, "; ".join(wrong[:3]) + more if wrong else good)


def _files(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
  return [file for files in manifest["files"].values() for file in files]


def _number(manifest: Mapping[str, Any]) -> str:
  return f"{len(_files(manifest)):,}"


def _broken_files(dataset: Dataset, manifest: Mapping[str, Any], advance: Callable[[int], None]) -> dict[str, str]:
  """Returns what is wrong with each file that is not the one that the manifest names: path → finding."""
  broken = {}
  for file in _files(manifest):
    found = _sha256(dataset, file["path"], advance)
    if found is None:
      broken[file["path"]] = f"{file['path']} is missing"
    elif found != file["sha256"]:
      broken[file["path"]] = f"{file['path']} was changed (its sha256 is not the manifest's)"
  return broken


def _sha256(dataset: Dataset, relative: str, advance: Callable[[int], None]) -> str | None:
  try:
    with dataset.storage.open(relative) as file:
      digest = sha256_of_file(file)
      advance(file.tell())
  except FileNotFoundError:
    return None
  return digest


def _read_shard(published: PublishedRows, file: Mapping[str, Any], found: _Found) -> None:
  path = file["path"]
  rows = 0
  found.last_digest = np.empty(0, "S16")
  try:
    with published.dataset.storage.open(path) as opened, pq.ParquetFile(opened) as parquet:
      found.wrong += _wrong_metadata(path, parquet.schema_arrow, published.manifest)
      for i in range(parquet.num_row_groups):
        rows += _read_rows(path, parquet.read_row_group(i, use_threads=False), published, found)
  except (SorbusError, pa.ArrowException, OSError, KeyError, ValueError) as error:
    found.wrong.append(f"{path} cannot be read ({' '.join(str(error).split())[:120]})")
  if rows != file["rows"]:
    found.wrong.append(f"{path} has {rows} rows, the manifest says {file['rows']}")


def _wrong_metadata(path: str, schema: pa.Schema, manifest: Mapping[str, Any]) -> Iterator[str]:
  stated = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
  wanted = {
    "sorbus.run_id": manifest["run_id"],
    "sorbus.encoder_fingerprint": manifest["encoder"]["fingerprint"],
    "sorbus.whitening_fingerprint": manifest["whitening"]["fingerprint"],
  }
  for key, value in wanted.items():
    if stated.get(key) != value:
      yield f"{path} says {key} {str(stated.get(key))[:16]}, the manifest {value[:16]}"


def _read_rows(path: str, table: pa.Table, published: PublishedRows, found: _Found) -> int:
  """Adds a row group to what was found and returns its number of rows."""
  vectors = from_vectors(table["vector"])
  digests = np.concatenate([found.last_digest, from_arrow(table["text_digest"])])
  found.last_digest = digests[-1:]
  if (digests[1:] < digests[:-1]).any():
    found.wrong.append(f"{path} has rows that are not in the order of their text digests")
  K, kind = published.manifest["whitening"]["n_components"], vector_type_of(published.manifest)
  if vectors.shape[1] != K or vectors.dtype != kind:
    found.wrong.append(f"{path} has vectors of {vectors.shape[1]} {vectors.dtype}, not {K} {kind}")
  elif len(bad := wrong_lengths(vectors, published.ranges)):
    found.wrong.append(f"{path} has {len(bad)} vectors not of length 1, the first of {table['doc_id'][int(bad[0])]}")
  found.ids.append(digest_array(table["doc_id"].to_pylist()))
  found.sums.update({name: int(table[name].to_numpy().sum()) for name in _COUNTS})
  found.rows += len(table)
  return len(table)


def _repeated_ids(ids: Sequence[np.ndarray]) -> list[str]:
  every = np.concatenate(ids) if ids else np.empty(0, "S16")
  repeated = len(every) - len(np.unique(every))
  return [f"{repeated:,} rows have an id that another has"] if repeated else []


def _wrong_counts(manifest: Mapping[str, Any], found: _Found, rejected: Mapping[str, int]) -> Iterator[str]:
  counts = manifest["counts"]
  if counts["written"] and counts["read"] != counts["written"] + sum(counts["rejected"].values()):
    yield f"{counts['read']} read are not {counts['written']} written + {sum(counts['rejected'].values())} rejected"
  if rejected != counts["rejected"]:
    yield f"rejected documents on disk are {rejected}, the manifest says {counts['rejected']}"
  if found.rows != counts["written"]:
    yield f"{found.rows} rows on disk, the manifest says {counts['written']} written"
  for name, key in _COUNTS.items():
    if found.sums[name] != counts[key]:
      yield f"{key} are {found.sums[name]}, the manifest says {counts[key]}"


def _count_rejected(
  dataset: Dataset, manifest: Mapping[str, Any], broken: Mapping[str, str]
) -> tuple[dict[str, int], dict[str, int]]:
  """Returns how many documents stand in the rejected files, by reason and by input file."""
  by_reason: Counter[str] = Counter()
  by_file: Counter[str] = Counter()
  for file in manifest["files"].get("rejected", ()):
    if file["path"] not in broken:
      with dataset.storage.open(file["path"]) as lines:
        for document in map(json.loads, lines):
          by_reason[document["reason"]] += 1
          by_file[document["file"]] += 1
  return dict(sorted(by_reason.items())), dict(sorted(by_file.items()))


def _wrong_inputs(manifest: Mapping[str, Any], found: Mapping[str, int]) -> Iterator[str]:
  names = [file["name"] for file in manifest["inputs"]]
  counts = dict(zip(names, manifest["by_input"], strict=False))
  if len(names) != len(manifest["by_input"]):
    yield f"{len(manifest['by_input'])} counts of {len(names)} input files"
  rejected = {name: c["rejected"] for name, c in counts.items() if c["rejected"]}
  if found != rejected:
    yield f"rejected documents on disk are {found}, the manifest says {rejected}"
  if "refused" not in manifest["whitening"] and (wrong := find_unaccounted(manifest["counts"], counts.items())):
    yield wrong


def _wrong_whitening(dataset: Dataset, run_id: str, broken: Mapping[str, str]) -> Iterator[str]:
  if not any("/whitening-" in path for path in broken):
    try:
      dataset.whitening(run_id)
    except SorbusError as error:
      yield str(error)
