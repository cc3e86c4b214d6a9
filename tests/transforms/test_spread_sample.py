import bz2
import gzip
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms import spread_sample
from transforms.errors import InputFileError
from transforms.input_files import ReadOptions, cut_slices, limit_slices, list_files
from transforms.spread_sample import read_spread, visiting_order

GENERATOR = random.Random(0)
WORDS = [f"{GENERATOR.randrange(1 << 20):x}" for _ in range(9000)]  # they compress as texts do
TEXTS = [f"{i} " + " ".join(GENERATOR.choices(WORDS, k=GENERATOR.randrange(1, 200))) for i in range(3000)]  # 1.8 MB


def write(folder, name, texts):
  data = "".join(f"{text}\n" for text in texts).encode()
  if name.endswith(".parquet"):
    pq.write_table(pa.table({"text": texts}), folder / name, row_group_size=500)
  elif name.endswith(".csv"):
    (folder / name).write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
  else:
    (folder / name).write_bytes({"gz": gzip.compress, "bz2": bz2.compress}.get(name.split(".")[-1], bytes)(data))


def sample(folder, most, options=ReadOptions(), limit=None):  # noqa: B008
  files = list_files([str(folder)], options)
  slices = cut_slices(files)
  return read_spread(files, limit_slices(files, slices, limit, options) if limit else slices, options, most)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 7, 10, 100, 1000])
def test_every_place_is_visited_once(n):
  assert sorted(visiting_order(n)) == list(range(n)) and list(visiting_order(n)) == list(visiting_order(n))


def test_whatever_was_visited_so_far_is_spread_evenly():
  order = list(visiting_order(1000, seed=3))
  for seen in (10, 50, 333):
    gaps = np.diff(np.sort(order[:seen]), append=min(order[:seen]) + 1000)
    assert gaps.max() <= 3 * 1000 / seen


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.bz2", "a.csv", "a.parquet"])
def test_a_small_corpus_is_read_whole(tmp_path, name):
  write(tmp_path, name, TEXTS)
  found = sample(tmp_path, 10**6)
  assert found.is_whole and sorted(row.text for row in found.rows) == sorted(TEXTS)
  assert found.documents == 3000 and found.sizes.sum() == pytest.approx(found.total_bytes)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.bz2", "a.csv", "a.parquet"])
def test_a_part_tells_the_number_of_documents(tmp_path, name):
  write(tmp_path, name, TEXTS)
  found = sample(tmp_path, 600)
  assert not found.is_whole and 600 <= found.documents < 1500
  assert len({row.text for row in found.rows}) == found.documents  # none twice
  assert found.documents / found.sizes.sum() * found.total_bytes == pytest.approx(3000, rel=0.05)


def test_documents_come_from_every_file_in_proportion(tmp_path):
  for i in range(8):
    write(tmp_path, f"{i}.txt.gz" if i % 2 else f"{i}.txt", TEXTS)
  found = sample(tmp_path, 4000)
  files = [int(row.doc_id.split(".")[0]) for row in found.rows]
  assert 4000 <= len(files) < 5000 and min(files.count(i) for i in range(8)) > 200


def test_texts_are_as_long_as_in_the_corpus_however_they_are_sorted(tmp_path):
  write(tmp_path, "a.txt", sorted(TEXTS, key=len))
  mean = np.mean([len(text) for text in TEXTS])
  assert np.mean([len(row.text) for row in sample(tmp_path, 600).rows]) == pytest.approx(mean, rel=0.1)


def test_rejected_documents_count(tmp_path):
  (tmp_path / "a.txt").write_bytes(b"one\n\xff\ntwo\n")
  found = sample(tmp_path, 100)
  assert (found.documents, [row.text for row in found.rows]) == (3, ["one", "two"])


def test_a_limit_is_kept(tmp_path):
  write(tmp_path, "a.txt", TEXTS)
  found = sample(tmp_path, 10**6, limit=70)
  assert [row.text for row in found.rows] == TEXTS[:70]


def test_long_documents_end_it_as_well(tmp_path, monkeypatch):
  monkeypatch.setattr(spread_sample, "MAX_SAMPLE_BYTES", 200_000)
  write(tmp_path, "a.txt", TEXTS)
  assert 200_000 <= sample(tmp_path, 10**6).sizes.sum() < 200_000 + spread_sample.MAX_PIECE_BYTES


def test_no_documents(tmp_path):
  (tmp_path / "a.txt").write_bytes(b"")
  found = sample(tmp_path, 10)
  assert (found.documents, found.total_bytes, found.is_whole, len(found.counts)) == (0, 0, True, 0)


def test_a_damaged_file_is_an_error_unless_it_is_allowed(tmp_path):
  write(tmp_path, "b.txt", ["good"])
  (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\ntwo\n" * 1000)[:-20])
  with pytest.raises(InputFileError, match=r"^a.txt.gz "):
    sample(tmp_path, 10**6)
  assert "good" in [row.text for row in sample(tmp_path, 10**6, ReadOptions(allow_bad_files=True)).rows]
