"""The published run that a new one is compared with, as its manifest names it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transforms.errors import StoreError
from transforms.storage import StoredFile
from transforms.vector_types import FLOAT32, coding

_SHARD = re.compile(r"/part-(\d{5})-of-(\d{5})-[^/]*\.parquet$")


@dataclass(frozen=True)
class BaseShard:
  """One shard of published rows, and the bucket of 2**bits whose texts are in it."""

  bucket: int
  bits: int
  file: StoredFile


@dataclass(frozen=True)
class BaseRun:
  """A finished run: who made its vectors, and where its rows are.

  Attributes:
    run_id: its id.
    encoder_fingerprint: of the encoder.
    whitening_fingerprint: of the map that its raw vectors went through.
    shards: its published rows, by bucket; once a run has started that is compared with it a `PlannedList`.
    coding: in which numbers its vectors are stored (`vector_types.py`).
  """

  run_id: str
  encoder_fingerprint: str
  whitening_fingerprint: str
  shards: Sequence[BaseShard]
  coding: str = FLOAT32

  @classmethod
  def of(cls, manifest: Mapping[str, Any]) -> "BaseRun":
    """Returns the run of a manifest that its reader has checked; raises StoreError for a shard without its bucket."""
    shards = tuple(_shard(manifest["run_id"], _stored(file)) for file in manifest["files"]["vectors"])
    whitening = manifest["whitening"].get("fingerprint", "")  # none where it was refused: then there are no shards
    stored = coding(vector_type_of(manifest), manifest["whitening"].get("ranges", ""))
    return cls(manifest["run_id"], manifest["encoder"]["fingerprint"], whitening, shards, stored)

  @property
  def bits(self) -> int:
    """How many bits of a digest choose its shard; 0 where there is none."""
    return min((shard.bits for shard in self.shards), default=0)


def vector_type_of(manifest: Mapping[str, Any]) -> str:
  """Returns the type of a run's vectors; those of an older Sorbus do not say it."""
  return str(manifest.get("vectors", {}).get("type", FLOAT32))


def _stored(file: Mapping[str, Any]) -> StoredFile:
  """Returns a file as a manifest names it; whatever else is said of it there is passed by, as everywhere."""
  return StoredFile(file["path"], file["rows"], file["bytes"], file["sha256"])


def _shard(run_id: str, file: StoredFile) -> BaseShard:
  match = _SHARD.search(file.path)
  count = int(match[2]) if match else 0
  if match is None or count & (count - 1) or int(match[1]) >= count:
    raise StoreError(f"{file.path}: no name of a shard of run {run_id}; its manifest was edited")
  return BaseShard(int(match[1]), count.bit_length() - 1, file)
