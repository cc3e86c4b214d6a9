"""Compare two runs: rows, vectors and moments. Formulas are in docs/numerics.md; nothing is written. No Beam here.

Memory holds the digests of both runs' ids and texts (32 bytes a document and run), and the vectors of the sample.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.dataset import Dataset
from pipeline.published_rows import PublishedRows
from transforms.digests import digest_array, from_arrow
from transforms.errors import StoreError
from transforms.moments import Moments
from transforms.whitening import RELATIVE_FLOOR

# Documents whose two vectors are compared: those of the lowest id digests, so that every comparison takes the same.
SAMPLE = 10_000


@dataclass(frozen=True)
class _Rows:
  """Digests of ids and texts, both S16 [N], in the order of the shards and their rows."""

  ids: np.ndarray
  texts: np.ndarray


def diff_runs(dataset: Dataset, old_id: str, new_id: str) -> dict[str, Any]:
  """Returns what `sorbus diff --json` prints of two finished runs.

  Raises:
    UsageError: there is no such run, or it did not finish.
    StoreError: a file of one is missing or damaged.
  """
  manifests = old, new = dataset.manifest(old_id), dataset.manifest(new_id)
  rows = [_read_rows(dataset, manifest) for manifest in manifests]
  # The sample is taken by id digest, which is the order in which common ids come.
  _, *at = np.intersect1d(rows[0].ids, rows[1].ids, return_indices=True)
  n_same = int((rows[0].texts[at[0]] == rows[1].texts[at[1]]).sum())
  why_not = _find_incomparable(old, new)
  return {
    "dataset": dataset.storage.root,
    "old": old_id,
    "new": new_id,
    "rows": {
      "old": len(rows[0].ids),
      "new": len(rows[1].ids),
      "added": len(rows[1].ids) - len(at[0]),
      "removed": len(rows[0].ids) - len(at[0]),
      "changed": len(at[0]) - n_same,
      "same": n_same,
    },
    "cosine": None if why_not else _compare_vectors(dataset, manifests, [indices[:SAMPLE] for indices in at]),
    "moments": _compare_moments(dataset, old, new),
    "incomparable": why_not,
    "same_whitening": old["whitening"].get("fingerprint") == new["whitening"].get("fingerprint"),
  }


def _find_incomparable(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
  """Returns why the vectors of two runs have no common space to be compared in, or None."""
  encoders = [manifest["encoder"]["fingerprint"] for manifest in (old, new)]
  if encoders[0] != encoders[1]:
    return f"the encoders differ ({encoders[0][:12]} and {encoders[1][:12]})"
  if "refused" in old["whitening"] or "refused" in new["whitening"]:
    return "a run without a whitening has no vectors"
  components = [manifest["whitening"]["n_components"] for manifest in (old, new)]
  return f"the vectors have {components[0]} and {components[1]} components" if components[0] != components[1] else None


def _read_rows(dataset: Dataset, manifest: Mapping[str, Any]) -> _Rows:
  ids, texts = [np.empty(0, "S16")], [np.empty(0, "S16")]
  for file in manifest["files"]["vectors"]:
    for _, table in _read_groups(dataset, file["path"], ("doc_id", "text_digest"), range(file["rows"])):
      ids.append(digest_array(table["doc_id"].to_pylist()))
      texts.append(from_arrow(table["text_digest"]))
  return _Rows(np.concatenate(ids), np.concatenate(texts))


def _read_groups(
  dataset: Dataset, path: str, columns: Sequence[str], rows: Sequence[int] | np.ndarray
) -> Iterator[tuple[int, pa.Table]]:
  """Yields (number of its first row, table) for each row group of a shard in which one of the sorted `rows` is."""
  try:
    with dataset.storage.open(path) as source, pq.ParquetFile(source) as parquet:
      start = 0
      for i in range(parquet.num_row_groups):
        stop = start + parquet.metadata.row_group(i).num_rows
        if np.searchsorted(rows, start) < np.searchsorted(rows, stop):
          yield start, parquet.read_row_group(i, columns=list(columns), use_threads=False).select(list(columns))
        start = stop
  except (pa.ArrowException, OSError, KeyError, ValueError) as error:
    why = " ".join(str(error).split())[:120]
    raise StoreError(
      f"{dataset.storage.root}/{path}: missing or damaged ({why}); `sorbus verify` tells more"
    ) from error


def _compare_vectors(
  dataset: Dataset, manifests: Sequence[Mapping[str, Any]], at: Sequence[np.ndarray]
) -> dict[str, Any] | None:
  """Returns the cosines of the vectors of N documents, at the rows `at` int64 [N] of each run; None for no document."""
  if not len(at[0]):
    return None
  old, new = (_read_vectors(dataset, m, rows).astype(np.float64) for m, rows in zip(manifests, at, strict=True))
  cosines = np.clip((old * new).sum(axis=1) / (np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)), -1, 1)
  identical = int((old == new).all(axis=1).sum())
  return {
    "documents": len(cosines),
    "mean": float(cosines.mean()),
    "lowest": float(cosines.min()),
    "identical": identical,
  }


def _read_vectors(dataset: Dataset, manifest: Mapping[str, Any], rows: np.ndarray) -> np.ndarray:
  """Returns the vectors float32 [N, K] of the rows int64 [N], counted over all shards."""
  published = PublishedRows(dataset, manifest)
  vectors = np.empty((len(rows), manifest["whitening"]["n_components"]), np.float32)
  order = np.argsort(rows)
  before = 0
  for file in manifest["files"]["vectors"]:
    mine = order[np.searchsorted(rows[order], before) : np.searchsorted(rows[order], before + file["rows"])]
    wanted = rows[mine] - before
    for start, table in _read_groups(dataset, file["path"], ("vector",), wanted) if len(mine) else ():
      inside = (wanted >= start) & (wanted < start + len(table))
      vectors[mine[inside]] = published.vectors(table)[wanted[inside] - start]
    before += file["rows"]
  return vectors


def _compare_moments(dataset: Dataset, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, float] | None:
  """Returns how far the raw vectors' mean and spectrum moved; None where they are of two encoders, or too few."""
  if old["encoder"]["fingerprint"] != new["encoder"]["fingerprint"]:
    return None
  before, after = (read_moments(dataset, manifest) for manifest in (old, new))
  if before is None or after is None or min(before.count, after.count) < 2 or not before.scatter.any():
    return None  # no spread to measure by
  components = [m["whitening"].get("n_components", before.hidden_size) for m in (old, new)]
  return {"mean_shift": mean_shift(before, after), "spectrum_shift": spectrum_shift(before, after, min(components))}


def read_moments(dataset: Dataset, manifest: Mapping[str, Any]) -> Moments | None:
  """Returns the moments of a run's raw vectors; None where its manifest names none, StoreError where they are lost."""
  for file in manifest["files"].get("moments", ()):
    try:
      return Moments.from_bytes(dataset.storage.read(file["path"]), file["path"])
    except FileNotFoundError as error:
      raise StoreError(f"{dataset.storage.root}/{file['path']}: missing; `sorbus verify` tells more") from error
  return None


def mean_shift(old: Moments, new: Moments) -> float:
  """Returns ‖new mean − old mean‖ / √(trace of the old covariance): in root-mean-square distances from the mean."""
  return float(np.linalg.norm(new.mean - old.mean) / np.sqrt(np.trace(old.covariance())))


def spectrum_shift(old: Moments, new: Moments, n_components: int) -> float:
  """Returns the largest |ln(λ′ᵢ / λᵢ)| over the leading eigenvalues of both covariances, those above rounding."""
  before, after = (np.linalg.eigvalsh(moments.covariance())[::-1][:n_components] for moments in (old, new))
  counts = (before > RELATIVE_FLOOR * before[0]) & (after > RELATIVE_FLOOR * after[0])
  return float(np.abs(np.log(after[counts] / before[counts])).max(initial=0.0))


def show_diff(difference: Mapping[str, Any], console: Console) -> None:
  """Prints what differs between two runs."""
  console.print(Text(f"{difference['old']} → {difference['new']}", style="bold"), soft_wrap=True)
  rows = difference["rows"]
  table = Table("what", Column("", justify="right"), "", box=None, show_header=False)
  table.add_row("rows", f"{rows['new']:,}", f"{rows['old']:,} before")
  for name in ("added", "removed", "changed", "same"):
    table.add_row(f"  {name}", f"{rows[name]:,}", "have another text" if name == "changed" else "")
  for name, value, note in _numbers(difference):
    table.add_row(name, value, note)
  console.print(table)
  if difference["incomparable"]:
    console.print(Text(f"vectors are not compared: {difference['incomparable']}"), soft_wrap=True)
  elif not difference["same_whitening"]:  # else low cosines look like a fault
    line = "the whitenings differ, and so does every vector: the cosines say little of the documents"
    console.print(Text(line), soft_wrap=True)


def _numbers(difference: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
  cosine, moments, rows = difference["cosine"], difference["moments"], difference["rows"]
  if cosine:
    common = rows["same"] + rows["changed"]
    all_ = cosine["documents"] == common
    yield (
      "mean cosine",
      f"{cosine['mean']:.6f}",
      f"of {'all' if all_ else f'{SAMPLE:,} of'} {common:,} common documents",
    )
    yield "lowest cosine", f"{cosine['lowest']:.6f}", f"{cosine['identical']:,} are the same to the bit"
  if moments:
    yield (
      "mean shift",
      f"{moments['mean_shift']:.4f}",
      "of the raw vectors, in root-mean-square distances from the mean",
    )
    yield "spectrum shift", f"{moments['spectrum_shift']:.4f}", "largest |ln(new / old)| of a leading variance"
