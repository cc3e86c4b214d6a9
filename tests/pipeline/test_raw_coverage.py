"""Each text of a run has its vector in a whole raw file, whatever the files are called."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.collect_garbage import collect_garbage, plan_garbage
from pipeline.raw_coverage import find_uncovered, raw_bytes
from tests.made_nights import NOW, H, MadeNights, raw_table, texts_of
from transforms.digests import DigestRange, digest_array
from transforms.storage import Storage
from transforms.vector_table import to_parquet

TEXTS = texts_of(range(20))


@pytest.fixture
def night(tmp_path):
  nights = MadeNights(tmp_path)
  return nights, nights.run(TEXTS)


def uncovered(night, broken=(), advance=lambda _: None):
  dataset = night[0].dataset
  return list(find_uncovered(dataset, dataset.manifest(night[1]), dict.fromkeys(broken, "broken"), advance))


def cut(nights, name):
  path = Path(nights.storage.root, f"{nights.store.folder}/{name}")
  path.write_bytes(path.read_bytes()[:-1])


def test_every_text_is_found_and_every_file_read_once(night):
  read = []
  assert uncovered(night, advance=read.append) == []
  assert sum(read) == raw_bytes(night[0].dataset, night[0].dataset.manifest(night[1])) > 0


def test_files_of_other_names_will_do(night):
  nights, _ = night
  digests = np.unique(digest_array(TEXTS))
  for name in nights.raw_names():
    nights.storage.remove(f"{nights.store.folder}/{name}")
  nights.encode(DigestRange(0, 0), "other", np.unique(digest_array(texts_of(range(99, 150)))))
  assert uncovered(night)[0] == "20 texts have no vector in a whole raw file"
  nights.encode(DigestRange(0, 0), "another", digests)
  assert uncovered(night) == []


def test_a_damaged_or_missing_file_is_named_only_if_a_text_stands_in_no_other(night):
  nights, _ = night
  first, second = nights.raw_names()
  lost = len(nights.store.digests(first)) + len(nights.store.digests(second))
  held = [nights.store.digests(name) for name in (first, second)]
  cut(nights, first)
  nights.storage.remove(f"{nights.store.folder}/{second}")
  assert uncovered(night) == [
    f"{lost} texts have no vector in a whole raw file",
    f"{nights.store.folder}/{first} was changed (its sha256 is not the one in its name)",
    f"{nights.store.folder}/{second} is missing",
  ]
  nights.encode(DigestRange(0, 0), "another", np.unique(np.concatenate(held)))
  assert uncovered(night) == []


def test_a_file_with_other_vectors_under_its_name_is_damaged(night):
  nights, _ = night
  name = nights.raw_names()[0]
  table = raw_table(nights.store.digests(name), np.ones((len(nights.store.digests(name)), H), np.float32))
  nights.storage.write(f"{nights.store.folder}/{name}", to_parquet(table, {}))
  assert f"{name} was changed" in uncovered(night)[1]


def test_a_file_that_is_marked_as_damaged_does_not_count(night):
  nights, _ = night
  name = nights.raw_names()[0]
  nights.storage.write(f"{nights.store.folder}/{name}.damaged", b"")
  assert uncovered(night)[0].endswith("texts have no vector in a whole raw file")


def test_documents_that_are_broken_are_left_to_another_check(night):
  nights, run_id = night
  documents = [file["path"] for file in nights.dataset.manifest(run_id)["files"]["documents"]]
  nights.storage.write(documents[0], b"broken")
  assert uncovered(night, broken=documents[:1]) == []
  for name in nights.raw_names():
    cut(nights, name)
  whole = len(nights.store.digests(nights.encode(DigestRange(0, 0), "x", np.unique(digest_array(["other"])))))
  assert whole == 1 and uncovered(night, broken=documents) == []


def test_a_gc_at_the_same_time_hides_no_text(night, monkeypatch):
  nights, run_id = night
  nights.run(texts_of(range(20, 60)), publish=False)
  nights.dataset.publish(run_id, 1, NOW)
  nights.run(TEXTS)  # newer, so that what the second has encoded is dead
  read = Storage.read

  def read_late(storage, path):
    if path.startswith("raw/"):
      monkeypatch.undo()
      plan = plan_garbage(nights.dataset, 1, lambda: NOW)
      assert collect_garbage(nights.dataset, plan, lambda: NOW).removed
    return read(storage, path)

  nights.encode(DigestRange(0, 0), "20250101T000000Z000000", np.unique(digest_array(TEXTS)))
  monkeypatch.setattr(Storage, "read", read_late)
  assert uncovered(night) == []
