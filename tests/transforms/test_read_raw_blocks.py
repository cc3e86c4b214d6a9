from collections import Counter

import numpy as np
import pytest

from tests.run_parts import A_FILE_FOR_EACH_TEXT, H, encode_by_bucket, encode_rows, make_encoder, make_plan, run_on_beam
from transforms import read_raw_blocks
from transforms.digests import digest
from transforms.moments import Moments
from transforms.read_raw_blocks import ReadRawBlocks, _ReadRawBlocks, group_bits, read_sample, surviving_documents
from transforms.rows import Row
from transforms.settle_ids import SettledBucket

TEXTS = ["red", "green house", "blue tree", "white town", "black 1 2", "small 3"]
OFTEN = [1, 3, 2, 1, 1, 4]
ROWS = [Row(i, f"id {i}", text, ()) for i, text in enumerate(np.repeat(TEXTS, OFTEN).tolist())]
NOBODY = np.empty(0, np.int64)


def weights_of(blocks):
  """{vector: weight}, and how many vectors there were."""
  pairs = [pair for block in blocks for pair in zip(block.vectors.tolist(), block.weights.tolist(), strict=True)]
  return Counter({tuple(vector): weight for vector, weight in pairs}), len(pairs)


def expected_weights(texts):
  encoder = make_encoder().load()
  return Counter(tuple(vector) for vector in encoder.encode_texts(texts).tolist())


def read(folder, plan, settled):
  return weights_of(run_on_beam(folder, settled, ReadRawBlocks(plan)))


def test_a_vector_weighs_as_much_as_it_has_documents(tmp_path):
  plan = make_plan(tmp_path / "ds", bits=1)
  settled = [SettledBucket(record, NOBODY) for record in encode_by_bucket(plan, ROWS)]
  plan.storage.remove_folder(f"{plan.folder}/progress")
  assert read(tmp_path / "out", plan, settled) == (expected_weights([row.text for row in ROWS]), len(TEXTS))
  assert plan.storage.names(f"{plan.folder}/progress"), "who reads for long shows that it lives"


@pytest.mark.parametrize(
  ("bits", "hidden_size", "expected"),
  [(16, 768, 6), (16, 384, 8), (3, 768, 3), (16, 8192, 0), (16, 20_000, 0), (0, 4, 0)],
)
def test_all_accumulators_of_the_moments_stay_under_half_a_gigabyte(bits, hidden_size, expected):
  assert group_bits(bits, hidden_size) == expected
  assert expected == 0 or 2**expected * 8 * hidden_size**2 <= 2**29


def test_buckets_are_read_by_groups_of_one_go_each(tmp_path, monkeypatch):
  """So that a group ends in one accumulator on any engine, however small its bundles are."""
  plan = make_plan(tmp_path / "ds", bits=4)
  settled = [SettledBucket(record, NOBODY) for record in encode_by_bucket(plan, ROWS)]
  blocks = list(_ReadRawBlocks(plan).process((0, settled[::-1])))
  assert weights_of(blocks) == (expected_weights([row.text for row in ROWS]), len(TEXTS))
  one_by_one = [block for s in settled for block in _ReadRawBlocks(plan).process((0, [s]))]
  assert [b.vectors.tolist() for b in blocks] == [b.vectors.tolist() for b in one_by_one]  # whatever order they come in
  monkeypatch.setattr(read_raw_blocks, "_MOMENTS_BYTES", 2 * 8 * H**2)  # two of them
  monkeypatch.setattr(_ReadRawBlocks, "process", lambda self, keyed: [sorted(s.record.bucket for s in keyed[1])])
  groups = run_on_beam(tmp_path / "out", settled, ReadRawBlocks(plan))
  buckets = [s.record.bucket for s in settled]
  assert sorted(groups) == [[b for b in buckets if b < 8], [b for b in buckets if b >= 8]]


def test_only_surviving_documents_count(tmp_path):
  plan = make_plan(tmp_path / "ds")
  record = encode_rows(plan, ROWS)
  everyone = surviving_documents(plan, SettledBucket(record, NOBODY))
  texts = {row.doc_id: row.text for row in ROWS}
  ids = everyone["doc_id"].to_pylist()
  only = [i for i, doc_id in enumerate(ids) if texts[doc_id] == "red"]  # a text whose one document loses its id
  dropped = np.array(sorted({*only, 0, 5}))
  left = [doc_id for i, doc_id in enumerate(ids) if i not in dropped]
  settled = SettledBucket(record, dropped)
  assert surviving_documents(plan, settled)["doc_id"].to_pylist() == left
  weights, n = read(tmp_path / "out", plan, [settled])
  assert weights == expected_weights([texts[doc_id] for doc_id in left]) and n == len(weights)


def test_nobody_survives(tmp_path):
  plan = make_plan(tmp_path / "ds")
  record = encode_rows(plan, ROWS[:3])
  assert read(tmp_path / "out", plan, [SettledBucket(record, np.arange(3))]) == (Counter(), 0)


@pytest.mark.parametrize("block_rows", [1, 2, 4096])
@pytest.mark.parametrize("flushes", [{}, A_FILE_FOR_EACH_TEXT], ids=["one file", "many files"])
def test_blocks_are_bounded_and_their_moments_are_those_of_the_documents(tmp_path, monkeypatch, block_rows, flushes):
  monkeypatch.setattr(read_raw_blocks, "BLOCK_ROWS", block_rows)
  plan = make_plan(tmp_path / "ds", bits=1, **flushes)
  settled = [SettledBucket(record, NOBODY) for record in encode_by_bucket(plan, ROWS)]
  blocks = run_on_beam(tmp_path / "out", settled, ReadRawBlocks(plan))
  assert all(1 <= len(block.vectors) <= block_rows for block in blocks)
  moments = sum((Moments.from_vectors(block.vectors, block.weights) for block in blocks), Moments.empty(H))
  vectors = make_encoder().load().encode_texts([row.text for row in ROWS]).astype(np.float64)
  assert moments.count == len(ROWS)
  np.testing.assert_allclose(moments.covariance(), np.cov(vectors.T), rtol=1e-12, atol=1e-14)


# --- the sample


def lowest(texts, most):
  return make_encoder().load().encode_texts(sorted(texts, key=digest)[:most]).tolist()


@pytest.mark.parametrize("bits", [0, 3])
@pytest.mark.parametrize("most", [0, 1, 4, 6, 1000])
def test_the_sample_is_the_distinct_texts_with_the_lowest_digests(tmp_path, bits, most):
  plan = make_plan(tmp_path / "ds", bits=bits, **A_FILE_FOR_EACH_TEXT)
  settled = [SettledBucket(record, NOBODY) for record in encode_by_bucket(plan, ROWS)]
  assert read_sample(plan, settled[::-1], most).tolist() == (lowest(TEXTS, most) if most else [])


def test_a_text_without_a_document_left_is_not_in_the_sample(tmp_path):
  plan = make_plan(tmp_path / "ds")
  record = encode_rows(plan, ROWS)
  texts = {row.doc_id: row.text for row in ROWS}
  ids = surviving_documents(plan, SettledBucket(record, NOBODY))["doc_id"].to_pylist()
  first = min(TEXTS, key=digest)
  dropped = np.array([i for i, doc_id in enumerate(ids) if texts[doc_id] == first])
  left = [text for text in TEXTS if text != first]
  assert read_sample(plan, [SettledBucket(record, dropped)], 3).tolist() == lowest(left, 3)
  assert len(read_sample(plan, [SettledBucket(record, np.arange(len(ids)))], 3)) == 0


def test_no_bucket_is_read_behind_the_sample(tmp_path):
  plan = make_plan(tmp_path / "ds", bits=1)
  settled = [SettledBucket(record, NOBODY) for record in encode_by_bucket(plan, ROWS)]
  plan.storage.remove(settled[1].record.documents.path)
  assert read_sample(plan, settled, 1).tolist() == lowest(TEXTS, 1)


def test_no_raw_file_is_read_behind_the_last_that_is_needed(tmp_path):
  texts = ["red", "green house", "blue tree", "white town"]
  plan = make_plan(tmp_path / "ds", **A_FILE_FOR_EACH_TEXT)
  record = encode_rows(plan, [Row(i, f"id {i}", text, ()) for i, text in enumerate(texts)])
  first = digest(min(texts, key=digest))
  (needed,) = [name for name in record.raw_files if first in plan.store.read(name)["text_digest"].to_pylist()]
  behind = [name for name in record.raw_files if name > needed]
  assert behind, "with these texts it is not the last"
  for name in behind:
    plan.storage.remove(f"{plan.store.folder}/{name}")
  assert read_sample(plan, [SettledBucket(record, NOBODY)], 1).tolist() == lowest(texts, 1)
