import numpy as np
import pytest

from tests.run_parts import encode_by_bucket, make_plan
from transforms.digests import DigestRange, bucket_of, digest_array
from transforms.known_texts import KnownTexts, find_known, write_known
from transforms.rows import Row
from transforms.storage import Storage

TEXTS = [f"red {i}" for i in range(60)]
DIGESTS = np.unique(digest_array(TEXTS))
OTHERS = digest_array(f"blue {i}" for i in range(60))


def make_store(folder, bits=3):
  """A store of TEXTS, a file or two a bucket."""
  for run_id, texts in (("r1", TEXTS[:40]), ("r2", TEXTS[30:])):
    encode_by_bucket(make_plan(folder, run_id=run_id, bits=bits), [Row(i, t, t, ()) for i, t in enumerate(texts)])
  return make_plan(folder).store


def all_files(store):
  return [store.storage.path(f"{store.folder}/{name}") for name in store.storage.names(store.folder)]


def test_what_is_known_comes_back_from_its_file(tmp_path):
  storage = Storage.at(str(tmp_path))
  path = write_known(storage, "runs/r/known", "wave-000", DIGESTS)
  assert path.startswith("runs/r/known/wave-000-") and storage.size(path) == 16 * 60
  known = KnownTexts.open(storage, path)
  assert len(known) == 60
  mixed = np.concatenate([OTHERS[:3], DIGESTS[[59, 0, 7, 7]], OTHERS[3:]])
  assert known.holds(mixed).tolist() == [False] * 3 + [True] * 4 + [False] * 57
  assert known.holds(mixed[:0]).tolist() == []


def test_digests_that_end_in_zero_bytes_are_told_apart():
  digests = np.frombuffer(b"a" * 14 + b"\0\0" + b"a" * 15 + b"\0" + b"a" * 16, "S16")
  assert KnownTexts(digests[[0, 2]]).holds(digests).tolist() == [True, False, True]


def test_nothing_known_is_no_file(tmp_path):
  storage = Storage.at(str(tmp_path))
  assert write_known(storage, "runs/r/known", "wave-000", DIGESTS[:0]) is None and storage.walk("") == []
  known = KnownTexts.open(storage, None)
  assert len(known) == 0 and not known.holds(OTHERS).any()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("bits", [0, 2, 3, 5])
def test_the_store_is_asked_by_buckets_finer_or_coarser_than_its_files(tmp_path, bits, whole):
  store = make_store(tmp_path)
  buckets = bucket_of(DIGESTS, bits)
  for first, stop in {(0, 1 << bits), (0, 1), ((1 << bits) - 1, 1 << bits)}:
    found = find_known(store, range(first, stop), bits, whole=whole)
    assert found.tolist() == DIGESTS[(buckets >= first) & (buckets < stop)].tolist()
  assert find_known(make_plan(tmp_path / "none").store, range(1), 0, whole=whole).tolist() == []


def test_a_glance_reads_little_of_a_file(tmp_path, monkeypatch):
  store = make_store(tmp_path)
  monkeypatch.setattr(Storage, "read", None)
  assert find_known(store, range(1), 0, whole=False).tolist() == DIGESTS.tolist()


def test_only_a_whole_reading_finds_and_marks_what_is_damaged(tmp_path):
  """A glance notices a file without an end, and not a byte that changed in the middle of another."""
  store = make_store(tmp_path)
  cut, changed, *sound = all_files(store)
  seems, left = set(store.digests(changed.name)), {d for path in sound for d in store.digests(path.name)}
  cut.write_bytes(b"")
  vector = store.read(changed.name)["vector"].chunk(0).values.buffers()[1].to_pybytes()
  changed.write_bytes(changed.read_bytes().replace(vector, b"\1" * len(vector)))
  assert set(find_known(store, range(1), 0, whole=False)) == left | seems != left
  assert set(find_known(store, range(1), 0, whole=True)) == left
  assert store.damaged(DigestRange(0, 0)) == [cut.name, changed.name]
  assert set(find_known(store, range(1), 0, whole=False)) == left
