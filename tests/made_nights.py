"""Nights without an engine: raw files, documents files and manifests as runs leave them, for tests of what lives on.

Every encoding gives a text another vector, so that whoever takes another copy of it is found out.
"""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.dataset import Dataset, to_json
from tests.manifests import manifest
from transforms.digests import DigestRange, bucket_of, digest_array, to_arrow
from transforms.encode_documents import holdings
from transforms.raw_store import RawStore, vectors_of
from transforms.vector_table import documents_schema, raw_schema, to_parquet, to_vectors

FINGERPRINT = "ab" * 32
H = 4
NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)


def raw_table(digests: np.ndarray, vectors: np.ndarray) -> pa.Table:
  """Raw rows of digests [N] (S16) with vectors float32 [N, H]."""
  counts = pa.array(np.arange(len(digests), dtype=np.int32))
  flags = pa.array(np.zeros(len(digests), dtype=bool))
  columns = [to_arrow(digests), counts, flags, counts, to_vectors(vectors)]
  return pa.table(columns, schema=raw_schema(vectors.shape[1]))


class MadeNights:
  """A dataset and a seeded source of vectors."""

  def __init__(self, folder: Path, fingerprint: str = FINGERPRINT):
    self.dataset = Dataset.open_or_create(str(folder), {"fingerprint": fingerprint})
    self.storage = self.dataset.storage
    self.store = RawStore(self.storage, fingerprint, H)
    self.number = 0
    self._generator = np.random.default_rng(0)

  def run(self, texts: Iterable[str], bits: int = 1, *, finished: bool = True, publish: bool = True) -> str:
    """Encodes what the store lacks, writes down the rest, and returns the run's id; a killed run leaves raw files."""
    self.number += 1
    run_id = f"20260101T{self.number:06d}Z{self.number:06x}"
    digests = np.unique(digest_array(texts))
    for bucket in range(1 << bits):
      mine = digests[bucket_of(digests, bits) == bucket]
      _, known = holdings(self.store, DigestRange(bucket, bits), mine)
      if not known.all():
        self.encode(DigestRange(bucket, bits), run_id, mine[~known])
    if finished:
      self._finish(run_id, digests, bits)
      if publish:
        published = self.dataset.published()
        self.dataset.publish(run_id, published.number if published else 0, NOW)
    else:
      self.storage.write(f"runs/{run_id}/plan.json", b"{}")
    return run_id

  def encode(self, wanted: DigestRange, run_id: str, digests: np.ndarray) -> str:
    """Writes a raw file of vectors that no other has."""
    vectors = self._generator.normal(size=(len(digests), H)).astype(np.float32)
    return self.store.write(wanted, run_id, raw_table(digests, vectors))

  def _finish(self, run_id: str, digests: np.ndarray, bits: int) -> None:
    stored, schema = [], documents_schema(pa.schema([]))
    for bucket in range(1 << bits):
      mine = digests[bucket_of(digests, bits) == bucket]
      ids = pa.array([value.as_py().hex() for value in to_arrow(mine)], pa.string())
      numbers = np.arange(len(mine))
      columns = [ids, to_arrow(mine), pa.array(numbers, pa.int32()), pa.array(numbers, pa.int64())]
      data = to_parquet(pa.table(columns, schema=schema), {"run_id": run_id})
      folder, name = f"runs/{run_id}/documents", DigestRange(bucket, bits).name
      stored.append(asdict(self.storage.write_content(folder, name, ".parquet", data, len(mine))))
    files = {"vectors": [], "documents": stored}
    encoder, raw = {"fingerprint": self.store.fingerprint}, self.raw_names()
    value = manifest(run_id=run_id, encoder=encoder, files=files, buckets=1 << bits, raw_files=raw)
    self.storage.create(f"runs/{run_id}/manifest.json", to_json(value))

  def vectors(self, texts: Sequence[str]) -> np.ndarray:
    """Raw vectors float32 [N, H] of the texts, in their digests' order, as a reader takes them."""
    digests = np.unique(digest_array(texts))
    found = np.full((len(digests), H), np.nan, np.float32)
    for at, rows in self.store.select(self.store.find(DigestRange(0, 0)), digests):
      found[at] = vectors_of(rows)
    return found

  def raw_rows(self) -> int:
    """Rows in all raw files."""
    return sum(len(self.store.digests(name)) for name in self.raw_names())

  def raw_names(self) -> list[str]:
    """Names of all raw files."""
    return self.store.find(DigestRange(0, 0))


def texts_of(numbers: Iterable[int]) -> list[str]:
  """A text for each number."""
  return [f"text {number}" for number in numbers]
