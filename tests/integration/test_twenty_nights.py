"""Nights over a corpus that changes, re-partitioned each time: what `benchmarks/nights.py` does with a large one."""

from itertools import pairwise

import numpy as np
import pytest

from benchmarks.nights import NIGHTS_BACK, Dataset, Nights, check, write_night
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import made_up_texts, run_folder

TEXTS = made_up_texts(300)


def nights_of(n, **options):
  nights = Nights(TEXTS, **options)
  return [nights.night, *(nights.next() for _ in range(n - 1))]


def test_the_same_seed_gives_the_same_nights_and_another_other_ones():
  assert nights_of(5) == nights_of(5)
  assert nights_of(5) != nights_of(5, seed=1)


def test_a_night_follows_from_the_one_before_by_its_changes():
  nights = nights_of(60, share=0.03)
  seen, recent = set(nights[0].documents.values()), []
  assert nights[0].new_texts == seen and len(nights[0].documents) == 275 and len(seen) == 270
  repeated, came_back = 0, 0
  for before, night in pairwise(nights):
    assert len(night.edited) == len(night.deleted) == len(night.added) == 8
    assert night.documents.keys() == before.documents.keys() - set(night.deleted) | set(night.added)
    differs = {i for i in night.documents.keys() & before.documents.keys() if night.documents[i] != before.documents[i]}
    assert differs == set(night.edited)
    assert night.new_texts == set(night.documents.values()) - seen
    returned = {t for i, t in night.documents.items() if i in night.changes} - night.new_texts
    came_back += len(returned - set(before.documents.values()))
    repeated += len(returned)
    recent = [*recent, set(before.documents.values())][-NIGHTS_BACK - 1 :]
    assert returned <= set().union(*recent) | set(night.documents.values())
    seen |= night.new_texts
  assert repeated > came_back > 0


def test_files_hold_the_night_in_any_order(tmp_path):
  night = nights_of(2)[1]
  for seed in (0, 1):
    write_night(night, tmp_path / "input", np.random.default_rng(seed))
  lines = [line for path in (tmp_path / "input").iterdir() for line in path.read_text().splitlines()]
  assert len(lines) == len(night.documents)
  assert lines != sorted(lines)


@pytest.fixture(scope="module")
def nightly(tmp_path_factory):
  """(the dataset, its last night, figures of five)."""
  folder = tmp_path_factory.mktemp("nights")
  encoder = FakeEncoder(make_vocabulary(TEXTS), 16)
  dataset, generator = Dataset(folder, encoder, buckets=4, threads=1, n_components=8), np.random.default_rng(0)
  nights = nights_of(5, share=0.02)
  return dataset, nights, [dataset.run(night, generator) for night in nights]


def test_five_nights_encode_what_is_new_and_keep_the_rest_to_the_bit(nightly):
  _, nights, figures = nightly
  assert [row["encoded"] for row in figures] == [len(night.new_texts) for night in nights]
  assert all(row["encoded"] <= 12 < 240 < row["same_to_the_bit"] for row in figures[1:])
  assert len({row["changes_checked"] for row in figures}) == 1


def test_another_nights_run_is_found_out(nightly):
  dataset, nights, _ = nightly
  manifest = dataset.manifest
  run = run_folder(dataset.dataset, manifest)
  check(nights[-1], manifest, run)
  with pytest.raises(AssertionError):
    check(nights[-2], manifest, run)
  with pytest.raises(AssertionError):
    check(nights[-1], manifest, dataset.dataset / "runs" / min(p.name for p in (dataset.dataset / "runs").iterdir()))
