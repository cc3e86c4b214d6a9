"""The run that another is whitened from: read from the dataset, so that nothing of it is taken unchecked.

Memory holds its records, and one documents file at a time.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import Dataset
from transforms.digests import MAX_BITS, DigestRange, from_arrow
from transforms.encode_documents import holdings
from transforms.errors import StoreError, UsageError
from transforms.input_types import InputFile
from transforms.moments import Moments
from transforms.raw_store import RawStore
from transforms.records import BucketRecord, Record, Records, from_json_lines
from transforms.storage import Storage, StoredFile, sha256
from transforms.vector_table import documents_schema, read_parquet

_RECORDS = re.compile(r"wave-\d{3,}\.jsonl")
_REMEDY = "take another run with --run, or embed again with --again"
_NO_COLUMNS = pa.schema([])


@dataclass(frozen=True)
class RewhitenSource:
  """A finished run of a dataset: its manifest, and what its workers reported until vectors were written."""

  storage: Storage
  manifest: Mapping[str, Any]
  records: Records

  @classmethod
  def read(cls, dataset: Dataset, run_id: str) -> Self:
    """Reads a run.

    Raises:
      UsageError: there is no such run, it did not finish, or has no documents.
      StoreError: its records are missing, damaged, or not those that its manifest was made from.
    """
    manifest = dataset.manifest(run_id)
    if not manifest["files"].get("documents"):
      raise UsageError(f"run {run_id} has no documents to whiten; take another run with --run")
    source = cls(dataset.storage, manifest, _read_records(dataset.storage, f"runs/{run_id}/records"))
    try:
      source._check_records()
    except (TypeError, AttributeError) as error:  # a value of another type than a record has
      raise StoreError(f"runs/{run_id}/records: damaged ({error!r}); {_REMEDY}") from error
    return source

  @property
  def run_id(self) -> str:
    """Its id."""
    return str(self.manifest["run_id"])

  @property
  def bits(self) -> int:
    """Of a digest that choose its bucket; raises StoreError."""
    buckets = self.manifest.get("buckets")
    if not isinstance(buckets, int) or buckets < 1 or buckets.bit_count() != 1 or buckets > 1 << MAX_BITS:
      raise StoreError(f"runs/{self.run_id}/manifest.json: {buckets!r} buckets, no power of two; {_REMEDY}")
    return buckets.bit_length() - 1

  @property
  def files(self) -> tuple[InputFile, ...]:
    """Its input as it was listed; only names are used, nothing of it is read. Raises StoreError."""
    try:
      return tuple(
        InputFile(i["url"], i["name"], i["bytes"], i["version"], "text", None, i["bytes"])
        for i in self.manifest["inputs"]
      )
    except (KeyError, TypeError) as error:
      raise StoreError(f"runs/{self.run_id}/manifest.json: damaged 'inputs' ({error!r}); {_REMEDY}") from error

  def hidden_size(self) -> int:
    """Returns H, from the run's moments; raises StoreError if they are missing or damaged."""
    named = self.manifest["files"].get("moments")
    if not named:
      raise StoreError(f"runs/{self.run_id}/manifest.json: names no moments; {_REMEDY}")
    return Moments.from_bytes(self._read(named[0]), named[0]["path"]).hidden_size

  def kept(self) -> pa.Schema:
    """Returns the columns that its documents keep of the input; raises StoreError."""
    file = self.manifest["files"]["documents"][0]
    try:
      schema = pq.read_schema(io.BytesIO(self._read(file)))
    except (pa.ArrowException, OSError, ValueError) as error:
      raise StoreError(f"{file['path']}: damaged ({error}); {_REMEDY}") from error
    ours = documents_schema(_NO_COLUMNS).names
    kept = pa.schema([field for field in schema if field.name not in ours])
    if {field.name: str(field.type) for field in kept} != self.manifest["kept_columns"]:
      raise StoreError(f"{file['path']}: keeps {kept.names}, not the columns that the manifest names; {_REMEDY}")
    return kept

  def copy_to(self, folder: str, store: RawStore, kept: pa.Schema) -> Iterator[Record]:
    """Copies the run's documents and rejected documents into another run's folder and yields records that name them.

    Raises:
      StoreError: a file is missing or damaged, or the store lacks a text.
    """
    for part in self.records.slices:
      yield replace(part, files=self._copy_all(part.files, folder), seconds=0.0)
    for bucket in self.records.buckets:
      yield self._copy_bucket(bucket, folder, store, kept)

  def _copy_bucket(self, record: BucketRecord, folder: str, store: RawStore, kept: pa.Schema) -> BucketRecord:
    """Returns a bucket's record with the raw files as they are now: they may have been compacted since."""
    copy = self._copy(record.documents, folder)
    table = read_parquet(self.storage.read(copy.path), record.documents.path, documents_schema(kept))
    distinct = np.unique(from_arrow(table["text_digest"]))
    return replace(
      record,
      documents=copy,
      files=self._copy_all(record.files, folder),
      seconds=0.0,
      raw_files=self._holding(store, DigestRange(record.bucket, self.bits), distinct),
      distinct=len(distinct),
      encoded=0,
      reused=len(distinct),
      tokens=0,
      computed_tokens=0,
    )

  def _holding(self, store: RawStore, wanted: DigestRange, distinct: np.ndarray) -> tuple[str, ...]:
    """Returns the raw files in which sorted digests [N] are found first; raises StoreError if one is not found."""
    found, known = holdings(store, wanted, distinct)
    if not known.all():
      lost = len(distinct) - int(known.sum())
      raise StoreError(
        f"{store.folder}: {lost} texts of run {self.run_id} have no vector any more; embed again with --again"
      )
    return tuple(sorted(found))

  def _copy_all(self, files: Iterable[StoredFile], folder: str) -> tuple[StoredFile, ...]:
    return tuple(self._copy(file, folder) for file in files)

  def _copy(self, file: StoredFile, folder: str) -> StoredFile:
    path = f"{folder}/{file.path.removeprefix(f'runs/{self.run_id}/')}"
    self.storage.write(path, self._read(asdict(file)))
    return replace(file, path=path)

  def _read(self, file: Mapping[str, Any]) -> bytes:
    """Returns a file of the run; raises StoreError if it is missing, or not the one that was recorded."""
    try:
      data = self.storage.read(file["path"])
    except FileNotFoundError as error:
      raise StoreError(f"{file['path']}: missing; {_REMEDY}") from error
    if sha256(data) != file["sha256"]:
      raise StoreError(f"{file['path']}: damaged (its sha256 is not the one that was recorded); {_REMEDY}")
    return data

  def _check_records(self) -> None:
    """Holds the records, which have no sha256, to the manifest that was made from them; raises StoreError."""
    folder, files, records = f"runs/{self.run_id}/records", self.manifest["files"], self.records
    documents = sorted((asdict(record.documents) for record in records.buckets), key=lambda file: file["path"])
    rejected = [asdict(file) for record in records.all() for file in record.files]
    read = sum(record.documents + sum(record.rejected.values()) for record in records.slices)
    if (documents, read, records.shards) != (files["documents"], self.manifest["counts"]["read"], ()):
      raise StoreError(f"{folder}: not what the run's {self.manifest['counts']['read']} documents come to; {_REMEDY}")
    if any(file not in files.get("rejected", ()) for file in rejected):
      raise StoreError(f"{folder}: names a rejected file that the manifest does not; {_REMEDY}")
    numbers = [record.bucket for record in records.buckets]
    if len(set(numbers)) < len(numbers) or not all(0 <= number < 1 << self.bits for number in numbers):
      raise StoreError(f"{folder}: names a bucket twice, or one that there is not; {_REMEDY}")
    if not all(0 <= record.file < len(self.files) for record in records.slices):
      raise StoreError(f"{folder}: names an input file that there is not; {_REMEDY}")


def _read_records(storage: Storage, folder: str) -> Records:
  records: list[Record] = []
  for name in storage.names(folder):
    if _RECORDS.fullmatch(name):
      try:
        records += from_json_lines(storage.read(f"{folder}/{name}"))
      except (ValueError, TypeError, KeyError, AttributeError) as error:  # no JSON, or not that of a record
        raise StoreError(f"{folder}/{name}: damaged ({error!r}); {_REMEDY}") from error
  if not records:
    raise StoreError(f"{folder}: the run's records are missing; {_REMEDY}")
  return Records.of(records)
