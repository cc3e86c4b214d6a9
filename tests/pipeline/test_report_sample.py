import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import report_sample
from pipeline.dataset import Dataset
from pipeline.report_sample import RowSample, raw_vectors, sample_rows, text_columns
from tests.integration.run_files import read_raw
from tests.manifests import manifest
from tests.report_runs import N_TEXTS, TEXTS, embed_small
from transforms.digests import digest_array


def newest(dataset):
  return dataset.manifest(dataset.run_ids()[-1])


def test_every_row_of_a_small_run_is_counted(reported):
  value = newest(reported)
  sample = sample_rows(reported, value)
  assert sample.rows == sum(sample.lengths.values()) == value["counts"]["written"] and sample.is_whole
  assert sum(length * n for length, n in sample.lengths.items()) == value["counts"]["tokens"]
  assert sample.truncated == value["counts"]["truncated"] > 0 and max(sample.lengths) == 32
  assert sample.texts is None and len(set(sample.doc_ids)) == sample.rows
  np.testing.assert_allclose(np.linalg.norm(sample.vectors, axis=1), 1, rtol=1e-6)


def test_unknown_tokens_are_counted_and_the_worst_documents_named(reported):
  sample = sample_rows(reported, newest(reported))
  # Of the corpus only the hostile document has letters that the vocabulary lacks.
  assert sample.with_unknown == len(sample.worst) == 1
  share, doc_id, unknown = sample.worst[0]
  assert doc_id.startswith("<script>") and unknown / 32 == share


def test_a_large_run_is_sampled_within_its_bounds(reported, monkeypatch):
  monkeypatch.setattr(report_sample, "MAX_VECTORS", 50)
  few = sample_rows(reported, newest(reported), ["text"])
  assert 20 < len(few.doc_ids) == len(few.texts) == len(few.vectors) == len(few.digests) < 90 and few.is_whole
  assert sample_rows(reported, newest(reported), ["text"]).doc_ids == few.doc_ids
  shards = newest(reported)["files"]["vectors"]
  monkeypatch.setattr(report_sample, "MAX_SHARDS", 1)
  assert sample_rows(reported, newest(reported)).rows == shards[0]["rows"]


def test_a_sample_has_rows_of_every_chosen_shard_and_its_vectors_are_a_share_of_them(tmp_path, monkeypatch):
  small = embed_small(tmp_path, buckets=4)
  shards = newest(small)["files"]["vectors"]
  assert len(shards) == 4 and min(file["rows"] for file in shards) > 10
  monkeypatch.setattr(report_sample, "MAX_ROWS", 10 * len(shards))
  sample = sample_rows(small, newest(small))
  tables = [pq.read_table(root(small) / file["path"], columns=["doc_id"]) for file in shards]
  first = [doc_id for table in tables for doc_id in table["doc_id"].to_pylist()[:10]]
  assert sample.doc_ids == first and sample.rows == len(first) and not sample.is_whole
  monkeypatch.setattr(report_sample, "MAX_VECTORS", 5 * len(shards))  # of the rows that are read, half
  few = len(sample_rows(small, newest(small)).doc_ids)
  assert 0.25 * len(first) < few < 0.75 * len(first)


def test_lengths_have_quantiles():
  sample = RowSample(rows=10)
  sample.lengths.update({3: 5, 8: 4, 20: 1})
  assert [sample.quantile(q) for q in (0.5, 0.51, 0.9, 0.95, 1.0)] == [3, 8, 8, 20, 20] and sample.mean == 6.7
  assert RowSample().quantile(0.5) == 0 and RowSample().mean == 0


def test_the_columns_that_have_a_documents_text():
  kept = {"title": "string", "year": "int64", "text": "string"}
  assert text_columns(manifest(kept_columns=kept)) == ["text"]
  assert text_columns(manifest(kept_columns=kept, options={"text_columns": ["title", "body"]})) == ["title"]
  assert text_columns(manifest(kept_columns=kept, options={"text_columns": ["body"]})) == ["title"]
  assert text_columns({**manifest(), "kept_columns": {"year": "int64", "parent_id": "string"}}) == []


def test_raw_vectors_are_those_of_the_texts_each_once(reported):
  digests = digest_array([*TEXTS[40:60], "no text of ours", TEXTS[40]])
  rows, vectors = raw_vectors(reported, newest(reported), digests)
  assert sorted(rows.tolist()) == list(range(20)) and vectors.shape == (20, 16)
  expected = read_raw(root(reported), TEXTS[40:60])
  np.testing.assert_array_equal(vectors[np.argsort(rows)], expected)


def root(dataset):
  return dataset.storage.path("dataset.json").parent


def test_a_damaged_raw_file_is_passed_over_and_nothing_is_written(reported, tmp_path):
  shutil.copytree(root(reported), tmp_path / "ds")
  for path in (tmp_path / "ds/raw").rglob("*.parquet"):
    path.write_bytes(b"damaged")
  dataset = Dataset.open(str(tmp_path / "ds"))
  before = dataset.storage.walk("")
  rows, vectors = raw_vectors(dataset, newest(dataset), digest_array(TEXTS))
  assert rows.shape == (0,) and vectors.shape == (0, 16) and dataset.storage.walk("") == before


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_vectors_of_another_type_are_those_but_for_their_rounding(reported, tmp_path, kind):
  small = embed_small(tmp_path, vector_type=kind)
  sample, whole = sample_rows(small, newest(small)), sample_rows(reported, reported.manifest(reported.run_ids()[0]))
  row_of = {doc_id: row for row, doc_id in enumerate(whole.doc_ids)}
  expected = whole.vectors[[row_of[doc_id] for doc_id in sample.doc_ids]]
  assert sample.rows == whole.rows and sample.vectors.dtype == np.float32
  np.testing.assert_allclose(sample.vectors, expected, atol=0.01)
  np.testing.assert_allclose(np.linalg.norm(sample.vectors, axis=1), 1, rtol=1e-5)


def test_the_text_of_a_chunk_is_its_own(tmp_path):
  chunked = embed_small(tmp_path, long_texts="chunks")
  assert chunked.manifest(chunked.run_ids()[0])["counts"]["written"] > N_TEXTS
  sample = sample_rows(chunked, newest(chunked), ["text"])
  text_of = dict(zip(sample.doc_ids, sample.texts, strict=True))
  long = max(TEXTS, key=len)
  parts = [text_of[f"{TEXTS.index(long):03d}#{number}"] for number in range(2)]
  assert long.startswith(parts[0]) and len(parts[0]) < len(long)
  assert len(parts[1]) > 10 and long[len(parts[0]) :].strip().startswith(parts[1])
  rows, _ = raw_vectors(chunked, newest(chunked), sample.digests)
  assert len(rows) == len(np.unique(sample.digests))
