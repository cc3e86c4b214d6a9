"""What workers report: small frozen records that name the files which count.

A bundle may run twice or stop halfway; whatever it wrote counts only once a record that names it has been taken up.
The manifest is made from these records and the files they name, never from the engine's metrics.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transforms.storage import StoredFile


@dataclass(frozen=True)
class SliceRecord:
  """One slice as read in one wave: `documents` went on into buckets of the wave, the rejected went into `files`."""

  kind: ClassVar[str] = "slice"
  file: int
  begin: int
  wave: int
  documents: int
  rejected: Mapping[str, int]
  files: tuple[StoredFile, ...]
  bad_file: str | None
  seconds: float
  long: int = 0  # documents that became several chunks, as the first wave counts them
  chunks: int = 0  # and how many that were


@dataclass(frozen=True)
class BucketRecord:
  """One bucket, encoded: its documents' file, and the raw files that hold their vectors (names in the store)."""

  kind: ClassVar[str] = "bucket"
  bucket: int
  documents: StoredFile
  raw_files: tuple[str, ...]
  received: int  # documents that arrived, before any was rejected here
  distinct: int  # distinct texts with a vector
  encoded: int  # of these, encoded by this run
  reused: int  # of these, encoded by another run
  tokens: int  # real tokens that this attempt gave to the encoder
  computed_tokens: int  # the same with padding
  rejected: Mapping[str, int]
  files: tuple[StoredFile, ...]
  seconds: float
  rejected_by_file: Mapping[str, int] = field(default_factory=dict)  # the same by name of the input file


@dataclass(frozen=True)
class ShardRecord:
  """One shard of reduced vectors, with the documents that were rejected while it was written."""

  kind: ClassVar[str] = "shard"
  bucket: int
  vectors: StoredFile | None
  whitening_fingerprint: str  # empty where nothing was written
  truncated: int
  n_unknown: int
  n_tokens: int
  rejected: Mapping[str, int]
  files: tuple[StoredFile, ...]
  seconds: float
  rejected_by_file: Mapping[str, int] = field(default_factory=dict)
  clipped: int = 0  # components of distinct texts' int8 vectors that lay beyond their range
  long: int = 0  # rows whose text had more tokens than fit at once


@dataclass(frozen=True)
class WrittenRecord:
  """How many published rows come from each input file, in the order of the listing; one a run."""

  kind: ClassVar[str] = "written"
  rows: tuple[int, ...]


@dataclass(frozen=True)
class ComparedRecord:
  """One range of text digests as compared with the published run."""

  kind: ClassVar[str] = "compared"
  bucket: int
  unchanged: int  # rows that are the same in both
  problem: str | None  # why the published run's rows could not be read: then all of ours are upserted, none deleted


@dataclass(frozen=True)
class ChangesRecord:
  """The changes of one part of all ids, and the file that lists them."""

  kind: ClassVar[str] = "changes"
  part: int
  changes: StoredFile
  new: int
  changed: int
  gone: int


# What a step did with documents; all of them can reject some.
WorkRecord = SliceRecord | BucketRecord | ShardRecord
Record = WorkRecord | WrittenRecord | ComparedRecord | ChangesRecord
_KINDS: dict[str, Any] = {
  cls.kind: cls for cls in (SliceRecord, BucketRecord, ShardRecord, WrittenRecord, ComparedRecord, ChangesRecord)
}


@dataclass(frozen=True)
class Records:
  """All records of a run, sorted into kinds."""

  slices: tuple[SliceRecord, ...] = field(default=())
  buckets: tuple[BucketRecord, ...] = field(default=())
  shards: tuple[ShardRecord, ...] = field(default=())
  written: tuple[WrittenRecord, ...] = field(default=())
  compared: tuple[ComparedRecord, ...] = field(default=())
  changes: tuple[ChangesRecord, ...] = field(default=())

  @classmethod
  def of(cls, records: Iterable[Record]) -> "Records":
    """Sorts records by kind, each kind in a stable order."""
    found = list(records)
    return cls(
      tuple(sorted((r for r in found if isinstance(r, SliceRecord)), key=lambda r: (r.wave, r.file, r.begin))),
      tuple(sorted((r for r in found if isinstance(r, BucketRecord)), key=lambda r: r.bucket)),
      tuple(sorted((r for r in found if isinstance(r, ShardRecord)), key=lambda r: r.bucket)),
      tuple(r for r in found if isinstance(r, WrittenRecord)),
      tuple(sorted((r for r in found if isinstance(r, ComparedRecord)), key=lambda r: r.bucket)),
      tuple(sorted((r for r in found if isinstance(r, ChangesRecord)), key=lambda r: r.part)),
    )

  def all(self) -> tuple[WorkRecord, ...]:
    """Returns all records of work on documents, by kind."""
    return (*self.slices, *self.buckets, *self.shards)

  def rejected(self) -> Counter[str]:
    """Returns the number of rejected documents by reason, over all stages."""
    total: Counter[str] = Counter()
    for record in self.all():
      total.update(record.rejected)
    return total


def to_json_lines(records: Iterable[Record]) -> bytes:
  """Returns the records as JSON lines in a canonical order, so that equal records are equal bytes."""
  lines = sorted(json.dumps({"kind": r.kind, **dataclasses.asdict(r)}, sort_keys=True) for r in records)
  return "".join(f"{line}\n" for line in lines).encode()


def from_json_lines(data: bytes) -> list[Record]:
  """Reads what `to_json_lines` wrote."""
  return [_record(json.loads(line)) for line in data.splitlines()]


def _record(values: dict[str, Any]) -> Record:
  cls = _KINDS[values.pop("kind")]
  for name in ("files", "raw_files", "rows"):
    if name in values:
      values[name] = tuple(StoredFile(**v) if isinstance(v, dict) else v for v in values[name])
  for name in ("documents", "vectors", "changes"):
    if isinstance(values.get(name), dict):
      values[name] = StoredFile(**values[name])
  return cls(**values)
