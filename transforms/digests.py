"""Digests of texts and ids, and the buckets that they fall into.

A text's digest is blake2b of 128 bits over its UTF-8 bytes: equal texts, equal digests; among 10¹⁰ texts two differing
ones share a digest with a probability under 10⁻¹⁸. A bucket is the first `bits` bits, so buckets nest: a bucket of 4
bits is the union of two of 5, and files written by a finer run are read by a coarser one.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

DIGEST_BYTES = 16
DIGEST_TYPE = pa.binary(DIGEST_BYTES)
MAX_BITS = 16


def digest(text: str) -> bytes:
  """Returns the 16-byte digest of a text or an id; raises UnicodeEncodeError for a lone surrogate."""
  return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def digest_array(texts: Iterable[str]) -> np.ndarray:
  """Returns the digests of `texts` as an S16 array [N] (compare and sort it; take bytes from it by `tobytes` only).

  NumPy drops trailing zero bytes when it hands out one item; equality and order are still those of all 16 bytes.
  """
  return np.frombuffer(b"".join(map(digest, texts)), dtype=f"S{DIGEST_BYTES}")


def to_arrow(digests: np.ndarray) -> pa.Array:
  """Wraps digests [N] (S16) as a fixed-size binary Arrow array [N] without copying."""
  return pa.FixedSizeBinaryArray.from_buffers(DIGEST_TYPE, len(digests), [None, pa.py_buffer(digests.tobytes())])


def from_arrow(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
  """Returns a fixed-size binary column [N] as an S16 array [N]."""
  array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
  if len(array) == 0:
    return np.empty(0, dtype=f"S{DIGEST_BYTES}")
  data = np.frombuffer(array.buffers()[1], dtype=f"S{DIGEST_BYTES}")
  return data[array.offset : array.offset + len(array)]


def bucket_of(digests: np.ndarray, bits: int) -> np.ndarray:
  """Returns the bucket int64 [N] of each digest [N] (S16): its first `bits` bits."""
  prefixes = np.frombuffer(digests.tobytes(), dtype=">u2").reshape(-1, DIGEST_BYTES // 2)[:, 0]
  return prefixes.astype(np.int64) >> (MAX_BITS - bits)


def is_among(wanted: np.ndarray, ordered: np.ndarray) -> np.ndarray:
  """Says of each of `wanted` [N] whether it is among `ordered` digests [M] (sorted): bool [N]."""
  if not len(ordered):
    return np.zeros(len(wanted), dtype=bool)
  at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
  return ordered[at] == wanted


@dataclass(frozen=True)
class DigestRange:
  """All digests that begin with `bits` given bits: bucket number `bucket` of 2**bits."""

  bucket: int
  bits: int

  @classmethod
  def named(cls, name: str) -> "DigestRange":
    """Returns the range called `name`."""
    return cls(0, 0) if name == "all" else cls(int(name, 2), len(name))

  @property
  def name(self) -> str:
    """The prefix in binary digits, such as '0010'; 'all' for the range of everything."""
    return format(self.bucket, f"0{self.bits}b") if self.bits else "all"

  def overlaps(self, name: str) -> bool:
    """Says whether the range called `name` shares a digest with this one: one prefix begins with the other."""
    ours, theirs = self.name, name
    return "all" in (ours, theirs) or ours.startswith(theirs) or theirs.startswith(ours)

  def within(self, digests: np.ndarray) -> np.ndarray:
    """Returns those of `digests` [N] (S16) that lie in this range."""
    return digests[bucket_of(digests, self.bits) == self.bucket]

  def buckets(self, bits: int) -> range:
    """Returns the buckets, of 2**bits, that share a digest with this range."""
    if self.bits >= bits:
      bucket = self.bucket >> (self.bits - bits)
      return range(bucket, bucket + 1)
    return range(self.bucket << (bits - self.bits), (self.bucket + 1) << (bits - self.bits))


ALL_DIGESTS = DigestRange(0, 0)
