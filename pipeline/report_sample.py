"""Read a bounded sample of a run for its report: token lengths of many rows, vectors and texts of few. No Beam.

Shards are buckets of text digests, so that any of them hold a uniform sample of the distinct texts. Which ones, and
which of their rows, follows from the manifest and a fixed seed: a report made again shows the same.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.dataset import Dataset
from pipeline.published_rows import PublishedRows
from transforms.digests import ALL_DIGESTS, DigestRange, bucket_of, from_arrow
from transforms.errors import DamagedFileError, StoreError
from transforms.raw_store import RawStore, locate, range_of, vectors_of

MAX_SHARDS = 32  # that are opened, each a few requests where the dataset is an object store
MAX_ROWS = 1_000_000  # whose lengths are counted, as many of each shard: the first, which are sorted by digest
MAX_VECTORS = 8192  # whose neighbours are looked for
MAX_RAW = 4096  # whose raw vectors are read
MAX_RAW_FILES = 32  # of at most 64 MB each, and mostly far less
SEED = 7
_NUMBERS = ("n_tokens", "truncated", "n_unknown")
_OF_SAMPLE = ("doc_id", "text_digest", "vector")
_N_WORST = 5


@dataclass
class RowSample:
  """What a sample of the published rows holds.

  Attributes:
    rows: how many rows were counted; with `is_whole`, all there are.
    lengths: rows by their number of tokens, special ones included.
    truncated: of them, rows whose text was longer than the encoder takes.
    with_unknown: of them, rows with an unknown token.
    worst: (share of unknown tokens, doc_id, number of unknown) of the rows with the largest share, worst first.
    doc_ids: of the few rows with vectors, [S].
    digests: of their texts, S16 [S].
    vectors: reduced, float32 [S, K], of length 1.
    texts: as far as a kept column has them; None where no text is asked for, or none is kept.
  """

  rows: int = 0
  is_whole: bool = True
  lengths: Counter[int] = field(default_factory=Counter)
  truncated: int = 0
  with_unknown: int = 0
  worst: list[tuple[float, str, int]] = field(default_factory=list)
  doc_ids: list[str] = field(default_factory=list)
  digests: NDArray[Any] = field(default_factory=lambda: np.empty(0, "S16"))
  vectors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
  texts: list[str] | None = None

  @property
  def mean(self) -> float:
    """Tokens of a row, on average."""
    return sum(length * number for length, number in self.lengths.items()) / max(self.rows, 1)

  def quantile(self, share: float) -> int:
    """Returns the number of tokens that this share of the rows has at most; 0 where there are none."""
    below = 0
    for length in sorted(self.lengths):
      below += self.lengths[length]
      if below >= share * self.rows:
        return length
    return 0


def text_columns(manifest: Mapping[str, Any]) -> list[str]:
  """Returns the kept columns that have a document's text: those it was encoded from, or else other strings."""
  kept = {name: kind for name, kind in manifest["kept_columns"].items() if name != "parent_id"}  # that of a chunk
  strings = [name for name, kind in kept.items() if kind in ("string", "large_string")]
  encoded = manifest["options"].get("text_columns") or ["text"]
  return [name for name in encoded if name in strings] or strings[:1]


def sample_rows(dataset: Dataset, manifest: Mapping[str, Any], texts: Sequence[str] = ()) -> RowSample:
  """Reads a sample of a run's shards, a row group in memory at a time.

  Args:
    dataset: an open dataset.
    manifest: of the run.
    texts: kept columns whose values are a document's text; none to read no text.

  Raises:
    StoreError: a shard is missing or damaged.
  """
  shards = manifest["files"]["vectors"]
  chosen = [shards[i] for i in _spread(len(shards), MAX_SHARDS)]
  most = max(1, MAX_ROWS // max(len(chosen), 1))
  rows = sum(min(file["rows"], most) for file in chosen)
  sample, pieces, generator = RowSample(), [], np.random.default_rng(SEED)
  share = min(1.0, MAX_VECTORS / max(rows, 1))
  for group in _row_groups(dataset, chosen, [*_NUMBERS, *_OF_SAMPLE, *texts], most):
    _count(sample, group)
    taken = np.flatnonzero(generator.random(len(group)) < share)
    pieces.append(group.select([*_OF_SAMPLE, *texts]).take(taken))
  sample.is_whole = sample.rows == sum(file["rows"] for file in shards)
  if pieces:
    table = pa.concat_tables(pieces)
    _keep(sample, table, PublishedRows(dataset, manifest).vectors(table), texts)
  return sample


def _spread(n: int, most: int) -> list[int]:
  """Returns up to `most` of n indices, evenly spread."""
  return sorted({round(i) for i in np.linspace(0, n - 1, min(n, most))}) if n else []


def _row_groups(
  dataset: Dataset, shards: Sequence[Mapping[str, Any]], columns: Sequence[str], most: int
) -> Iterator[pa.Table]:
  """Yields the first `most` rows of each shard."""
  for file in shards:
    path = file["path"]
    try:
      with dataset.storage.open(path) as opened, pq.ParquetFile(opened) as parquet:
        left = most
        for i in range(parquet.num_row_groups):
          if left <= 0:
            break
          group = parquet.read_row_group(i, columns=list(columns), use_threads=False).slice(0, left)
          left -= len(group)
          yield group
    except (OSError, pa.ArrowException) as error:
      raise StoreError(
        f"{dataset.storage.root}/{path}: missing or damaged ({error}); embed again with --again"
      ) from error


def _count(sample: RowSample, group: pa.Table) -> None:
  n_tokens, truncated, unknown = (group[name].to_numpy() for name in _NUMBERS)
  sample.rows += len(group)
  sample.lengths.update(dict(zip(*(a.tolist() for a in np.unique(n_tokens, return_counts=True)), strict=True)))
  sample.truncated += int(truncated.sum())
  sample.with_unknown += int((unknown > 0).sum())
  shares = unknown / np.maximum(n_tokens, 1)
  worst = [int(i) for i in np.argsort(-shares, kind="stable")[:_N_WORST] if shares[i] > 0]
  found = [(float(shares[i]), group["doc_id"][i].as_py(), int(unknown[i])) for i in worst]
  sample.worst = sorted([*sample.worst, *found], key=lambda row: (-row[0], row[1]))[:_N_WORST]


def _keep(sample: RowSample, table: pa.Table, vectors: NDArray[np.float32], texts: Sequence[str]) -> None:
  sample.doc_ids = table["doc_id"].to_pylist()
  sample.digests = from_arrow(table["text_digest"])
  sample.vectors = vectors
  if texts:
    columns = [table[name].to_pylist() for name in texts]
    sample.texts = ["\n".join(filter(None, row)) for row in zip(*columns, strict=True)]


def raw_vectors(
  dataset: Dataset, manifest: Mapping[str, Any], digests: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
  """Returns what the store has of digests S16 [S], each text once: (indices into them [M], raw vectors float32 [M, H]).

  Takes bucket by bucket until MAX_RAW vectors are found or MAX_RAW_FILES were read. A file that is damaged
  is passed over: `sorbus verify` is for that.
  """
  H, n_labels = manifest["whitening"]["hidden_size"], len(manifest["encoder"].get("labels", ()))
  store = RawStore(dataset.storage, manifest["encoder"]["fingerprint"], H, n_labels)
  ordered, first = np.unique(digests, return_index=True)
  missing = np.ones(len(ordered), dtype=bool)
  found, vectors = [np.empty(0, np.int64)], [np.empty((0, H), np.float32)]
  for name in _raw_files(store, ordered, manifest["buckets"].bit_length() - 1):
    try:
      table = store.read(name, ["text_digest", "vector"])
    except DamagedFileError:
      continue
    indices, rows = locate(ordered, from_arrow(table["text_digest"]), missing)
    missing[indices] = False
    found.append(first[indices])
    vectors.append(vectors_of(table)[rows])
    if sum(map(len, found)) >= MAX_RAW:
      break
  return np.concatenate(found), np.concatenate(vectors)


def _raw_files(store: RawStore, digests: NDArray[Any], bits: int) -> list[str]:
  """Returns the raw files to look into for digests, those of one bucket after another, each once."""
  present = store.find(ALL_DIGESTS)
  buckets = [DigestRange(int(bucket), bits) for bucket in np.unique(bucket_of(digests, bits))]
  names = [name for bucket in buckets for name in present if range_of(name).overlaps(bucket.name)]
  return list(dict.fromkeys(names))[:MAX_RAW_FILES]
