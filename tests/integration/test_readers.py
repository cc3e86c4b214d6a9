"""The published Parquet opens with pyarrow, pandas, DuckDB and Polars; the vector is a fixed-size list in each."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, matrix, run_folder
from transforms.input_files import ReadOptions

N, K = 300, 8
OURS = ["doc_id", "vector", "n_tokens", "truncated", "n_unknown", "text_digest"]
KEPT = {
  "topic": pa.string(),
  "stars": pa.int16(),
  "price": pa.float64(),
  "is_new": pa.bool_(),
  "written_on": pa.date32(),
  "tags": pa.string(),  # lists in the input: nested values are kept as JSON
}


def kept_values(i):
  """The kept columns of document i; each is null in some."""
  values = {
    "topic": f"topic {i % 5}",
    "stars": i % 6,
    "price": i / 4,
    "is_new": i % 2 == 0,
    "written_on": datetime.date(2020, 1, 1) + datetime.timedelta(days=i),
    "tags": [f"tag {j}" for j in range(i % 3)],
  }
  return {name: None if i % 7 == 3 else value for name, value in values.items()}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """A run over Parquet input with kept columns: (its `vectors` folder, its manifest)."""
  folder = tmp_path_factory.mktemp("readers")
  texts = made_up_texts(N)
  rows = [{"id": f"{i:04d}", "text": texts[i], **kept_values(i)} for i in range(N)]
  types = KEPT | {"tags": pa.list_(pa.string())}
  schema = pa.schema([("id", pa.string()), ("text", pa.string()), *types.items()])
  (folder / "input").mkdir()
  pq.write_table(pa.Table.from_pylist(rows, schema), folder / "input/rows.parquet")
  outcome = embed_fake(
    FakeEncoder(make_vocabulary(texts), 16),
    folder / "dataset",
    folder / "input",
    read=ReadOptions(id_column="id", keep_columns=tuple(KEPT)),
    n_components=K,
    buckets=4,
    threads=1,
  )
  assert outcome.status == "published", outcome.manifest["verdicts"]
  return run_folder(folder / "dataset", outcome.manifest) / "vectors", outcome.manifest


@pytest.fixture(scope="module")
def expected(published):
  """What pyarrow reads: (doc ids, vectors float32 [N, K]), sorted by id."""
  table = pq.read_table(published[0]).sort_by("doc_id")
  return table["doc_id"].to_pylist(), matrix(table["vector"])


def test_pyarrow_reads_each_column_in_its_type(published, expected):
  folder, _ = published
  assert len(list(folder.iterdir())) == 4
  table = pq.read_table(folder).sort_by("doc_id")
  ours = [pa.string(), pa.list_(pa.float32(), K), pa.int32(), pa.bool_(), pa.int32(), pa.binary(16)]
  assert dict(zip(table.column_names, table.schema.types, strict=True)) == dict(zip(OURS, ours, strict=True)) | KEPT
  assert table["doc_id"].to_pylist() == [f"{i:04d}" for i in range(N)]
  rows = table.select(list(KEPT)).to_pylist()
  assert [row | {"tags": row["tags"] and json.loads(row["tags"])} for row in rows] == [kept_values(i) for i in range(N)]
  np.testing.assert_allclose(np.linalg.norm(expected[1], axis=1), 1, atol=1e-6)
  assert all(table[name].null_count == 0 for name in OURS)


def test_each_file_says_which_run_encoder_and_whitening_it_is_of(published):
  folder, manifest = published
  for path in folder.iterdir():
    metadata = pq.ParquetFile(path).schema_arrow.metadata
    assert {key: value.decode() for key, value in metadata.items() if key.startswith(b"sorbus.")} == {
      b"sorbus.format_version": "1",
      b"sorbus.run_id": manifest["run_id"],
      b"sorbus.encoder_fingerprint": manifest["encoder"]["fingerprint"],
      b"sorbus.whitening_fingerprint": manifest["whitening"]["fingerprint"],
    }


def test_pandas(published, expected):
  pandas = pytest.importorskip("pandas")
  frame = pandas.read_parquet(published[0]).sort_values("doc_id")
  assert frame["doc_id"].tolist() == expected[0]
  np.testing.assert_array_equal(np.stack(frame["vector"]), expected[1])
  assert frame["vector"].iloc[0].dtype == np.float32


def test_duckdb(published, expected):
  """DuckDB takes every list in a Parquet file for a LIST; the cast to ARRAY fails if one has another length."""
  duckdb = pytest.importorskip("duckdb")
  with duckdb.connect() as connection:
    files = f"read_parquet('{published[0]}/*.parquet')"
    types = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {files}").fetchall()}
    rows = connection.execute(f"SELECT doc_id, vector::FLOAT[{K}] FROM {files} ORDER BY doc_id").fetchall()
    product = f"array_inner_product(vector::FLOAT[{K}], vector::FLOAT[{K}])"
    (length,) = connection.execute(f"SELECT max(abs({product} - 1)) FROM {files}").fetchone()
  assert [row[0] for row in rows] == expected[0]
  np.testing.assert_array_equal(np.array([row[1] for row in rows], np.float32), expected[1])
  assert length < 1e-6
  kept = ["VARCHAR", "SMALLINT", "DOUBLE", "BOOLEAN", "DATE", "VARCHAR"]
  ours = ["VARCHAR", "FLOAT[]", "INTEGER", "BOOLEAN", "INTEGER", "BLOB"]
  assert types == dict(zip([*OURS, *KEPT], [*ours, *kept], strict=True))


def test_polars(published, expected):
  polars = pytest.importorskip("polars")
  frame = polars.read_parquet(f"{published[0]}/*.parquet").sort("doc_id")
  assert frame.schema["vector"] == polars.Array(polars.Float32, K)
  assert frame["doc_id"].to_list() == expected[0]
  np.testing.assert_array_equal(frame["vector"].to_numpy(), expected[1])
  kept = [polars.String, polars.Int16, polars.Float64, polars.Boolean, polars.Date, polars.String]
  assert [frame.schema[name] for name in KEPT] == kept
  assert frame["written_on"].to_list() == [kept_values(i)["written_on"] for i in range(N)]
