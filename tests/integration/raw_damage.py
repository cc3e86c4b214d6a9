"""Damage to a store of raw files, of every kind, done with pyarrow and the file system alone."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.integration.run_files import raw_files

# What a kind of damage does to a file, given another one; it returns the files that no run may count on any more.
Damage = Callable[[Path, Path, np.random.Generator], set[str]]


def held_texts(dataset: Path) -> dict[str, set[bytes]]:
  """The digests that each raw file holds, of those which are whole and not marked."""
  return {
    path.name: set(pq.read_table(path, columns=["text_digest"])["text_digest"].to_pylist())
    for path in raw_files(dataset)
    if is_sound(path)
  }


def is_sound(path: Path) -> bool:
  """Whether a raw file is what its name says, has its columns, and no mark."""
  whole = path.stem.endswith(f"-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}")
  return whole and not mark_of(path).exists() and pq.read_schema(path).field("vector").type.value_type == pa.float32()


def mark_of(path: Path) -> Path:
  """The mark of a raw file, there or not."""
  return path.with_name(f"{path.name}.damaged")


def cut(path: Path, other: Path, rng: np.random.Generator) -> set[str]:
  """Leaves the beginning."""
  path.write_bytes(path.read_bytes()[: rng.integers(1, path.stat().st_size)])
  return {path.name}


def flip(path: Path, other: Path, rng: np.random.Generator) -> set[str]:
  """Changes one byte, anywhere."""
  data = bytearray(path.read_bytes())
  data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
  path.write_bytes(data)
  return {path.name}


def empty(path: Path, other: Path, rng: np.random.Generator) -> set[str]:
  """Leaves no byte."""
  path.write_bytes(b"")
  return {path.name}


def grow(path: Path, other: Path, rng: np.random.Generator) -> set[str]:
  """Adds bytes at the end."""
  path.write_bytes(path.read_bytes() + rng.bytes(7))
  return {path.name}


def delete(path: Path, other: Path, rng: np.random.Generator) -> set[str]:
  """Takes the file away."""
  path.unlink()
  return {path.name}


def swap(path: Path, other: Path, rng: np.random.Generator) -> set[str]:
  """Gives two files each other's content."""
  data = path.read_bytes()
  path.write_bytes(other.read_bytes())
  other.write_bytes(data)
  return {path.name, other.name}


def spoil_digests(path: Path, other: Path, rng: np.random.Generator) -> set[str]:
  """Leaves a file that can be read, with digests of texts that it has never held, some of them of its range."""
  table, wrong = pq.read_table(path), pq.read_table(other)["text_digest"].combine_chunks()
  digests = wrong.take(pa.array(rng.integers(len(wrong), size=len(table))))
  pq.write_table(table.set_column(0, "text_digest", digests), path)
  return {path.name}


def widen(path: Path, other: Path, rng: np.random.Generator) -> set[str]:
  """Writes the vectors as float64, under a name that goes with the bytes."""
  table = pq.read_table(path)
  kind = pa.list_(pa.float64(), table.schema.field("vector").type.list_size)
  return replace(path, table.set_column(4, "vector", table["vector"].cast(kind)))


def mark(path: Path, other: Path, rng: np.random.Generator) -> set[str]:
  """Marks a file that is whole, and one that is not there."""
  mark_of(path).touch()
  mark_of(path.with_name(f"all-r0-{rng.bytes(8).hex()}.parquet")).touch()
  return {path.name}


def replace(path: Path, table: pa.Table) -> set[str]:
  """Writes a table in place of a file, under a name that goes with its bytes."""
  sink = pa.BufferOutputStream()
  pq.write_table(table, sink)
  data = sink.getvalue().to_pybytes()
  name = f"{path.stem.rpartition('-')[0]}-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
  path.unlink()
  path.with_name(name).write_bytes(data)
  return {path.name, name}


KINDS: tuple[Damage, ...] = (cut, flip, empty, grow, delete, swap, spoil_digests, widen, mark)
