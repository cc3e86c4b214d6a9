"""Hold the list of changes of a run to its counts: what `sorbus verify` checks of `changes/`. No Beam here."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import Dataset
from transforms.vector_table import CHANGES_SCHEMA


def changes_as_counted(manifest: Mapping[str, Any]) -> str:
  """Returns what a manifest promises of its changes, in words."""
  counts = manifest["counts"]
  return f"{counts['new'] + counts['changed']:,} to upsert, {counts['gone']:,} to delete, as counted"


def wrong_changes(dataset: Dataset, manifest: Mapping[str, Any], broken: Mapping[str, str]) -> list[str]:
  """Returns what is wrong with the changes of a run; `broken` are the files that are not read."""
  counts, wrong = manifest["counts"], []
  found: Counter[str] = Counter()
  for file in manifest["files"].get("changes", ()):
    if file["path"] not in broken:
      try:
        found.update(_count(dataset, file["path"]))
      except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        wrong.append(f"{file['path']} cannot be read ({' '.join(str(error).split())[:120]})")
  wanted = Counter(upsert=counts["new"] + counts["changed"], delete=counts["gone"])
  if found != wanted:
    listed = f"{found['upsert']} upserts and {found['delete']} deletes"
    wrong.append(f"{listed} on disk, the manifest says {wanted['upsert']} and {wanted['delete']}")
  return wrong


def _count(dataset: Dataset, path: str) -> Counter[str]:
  with dataset.storage.open(path) as source, pq.ParquetFile(source) as parquet:
    table = parquet.read(use_threads=False)
  if not table.schema.equals(CHANGES_SCHEMA):
    raise ValueError(f"columns {table.schema.names}")
  ids = table["doc_id"].to_pylist()
  if any(a >= b for a, b in pairwise(ids)):
    raise ValueError("ids are not in order, or not each once")
  return Counter(table["change"].to_pylist())
