"""Export a run's vectors to what another library opens: NumPy's own format, or an index of FAISS. No Beam here.

A folder is written beside its place and moved there at the end. Rows stand in the order of the shards, that of their
text digests; row i of the vectors is row i of `ids.parquet`.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model.whole_folder import whole_folder
from pipeline.published_rows import PublishedRows
from transforms.errors import UsageError
from transforms.vector_table import parquet_writer

NPY, FAISS = "npy", "faiss"
IDS_FILE, NPY_FILE, FAISS_FILE = "ids.parquet", "vectors.npy", "index.faiss"
_OURS = {IDS_FILE, NPY_FILE, FAISS_FILE}


@dataclass(frozen=True)
class Export:
  """What was written, and of which run; `n_components` is K."""

  run_id: str
  folder: str
  files: tuple[str, ...]
  rows: int
  n_components: int


def check_export(out: str, to: str, overwrite: bool = False) -> Path:
  """Returns the folder to write; raises UsageError if none may be put there, or FAISS is asked for and is not here."""
  if "://" in out:
    raise UsageError(f"{out}: give a local folder, then copy that")
  if not out:  # an unset variable of a shell would mean the current folder
    raise UsageError("OUT is empty: name a folder")
  target = Path(out).resolve()
  if target.exists() and not target.is_dir():
    raise UsageError(f"{out}: is a file; give a folder that is new or empty")
  found = {path.name for path in target.iterdir()} if target.is_dir() else set()
  if found - _OURS:
    raise UsageError(f"{out}: holds {min(found - _OURS)!r}, which no export writes; give a folder that is new or empty")
  if found and not overwrite:
    raise UsageError(f"{out}: holds an export already; give another folder, or --overwrite")
  if to == FAISS:
    _import_faiss()
  return target


def export_rows(rows: PublishedRows, target: Path, to: str, advance: Callable[[int], None] = lambda _: None) -> Export:
  """Writes the vectors of a run and their ids into a folder, whole or not at all.

  Memory holds one row group, and for FAISS the index: it writes one from memory only, 4 bytes a component.

  Args:
    rows: the run's.
    target: as `check_export` returned it; what stands there goes.
    to: `npy` or `faiss`.
    advance: is told bytes as they are read.

  Raises:
    UsageError: it has no vectors, or the folder cannot be written.
    StoreError: a file of the run is missing or damaged.
  """
  manifest, files = rows.manifest, rows.manifest["files"]["vectors"]
  if not files:
    raise UsageError(f"{rows.dataset.storage.root}: run {manifest['run_id']} has no vectors to export")
  shape = (sum(file["rows"] for file in files), manifest["whitening"]["n_components"])
  with whole_folder(target) as new:
    new.mkdir()
    _write_rows(new, rows, shape, advance)
    if to == FAISS:
      _index(new)
    written = tuple(sorted(path.name for path in new.iterdir()))
  return Export(manifest["run_id"], str(target), written, *shape)


def _write_rows(folder: Path, rows: PublishedRows, shape: tuple[int, int], advance: Callable[[int], None]) -> None:
  """Writes `vectors.npy`, float32 [N, K], and beside it all other columns, a row group at a time.

  Plain writes: of a memory map every page that was written would count as the process's until it is on disk.
  """
  header = {"descr": "<f4", "fortran_order": False, "shape": shape}
  with contextlib.ExitStack() as stack:
    file = stack.enter_context((folder / NPY_FILE).open("wb"))
    np.lib.format.write_array_header_1_0(file, header)
    writer = None
    for group in rows.groups(advance):
      file.write(np.ascontiguousarray(rows.vectors(group), "<f4").data)
      ids = group.drop_columns(["vector"])
      if writer is None:  # only now the columns are known
        writer = stack.enter_context(parquet_writer(str(folder / IDS_FILE), ids.schema, _metadata(rows.manifest)))
      writer.write_table(ids)


def _metadata(manifest: Mapping[str, Any]) -> dict[str, str]:
  """Returns of which vectors these are, for who searches them later."""
  encoder, whitening = manifest["encoder"]["fingerprint"], manifest["whitening"]["fingerprint"]
  return {"run_id": manifest["run_id"], "encoder_fingerprint": encoder, "whitening_fingerprint": whitening}


def _index(folder: Path) -> None:
  """Makes a flat index of inner products, which of vectors of length 1 are cosines, in the place of `vectors.npy`.

  All at once, from the memory-mapped file: adding in pieces FAISS would hold up to three times the index.
  """
  faiss = _import_faiss()
  vectors = np.load(folder / NPY_FILE, mmap_mode="r")
  index = faiss.IndexFlatIP(vectors.shape[1])
  index.add(vectors)
  faiss.write_index(index, str(folder / FAISS_FILE))
  (folder / NPY_FILE).unlink()


def _import_faiss() -> Any:
  try:
    import faiss
  except ImportError as error:
    raise UsageError("--to faiss: the package is not here; pip install 'sorbus[faiss]'") from error
  return faiss
