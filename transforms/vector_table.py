"""The Parquet and Arrow tables of a run: token blocks, raw vectors, documents, reduced vectors.

Formats are described in docs/formats.md; `FORMAT_VERSION` is raised when a reader of the last one would misread a file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.digests import DIGEST_TYPE
from transforms.errors import DamagedFileError, StoreError

FORMAT_VERSION = 1
_VERSION_KEY = "sorbus.format_version"
# Readers that take one row group at a time (DuckDB, Polars, our search) hold 16 MB of it at K = 256.
ROW_GROUP_ROWS = 16_384
# Leaves of Parquet's tree that are columns of floats.
_NOISE = ("vector.", "probabilities.")
# Columns of ours, which no kept column may be called.
RESERVED_NAMES = frozenset(
  (
    "doc_id",
    "text_digest",
    "source_file",
    "source_position",
    "truncated",
    "n_unknown",
    "n_tokens",
    "input_ids",
    "vector",
  )
)

# Of `changes/*.parquet`: what a database that holds the base run has to do to hold this one.
CHANGES_SCHEMA = pa.schema(
  [pa.field("doc_id", pa.string(), nullable=False), pa.field("change", pa.string(), nullable=False)]
)


def block_schema(kept: pa.Schema) -> pa.Schema:
  """Returns the schema of a block of tokenised documents on their way to a bucket; `input_ids` may be windows."""
  fields = [
    pa.field("doc_id", pa.string()),
    pa.field("text_digest", DIGEST_TYPE),
    pa.field("source_file", pa.int32()),
    pa.field("source_position", pa.int64()),
    pa.field("truncated", pa.bool_()),
    pa.field("n_unknown", pa.int32()),
    pa.field("n_tokens", pa.int32()),
    pa.field("input_ids", pa.list_(pa.int32())),
  ]
  return pa.schema([*fields, *kept])


def documents_schema(kept: pa.Schema) -> pa.Schema:
  """Returns the schema of a bucket's documents: what is known of each but its vector."""
  fields = [
    pa.field("doc_id", pa.string()),
    pa.field("text_digest", DIGEST_TYPE),
    pa.field("source_file", pa.int32()),
    pa.field("source_position", pa.int64()),
  ]
  return pa.schema([*fields, *kept])


def raw_schema(hidden_size: int, n_labels: int = 0) -> pa.Schema:
  """Returns the schema of a raw file: one distinct text a row, raw vector float32 [H], a head's probabilities."""
  fields = [
    pa.field("text_digest", DIGEST_TYPE),
    pa.field("n_tokens", pa.int32()),
    pa.field("truncated", pa.bool_()),
    pa.field("n_unknown", pa.int32()),
    pa.field("vector", pa.list_(pa.float32(), hidden_size)),
  ]
  if n_labels:
    fields.append(pa.field("probabilities", pa.list_(pa.float32(), n_labels)))
  return pa.schema(fields)


def vectors_schema(
  n_components: int, kept: pa.Schema, predicted: Sequence[pa.Field] = (), vector_type: str = "float32"
) -> pa.Schema:
  """Returns the schema of a published shard: one document a row, reduced vector [K], what a head predicts."""
  fields = [
    pa.field("doc_id", pa.string(), nullable=False),
    pa.field("vector", pa.list_(pa.from_numpy_dtype(vector_type), n_components), nullable=False),
    pa.field("n_tokens", pa.int32(), nullable=False),
    pa.field("truncated", pa.bool_(), nullable=False),
    pa.field("n_unknown", pa.int32(), nullable=False),
    pa.field("text_digest", DIGEST_TYPE, nullable=False),
  ]
  return pa.schema([*fields, *predicted, *kept])


def to_vectors(matrix: np.ndarray, vector_type: str = "float32") -> pa.FixedSizeListArray:
  """Wraps a matrix [N, K] of that type as a fixed-size list array [N] without copying its values."""
  flat = pa.array(np.ascontiguousarray(matrix, dtype=vector_type).reshape(-1))
  return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def from_vectors(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
  """Returns a fixed-size list column [N] as a matrix [N, K] of its type: float32, float16 or int8."""
  array = column
  if isinstance(column, pa.ChunkedArray):  # one chunk is taken as it is: combining would copy it
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
  return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)


def to_ipc(table: pa.Table) -> bytes:
  """Serialises a block for a shuffle: Arrow IPC with zstd inside, which halves what the local runner holds."""
  sink = pa.BufferOutputStream()
  with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
    writer.write_table(table)
  return sink.getvalue().to_pybytes()


def from_ipc(blocks: Sequence[bytes], schema: pa.Schema) -> pa.Table:
  """Reads the blocks of one key into one table."""
  tables = [pa.ipc.open_stream(block).read_all() for block in blocks]
  return pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()


def to_parquet(table: pa.Table, metadata: Mapping[str, str]) -> bytes:
  """Returns a whole Parquet file with string metadata; equal tables give equal bytes."""
  sink = pa.BufferOutputStream()
  with parquet_writer(sink, table.schema, metadata) as writer:
    writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
  return sink.getvalue().to_pybytes()


def parquet_writer(sink: Any, schema: pa.Schema, metadata: Mapping[str, str]) -> pq.ParquetWriter:
  """Returns a writer of a Parquet file of ours with string metadata, to be closed by `with`.

  Vectors and probabilities are left uncompressed, as the mantissas of floats are noise to a compressor, and without
  statistics: nobody looks for the pages in which some component is large, and finding it takes a good part of writing.
  Vectors of int8 are compressed, and by a dictionary: else Parquet would store each number in four bytes.
  """
  texts = {_VERSION_KEY: str(FORMAT_VERSION), **{f"sorbus.{key}": value for key, value in metadata.items()}}
  paths = _leaf_paths(schema)
  small = [_is_list(field.type) and pa.types.is_int8(field.type.value_type) for field in schema]
  noise = tuple(name for name, is_small in zip(paths, small, strict=True) if name.startswith(_NOISE) and not is_small)
  compression = {name: "NONE" if name in noise else "ZSTD" for name in paths}
  return pq.ParquetWriter(
    sink,
    schema.with_metadata(texts),
    compression=compression,
    use_dictionary=[name for name in paths if not name.startswith((*noise, "doc_id", "text_digest"))],
    write_statistics=[name for name in paths if not name.startswith(_NOISE)],
  )


def _leaf_paths(schema: pa.Schema) -> list[str]:
  return [f"{field.name}.list.element" if _is_list(field.type) else field.name for field in schema]


def _is_list(kind: pa.DataType) -> bool:
  return pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)


def read_parquet(data: bytes, path: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
  """Reads a Parquet file of ours and checks that it is what its place in the dataset promises.

  Raises:
    DamagedFileError: `path` is no Parquet file any more, or of another schema.
    StoreError: it is of another format version.
  """
  try:
    file = pq.ParquetFile(pa.BufferReader(data))
    table = file.read(columns=None if columns is None else list(columns))
  except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names that are not UTF-8 any more
    raise DamagedFileError(f"{path}: damaged ({error}); run again to make it anew") from error
  version = (file.schema_arrow.metadata or {}).get(_VERSION_KEY.encode(), b"none").decode()
  if version != str(FORMAT_VERSION):
    raise StoreError(
      f"{path}: format version {version}, this Sorbus reads {FORMAT_VERSION}; use the Sorbus that wrote it"
    )
  found = file.schema_arrow.remove_metadata()
  if not found.equals(schema):  # all columns: who asks for one counts on the others
    raise DamagedFileError(
      f"{path}: columns {found.to_string()!r}, expected {schema.to_string()!r}; run again to make it anew"
    )
  return table
