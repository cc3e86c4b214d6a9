"""What a run needs at sizes that nobody has measured: formulas, fed from the code's constants and from measurements.

  python -m benchmarks.scale --paper

prints the table of docs/scaling.md, which a test holds to it. Everything is of one run without kept columns, on a
cluster, with ids from a column; a night finds 98 % of the texts known.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import read_results
from pipeline.planning import BUCKET_TEXT_BYTES
from transforms.digests import DIGEST_BYTES, MAX_BITS
from transforms.input_slices import SLICE_BYTES
from transforms.read_documents import _BUFFER_BYTES as BUFFER_BYTES
from transforms.read_raw_blocks import group_bits
from transforms.settle_ids import ID_SCHEMA

SIZES = {"1 M": 10**6, "100 M": 10**8, "10 G": 10**10}
HIDDEN_SIZE = 384
# Assumed: paragraphs as in benchmarks/nights.py, which also says how many of them are distinct, and change in a night.
TEXT_BYTES, ID_BYTES, TOKENS, SHARE_DISTINCT, SHARE_NEW = 270, 20, 64, 0.98, 0.02
# Measured on 1,619 paragraphs of 207 bytes: a block's Arrow header, what a byte of text is in a block with zstd inside,
# and, in Parquet, a document's row and what a vector's has beside it; vectors are random, so nothing shrinks them.
BLOCK_HEADER_BYTES, BLOCK_BYTES_PER_TEXT_BYTE, KNOWN_BYTES = 1300, 0.43, 23
DOCUMENTS_FILE_BYTES, RAW_BYTES, VECTORS_BYTES = 24, 4 * HIDDEN_SIZE + 23, 4 * 256 + 24
# By its schema, as it lies in memory; in a block zstd leaves about two thirds of it.
ID_ROW_BYTES = sum(field.type.bit_width for field in ID_SCHEMA) // 8
# In memory: a document's row of a block, and of the list of records that the last step holds, pickled.
ROW_BYTES = 4 * TOKENS + 100
RECORD_BYTES = {"slice": 160, "bucket": 540, "shard": 440, "compared": 100}


@functools.cache
def measured(name: str) -> Any:
  """Returns what a benchmark measured."""
  return read_results(name)


def texts_per_core_second() -> float:
  """Returns what one core encodes: all-MiniLM-L6-v2 on two of them, from benchmarks/nights.py."""
  return float(measured("nights")["texts_per_second"]) / 2


def night_cpu_seconds() -> float:
  """Returns the CPU seconds a document costs in a night that encodes nothing: of the largest run measured."""
  nights = [run for run in measured("scale")["runs"] if run["night"] == 2 and run["ids"] == "column"]
  largest = max(nights, key=lambda run: run["documents"])
  return float(largest["cpu_seconds"]) / int(largest["documents"])


@dataclass(frozen=True)
class Paper:
  """One size on paper: `n` documents. Bytes and seconds, unless it says otherwise."""

  n: int

  @property
  def text_bytes(self) -> int:
    """Of the input."""
    return self.n * TEXT_BYTES

  @property
  def distinct(self) -> int:
    """Texts."""
    return int(self.n * SHARE_DISTINCT)

  @property
  def slices(self) -> int:
    """Of one large file each or of many: as `cut_slices` has it."""
    return math.ceil(self.text_bytes / SLICE_BYTES)

  @property
  def bits(self) -> int:
    """As `choose_bits` has it."""
    return min((max(self.text_bytes // BUCKET_TEXT_BYTES, 1) - 1).bit_length(), MAX_BITS)

  @property
  def buckets(self) -> int:
    """Of text digests."""
    return 1 << self.bits

  @property
  def blocks(self) -> int:
    """Blocks that cross the one shuffle of documents: at each flush, one for each bucket that has a row."""
    rows = min(BUFFER_BYTES / ROW_BYTES, SLICE_BYTES / TEXT_BYTES, self.n)
    filled = self.buckets * -math.expm1(rows * math.log1p(-1 / self.buckets)) if self.bits else 1
    return round(self.n / rows * filled)

  def shuffle_bytes(self, share_new: float) -> float:
    """Of documents: with tokens those that are new, without the others."""
    tokens = self.n * share_new * TEXT_BYTES * BLOCK_BYTES_PER_TEXT_BYTE + self.n * (1 - share_new) * KNOWN_BYTES
    return tokens + self.blocks * BLOCK_HEADER_BYTES

  @property
  def id_parts(self) -> int:
    """As `RunPlan.id_bits` has it."""
    return 1 << min(self.bits, max(6, self.bits - 6))

  def accumulators(self, hidden_size: int) -> int:
    """Moments that are shipped to one key."""
    return 1 << group_bits(self.bits, hidden_size)

  @property
  def records_bytes(self) -> int:
    """Of the list that the last step holds."""
    sizes = RECORD_BYTES
    return self.slices * sizes["slice"] + self.buckets * (sizes["bucket"] + sizes["shard"] + sizes["compared"])

  @property
  def requests(self) -> int:
    """To an object store in a night: of a bucket's files each is read or written a few times, and the store listed."""
    names = math.ceil(self.buckets / 1000)  # a raw file a bucket, as gc leaves them
    # documents: written, read by settle-ids, moments, write; raw: read by encode, moments, write, and by the glance;
    # vectors: written, read by find-changes, and the base run's; each bucket lists the store once.
    return self.slices * 2 + self.buckets * (4 + 4 + 3 + names) + names


Row = tuple[str, str, Callable[[Paper], str]]


def rows() -> list[Row]:
  """Returns the rows of the table: what, by which formula, and its value."""
  h, per_core = HIDDEN_SIZE, texts_per_core_second()
  moments = {width: 8 * width**2 for width in (384, 768)}
  return [
    ("text", f"{TEXT_BYTES} B a document", lambda p: size(p.text_bytes)),
    ("slices", "64 MiB each", lambda p: number(p.slices)),
    ("buckets", "4 MiB of text each, 65,536 at the most", lambda p: number(p.buckets)),
    ("text of a bucket", "text / buckets", lambda p: size(p.text_bytes / p.buckets)),
    ("shuffle, first night", "0.43 B a byte of text, 1.3 kB a block", lambda p: size(p.shuffle_bytes(1))),
    ("shuffle, a night", "23 B a known text, 2 % are new", lambda p: size(p.shuffle_bytes(SHARE_NEW))),
    ("of it headers of blocks", "1.3 kB × blocks", lambda p: size(p.blocks * BLOCK_HEADER_BYTES)),
    ("settle-ids shuffle", f"{ID_ROW_BYTES} B a document, 1.3 kB a block", lambda p: size(id_shuffle(p))),
    ("ids of one part", f"{ID_ROW_BYTES} B × documents / parts", lambda p: size(p.n * ID_ROW_BYTES / p.id_parts)),
    ("raw store", f"4 H + 23 = {RAW_BYTES:,} B a distinct text", lambda p: size(p.distinct * RAW_BYTES)),
    ("output", f"4 K + 24 = {VECTORS_BYTES:,} B a row", lambda p: size(p.n * VECTORS_BYTES)),
    ("documents files", f"{DOCUMENTS_FILE_BYTES} B a document", lambda p: size(p.n * DOCUMENTS_FILE_BYTES)),
    ("moments, one a bucket", "8 H² × buckets", lambda p: size(p.buckets * moments[h])),
    ("moments, by groups", "8 H² × groups", lambda p: f"{p.accumulators(h)} × {size(moments[h])}"),
    ("the same, H = 768", "", lambda p: f"{p.accumulators(768)} × {size(moments[768])}"),
    ("known digests, on each worker", "16 B a text, on disk", lambda p: size(p.distinct * DIGEST_BYTES)),
    ("the same, in the driver", "48 B a text, in memory", lambda p: size(p.distinct * 48)),
    ("records of the last step", "0.1 to 0.5 kB a record", lambda p: size(p.records_bytes)),
    ("a thread, in memory", "2 × a bucket's rows, raw rows of a flush", lambda p: size(thread_bytes(p))),
    ("object-store requests", "slices, buckets × (11 + listings)", lambda p: number(p.requests)),
    ("encoding, first night", f"{per_core:.1f} texts/s a core", lambda p: core_hours(p.distinct / per_core)),
    ("encoding, a night", "2 % of it", lambda p: core_hours(SHARE_NEW * p.distinct / per_core)),
    (
      "all else, a night",
      f"{night_cpu_seconds() * 1e6:,.0f} µs a document",
      lambda p: core_hours(p.n * night_cpu_seconds()),
    ),
  ]


def id_shuffle(p: Paper) -> float:
  """Returns the bytes of the blocks of ids, of which each bucket sends one to each part."""
  return p.n * ID_ROW_BYTES + p.buckets * p.id_parts * BLOCK_HEADER_BYTES


def thread_bytes(p: Paper) -> float:
  """Returns what one thread holds of a bucket while it encodes: its blocks, their table, and 64 MiB of raw rows."""
  return 2 * p.n / p.buckets * ROW_BYTES + (64 << 20)


def table() -> str:
  """Returns the table, in Markdown."""
  papers = [Paper(n) for n in SIZES.values()]
  lines = [
    "| | how | " + " | ".join(f"{name} documents" for name in SIZES) + " |",
    "| --- | --- |" + " ---: |" * len(SIZES),
  ]
  lines += [f"| {what} | {how} | " + " | ".join(value(p) for p in papers) + " |" for what, how, value in rows()]
  return "".join(f"{line}\n" for line in lines)


def number(value: float) -> str:
  """Returns a number with commas."""
  return f"{value:,.0f}"


def size(value: float) -> str:
  """Returns bytes in two or three digits."""
  for unit in ("B", "kB", "MB", "GB", "TB"):
    if value < 999.5 or unit == "TB":
      break
    value /= 1000
  return f"{value:,.1f} {unit}" if value < 9.95 else f"{value:,.0f} {unit}"


def core_hours(seconds: float) -> str:
  """Returns core hours."""
  hours = seconds / 3600
  return f"{hours:,.1f} core h" if hours < 9.95 else f"{hours:,.0f} core h"
