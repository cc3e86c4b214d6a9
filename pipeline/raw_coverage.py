"""Whether the raw vectors of a run's texts are there, in whichever files: gc merges these, so that names change.

Memory: 17 bytes a distinct text of the run, and one raw file.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.dataset import Dataset
from transforms.digest_column import read_digests
from transforms.digests import ALL_DIGESTS
from transforms.raw_store import RawStore, content_of, locate
from transforms.storage import sha256


def raw_bytes(dataset: Dataset, manifest: Mapping[str, Any]) -> int:
  """Returns how many bytes `find_uncovered` reads of raw files."""
  store = _store(dataset, manifest)
  sizes = dataset.storage.sizes(store.folder)
  return sum(sizes.get(f"{store.folder}/{name}", 0) for name in store.find(ALL_DIGESTS))


def find_uncovered(
  dataset: Dataset, manifest: Mapping[str, Any], broken: Mapping[str, str], advance: Callable[[int], None]
) -> Iterator[str]:
  """Yields what is wrong if a text of the run stands in no whole raw file; a damaged file alone is not wrong.

  Args:
    dataset: of the run.
    manifest: the run's.
    broken: paths of documents files that are not to be read.
    advance: is told bytes of raw files as they are read.
  """
  store, texts = _store(dataset, manifest), _texts_of(dataset, manifest, broken)
  missing, damaged = np.ones(len(texts), dtype=bool), []
  for name, digests in _read_all(store, advance):
    if digests is None:
      damaged.append(f"{store.folder}/{name} was changed (its sha256 is not the one in its name)")
    else:
      missing[locate(texts, digests, missing)[0]] = False
  if missing.any():
    yield f"{missing.sum():,} texts have no vector in a whole raw file"
    yield from damaged
    there = set(dataset.storage.names(store.folder))
    yield from (f"{store.folder}/{name} is missing" for name in manifest["raw_files"] if name not in there)


def _store(dataset: Dataset, manifest: Mapping[str, Any]) -> RawStore:
  return RawStore(dataset.storage, manifest["encoder"]["fingerprint"], 1)


def _texts_of(dataset: Dataset, manifest: Mapping[str, Any], broken: Mapping[str, str]) -> np.ndarray:
  """Returns the digests (S16), sorted, distinct, of the run's texts, as far as its documents files can be read."""
  found = [np.empty(0, "S16")]
  for file in manifest["files"].get("documents", ()):
    if file["path"] not in broken:
      with dataset.storage.open(file["path"]) as opened:
        digests = read_digests(opened, file["path"])
      found.append(np.unique(digests) if digests is not None else found[0])
  return np.unique(np.concatenate(found))


def _read_all(store: RawStore, advance: Callable[[int], None]) -> Iterator[tuple[str, np.ndarray | None]]:
  """Yields (name, digests, or None if it is damaged) of each raw file, each read once.

  gc may be at work: what it has replaced is gone, and what it has written in its place is found by looking again.
  """
  seen: set[str] = set()
  while new := [name for name in store.find(ALL_DIGESTS) if name not in seen]:
    seen.update(new)
    for name in new:
      try:
        data = store.storage.read(f"{store.folder}/{name}")
      except FileNotFoundError:
        continue
      advance(len(data))
      yield name, _digests(data, name)


def _digests(data: bytes, name: str) -> np.ndarray | None:
  if not sha256(data).startswith(content_of(name)):
    return None
  return read_digests(io.BytesIO(data), name)
