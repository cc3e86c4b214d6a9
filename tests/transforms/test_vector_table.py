import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.digests import digest_array, to_arrow
from transforms.errors import DamagedFileError, StoreError
from transforms.predictions import Predictions
from transforms.vector_table import (
  RESERVED_NAMES,
  ROW_GROUP_ROWS,
  block_schema,
  documents_schema,
  from_ipc,
  from_vectors,
  raw_schema,
  read_parquet,
  to_ipc,
  to_parquet,
  to_vectors,
  vectors_schema,
)

KEPT = pa.schema([pa.field("lang", pa.string()), pa.field("year", pa.int64())])


def raw_table(n=5, H=3, seed=0):
  matrix = np.random.default_rng(seed).normal(size=(n, H)).astype(np.float32)
  digests = to_arrow(digest_array(map(str, range(n))))
  counts = pa.array(np.arange(n, dtype=np.int32))
  columns = [digests, counts, pa.array([i % 2 == 0 for i in range(n)]), counts, to_vectors(matrix)]
  return pa.table(columns, schema=raw_schema(H))


def test_schemas():
  assert block_schema(KEPT).names == [
    *("doc_id", "text_digest", "source_file", "source_position", "truncated", "n_unknown", "n_tokens", "input_ids"),
    *("lang", "year"),
  ]
  assert documents_schema(KEPT).names == ["doc_id", "text_digest", "source_file", "source_position", "lang", "year"]
  assert raw_schema(768).names == ["text_digest", "n_tokens", "truncated", "n_unknown", "vector"]
  vectors = vectors_schema(256, KEPT)
  assert [(f.name, str(f.type), f.nullable) for f in vectors] == [
    ("doc_id", "string", False),
    ("vector", "fixed_size_list<item: float>[256]", False),
    ("n_tokens", "int32", False),
    ("truncated", "bool", False),
    ("n_unknown", "int32", False),
    ("text_digest", "fixed_size_binary[16]", False),
    ("lang", "string", True),
    ("year", "int64", True),
  ]


def test_schemas_of_an_encoder_with_a_head():
  assert raw_schema(768, 3).field("probabilities").type == pa.list_(pa.float32(), 3)
  predicted = Predictions(("a", "b"), 0.5).fields
  assert [(f.name, str(f.type), f.nullable) for f in vectors_schema(256, KEPT, predicted)][5:9] == [
    ("text_digest", "fixed_size_binary[16]", False),
    ("probabilities", "fixed_size_list<item: float>[2]", False),
    ("labels", "list<item: string>", False),
    ("lang", "string", True),
  ]


def test_probabilities_are_not_compressed_and_a_kept_column_of_that_name_is():
  ours = vectors_schema(2, KEPT, Predictions(("a", "b"), 0.5).fields)
  theirs = vectors_schema(2, pa.schema([pa.field(name, pa.string()) for name in ("probabilities", "labels", "lang")]))
  compressions = []
  for schema in (ours, theirs):
    row = {"doc_id": "x", "vector": [1, 0], "n_tokens": 3, "truncated": False, "n_unknown": 0, "lang": "en", "year": 1}
    row["text_digest"] = bytes(16)
    texts = {"probabilities": "p", "labels": "l"} if schema is theirs else {"probabilities": [0, 1], "labels": ["b"]}
    data = to_parquet(pa.Table.from_pylist([row | texts], schema=schema), {})
    assert read_parquet(data, "f", schema).num_rows == 1
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    compressions.append({c.path_in_schema: c.compression for c in columns if c.path_in_schema[0] in "lp"})
  assert compressions == [
    {"probabilities.list.element": "UNCOMPRESSED", "labels.list.element": "ZSTD", "lang": "ZSTD"},
    {"probabilities": "ZSTD", "labels": "ZSTD", "lang": "ZSTD"},
  ]


def test_every_column_of_ours_is_reserved():
  none = pa.schema([])
  schemas = [block_schema(none), documents_schema(none), raw_schema(2), vectors_schema(2, none)]
  assert {name for schema in schemas for name in schema.names} == RESERVED_NAMES


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (5, 3)])
def test_vectors_round_trip(shape):
  matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  column = to_vectors(matrix)
  assert from_vectors(column).tobytes() == matrix.tobytes() and from_vectors(column).shape == shape
  assert from_vectors(pa.chunked_array([column, column])).shape == (2 * shape[0], shape[1])


def test_a_slice_of_vectors_is_that_slice():
  matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
  assert (from_vectors(to_vectors(matrix).slice(1, 2)) == matrix[1:3]).all()
  assert (from_vectors(to_vectors(np.asfortranarray(matrix)[:, ::2])) == matrix[:, ::2]).all()


def test_blocks_round_trip():
  table = raw_table()
  assert from_ipc([to_ipc(table[:2]), to_ipc(table[2:])], table.schema).equals(table)
  assert from_ipc([], table.schema).equals(table[:0])
  zeros = pa.table({"a": pa.array(np.zeros(10_000))})
  assert len(to_ipc(zeros)) < 2000  # compressed inside


def test_parquet_round_trip():
  table = raw_table()
  data = to_parquet(table, {"run_id": "r1"})
  assert read_parquet(data, "f", table.schema).equals(table)
  assert read_parquet(data, "f", table.schema, ["n_tokens"]).equals(table.select(["n_tokens"]))
  metadata = pq.ParquetFile(io.BytesIO(data)).schema_arrow.metadata
  assert metadata == {b"sorbus.format_version": b"1", b"sorbus.run_id": b"r1"}


def test_an_empty_table_round_trips():
  table = raw_table()[:0]
  assert read_parquet(to_parquet(table, {}), "f", table.schema).equals(table)


def test_equal_tables_give_equal_bytes():
  table = raw_table(1000)
  chunked = pa.concat_tables([table[:7], table[7:500], table[500:]])
  data = to_parquet(table, {"a": "b"})
  assert to_parquet(chunked, {"a": "b"}) == to_parquet(raw_table(1000), {"a": "b"}) == data
  assert data not in (to_parquet(table, {"a": "c"}), to_parquet(raw_table(1000, seed=1), {"a": "b"}))


def test_row_groups_are_sized_for_readers_and_vectors_are_not_compressed():
  n = ROW_GROUP_ROWS + 10
  file = pq.ParquetFile(io.BytesIO(to_parquet(raw_table(n), {})))
  assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [ROW_GROUP_ROWS, 10]
  group = file.metadata.row_group(0)
  columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
  assert {name: column.compression for name, column in columns.items()} == {
    "text_digest": "ZSTD",
    "n_tokens": "ZSTD",
    "truncated": "ZSTD",
    "n_unknown": "ZSTD",
    "vector.list.element": "UNCOMPRESSED",
  }
  assert not any("DICTIONARY" in encoding for encoding in columns["vector.list.element"].encodings)


@pytest.mark.parametrize(("kind", "most"), [("float32", 4.1), ("float16", 2.1), ("int8", 1.1)])
def test_a_component_takes_the_bytes_of_its_type(kind, most):
  """Parquet knows no whole number of less than four bytes; a dictionary makes one of them."""
  matrix = np.random.default_rng(0).normal(scale=30, size=(5000, 64)).clip(-127, 127).astype(kind)
  schema = pa.schema([("vector", pa.list_(pa.from_numpy_dtype(kind), 64))])
  data = to_parquet(pa.table([to_vectors(matrix, kind)], schema=schema), {})
  assert len(data) < most * matrix.size
  assert from_vectors(pq.read_table(io.BytesIO(data))["vector"]).tobytes() == matrix.tobytes()


def test_statistics_are_of_every_column_but_vectors():
  group = pq.ParquetFile(io.BytesIO(to_parquet(raw_table(), {}))).metadata.row_group(0)
  without = [c.path_in_schema for c in map(group.column, range(group.num_columns)) if not c.is_stats_set]
  assert without == ["vector.list.element"]


def test_a_column_of_one_chunk_is_not_copied():
  column = pa.chunked_array([to_vectors(np.ones((4, 3), np.float32))[1:]])
  assert np.shares_memory(from_vectors(column), column.chunk(0).values.to_numpy())
  assert from_vectors(pa.chunked_array([], column.type)).shape == (0, 3)


def test_another_format_version_is_refused():
  for metadata, found in [(None, "none"), ({"sorbus.format_version": "2"}, "2")]:
    sink = io.BytesIO()
    pq.write_table(raw_table().replace_schema_metadata(metadata), sink)
    with pytest.raises(StoreError) as error:
      read_parquet(sink.getvalue(), "raw/f.parquet", raw_schema(3))
    assert type(error.value) is StoreError  # not damaged: it may not be replaced
    assert str(error.value) == (
      f"raw/f.parquet: format version {found}, this Sorbus reads 1; use the Sorbus that wrote it"
    )


def test_another_schema_is_refused():
  data = to_parquet(raw_table(H=3), {})
  with pytest.raises(DamagedFileError, match=r"^raw/f\.parquet: columns .*expected .*run again to make it anew$"):
    read_parquet(data, "raw/f.parquet", raw_schema(4))
  with pytest.raises(StoreError, match=r"^raw/f\.parquet: columns"):
    read_parquet(data, "raw/f.parquet", documents_schema(KEPT))


def test_damaged_bytes_are_refused():
  data = to_parquet(raw_table(100), {})
  damaged = [b"", b"PAR1", b"nothing of the kind", data[:-1], data[: len(data) // 2], data[:-8] + b"\xff" * 4 + b"PAR1"]
  for bad in damaged:
    with pytest.raises(DamagedFileError, match=r"^raw/f\.parquet: damaged \("):
      read_parquet(bad, "raw/f.parquet", raw_schema(3))
  footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
  for i in range(footer, len(data)):  # whatever a flipped byte does there, the error is ours
    flipped = bytearray(data)
    flipped[i] ^= 0xFF
    try:
      read_parquet(bytes(flipped), "raw/f.parquet", raw_schema(3))
    except StoreError as error:
      assert str(error).startswith("raw/f.parquet: ")
