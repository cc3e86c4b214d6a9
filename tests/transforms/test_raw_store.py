import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.damage import flipped
from tests.run_parts import H, make_plan
from transforms.digests import DigestRange, bucket_of, digest, digest_array, to_arrow
from transforms.errors import DamagedFileError, StoreError
from transforms.predictions import Predictions
from transforms.raw_store import probabilities_of, run_of, vectors_of
from transforms.vector_table import raw_schema, to_vectors

TEXTS = [f"text {i}" for i in range(40)]
ALL = DigestRange(0, 0)


@pytest.fixture
def store(tmp_path):
  return make_plan(tmp_path).store


def raw_rows(texts, value=None):
  """Rows whose vectors say which text they belong to, or all hold one value."""
  numbers = [int(text.split()[1]) if value is None else value for text in texts]
  counts = pa.array(np.arange(len(texts), dtype=np.int32))
  vectors = np.repeat(np.float32(numbers)[:, None], H, axis=1)
  columns = [to_arrow(digest_array(texts)), counts, pa.array([False] * len(texts)), counts, to_vectors(vectors)]
  return pa.table(columns, schema=raw_schema(H))


def sorted_digests(texts):
  return np.unique(digest_array(texts))


def selected(store, names, texts):
  """What `select` gives, as {digest: the value of its vector}; each digest must come once."""
  digests, found = sorted_digests(texts), {}
  for indices, rows in store.select(names, digests):
    assert rows["text_digest"].to_pylist() == to_arrow(digests[indices]).to_pylist()
    for key, vector in zip(rows["text_digest"].to_pylist(), vectors_of(rows), strict=True):
      assert key not in found
      found[key] = float(vector[0])
  return found


def test_what_is_written_is_found_and_read(store):
  table = raw_rows(TEXTS[:5])
  name = store.write(DigestRange(2, 4), "20240101T000000Z0a1b2c", table)
  assert name.startswith("0010-20240101T000000Z0a1b2c-") and run_of(name) == "20240101T000000Z0a1b2c"
  assert store.find(DigestRange(2, 4)) == store.find(ALL) == [name]
  assert store.storage.names(store.folder) == [name] and store.folder == f"raw/{store.fingerprint}"
  assert store.read(name).equals(table)
  assert store.digests(name).tobytes() == digest_array(TEXTS[:5]).tobytes()
  assert (vectors_of(store.read(name))[:, 0] == range(5)).all()


def test_finer_and_coarser_files_are_found(store):
  ranges = [ALL, DigestRange(0, 1), DigestRange(1, 1), DigestRange(0b0010, 4), DigestRange(0b0011, 4)]
  names = {store.write(r, "r", raw_rows(TEXTS[i : i + 1])).split("-")[0] for i, r in enumerate(ranges)}
  assert names == {"all", "0", "1", "0010", "0011"}
  wanted = {
    (0, 0): names,
    (0b001, 3): {"all", "0", "0010", "0011"},
    (0b00110, 5): {"all", "0", "0011"},
    (3, 2): {"all", "1"},
  }
  for (bucket, bits), expected in wanted.items():
    assert {name.split("-")[0] for name in store.find(DigestRange(bucket, bits))} == expected


def test_a_finer_run_reads_a_coarser_file_and_the_other_way_round(store):
  coarse = store.write(ALL, "r1", raw_rows(TEXTS))
  buckets = bucket_of(digest_array(TEXTS), 3)
  mine = [text for text, bucket in zip(TEXTS, buckets, strict=True) if bucket == 5]
  assert selected(store, [coarse], mine) == {digest(text): float(text.split()[1]) for text in mine}
  fine = [
    store.write(DigestRange(b, 3), "r2", raw_rows([t for t, x in zip(TEXTS, buckets, strict=True) if x == b]))
    for b in range(8)
  ]
  assert selected(store, fine, TEXTS) == {digest(text): float(text.split()[1]) for text in TEXTS}


def test_a_text_in_two_files_is_taken_from_the_first(store):
  first, second = store.write(ALL, "r1", raw_rows(TEXTS[:6], 1.0)), store.write(ALL, "r2", raw_rows(TEXTS[4:9], 2.0))
  expected = {digest(text): 1.0 if i < 6 else 2.0 for i, text in enumerate(TEXTS[:9])}
  assert selected(store, [first, second], TEXTS[:9]) == expected
  assert selected(store, [second, first], TEXTS[4:6]) == dict.fromkeys(map(digest, TEXTS[4:6]), 2.0)


def test_a_text_twice_in_one_file_comes_once(store):
  name = store.write(ALL, "r1", raw_rows([*TEXTS[:3], *TEXTS[:3]]))
  assert selected(store, [name], TEXTS[:2]) == {digest(TEXTS[0]): 0.0, digest(TEXTS[1]): 1.0}


def test_nothing_wanted_gives_nothing(store):
  name = store.write(ALL, "r1", raw_rows(TEXTS[:3]))
  assert selected(store, [name], []) == selected(store, [], []) == {}


def test_missing_texts_are_said(store):
  name = store.write(ALL, "r1", raw_rows(TEXTS[:3]))
  with pytest.raises(StoreError, match=rf"^{store.folder}: 2 texts of this run have no vector; run again to encode"):
    selected(store, [name], TEXTS[:5])


@pytest.mark.parametrize("damage", [flipped, lambda data: data[:-1], lambda data: b"", lambda data: data + b"\0"])
def test_a_file_that_is_not_what_its_name_says(store, damage):
  name = store.write(ALL, "r1", raw_rows(TEXTS))
  path = f"{store.folder}/{name}"
  store.storage.write(path, damage(store.storage.read(path)))
  for read in (store.read, store.digests, lambda name: selected(store, [name], TEXTS)):
    with pytest.raises(
      DamagedFileError, match=rf"^{store.folder}/{name}: damaged \(its sha256 .*; run again to encode"
    ):
      read(name)


def test_a_file_that_is_gone(store):
  name = store.write(ALL, "r1", raw_rows(TEXTS))
  store.storage.remove(f"{store.folder}/{name}")
  with pytest.raises(DamagedFileError, match=rf"^{store.folder}/{name}: a raw file is gone; run again"):
    store.read(name)


def test_a_file_that_is_not_ours(store):
  name = store.write(ALL, "r1", raw_rows(TEXTS))
  store.storage.write(f"{store.folder}/notes.txt", b"")
  assert store.find(ALL) == [name]


def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(store):
  name = store.write(ALL, "r1", raw_rows(TEXTS))
  path = store.storage.path(f"{store.folder}/{name}")
  path.unlink()
  path.mkdir()
  with pytest.raises(StoreError, match=rf"^{store.folder}/{name}: cannot be read \(Is a directory\); mend") as error:
    store.read(name)
  assert type(error.value) is StoreError


def test_a_marked_file_is_not_found(store):
  names = [store.write(wanted, "r1", raw_rows(TEXTS)) for wanted in (ALL, DigestRange(2, 2), DigestRange(3, 2))]
  assert store.damaged(ALL) == []
  for name in (names[1], names[0], names[1]):
    store.mark_damaged(name)
  assert store.find(ALL) == [names[2]] and store.damaged(ALL) == sorted(names[:2])
  assert store.find(DigestRange(2, 2)) == [] and store.damaged(DigestRange(3, 2)) == [names[0]]
  assert store.storage.read(f"{store.folder}/{names[0]}.damaged") == b""
  for name in (
    "notes.txt.damaged",
    ".damaged",
    f"{names[2]}.damaged.damaged",
    "10-r1-0123456789abcdef.parquet.damaged",
  ):
    store.storage.write(f"{store.folder}/{name}", b"")  # not ours, or of a file that is not there
  assert store.find(ALL) == [names[2]]
  assert store.write(ALL, "r1", raw_rows(TEXTS)) == names[0]
  assert store.find(ALL) == sorted(names[::2]) and names[0] not in store.damaged(ALL)


def test_a_file_is_forgotten_with_its_mark(store):
  name = store.write(ALL, "r1", raw_rows(TEXTS))
  store.mark_damaged(name)
  for _ in range(2):
    store.forget(name)
    assert store.storage.names(store.folder) == []


def test_who_selects_from_a_damaged_file_marks_it(store):
  names = [store.write(ALL, "r1", raw_rows(TEXTS[:3])), store.write(ALL, "r2", raw_rows(TEXTS[3:]))]
  store.storage.remove(f"{store.folder}/{names[1]}")
  with pytest.raises(DamagedFileError):
    selected(store, names, TEXTS)
  assert store.damaged(ALL) == [names[1]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_damage(store, value):
  names = [store.write(ALL, "r1", raw_rows(TEXTS, value))]
  with pytest.raises(DamagedFileError, match=r"r1-.*: damaged \(a vector is not finite\)"):
    selected(store, names, TEXTS)
  assert store.find(ALL) == [] and store.damaged(ALL) == names  # so that the next run encodes its texts anew


def in_range(wanted):
  return [t for t, b in zip(TEXTS, bucket_of(digest_array(TEXTS), wanted.bits), strict=True) if b == wanted.bucket]


def test_a_glance_sees_the_digests_of_the_range_in_the_name(store):
  wanted = DigestRange(1, 1)
  name = store.write(wanted, "r1", raw_rows(TEXTS))  # as if another file's content had got under this name
  assert store.glance(name).tolist() == digest_array(in_range(wanted)).tolist()
  assert store.glance(store.write(ALL, "r1", raw_rows(TEXTS))).tolist() == digest_array(TEXTS).tolist()


def without_digests(path):
  pq.write_table(raw_rows(TEXTS).drop_columns(["text_digest"]), path)


def text_as_digests(path):
  pq.write_table(raw_rows(TEXTS).set_column(0, "text_digest", pa.array(TEXTS)), path)


def null_as_digest(path):
  digests = pa.array([None] * len(TEXTS), raw_schema(H).field("text_digest").type)
  pq.write_table(raw_rows(TEXTS).set_column(0, "text_digest", digests), path)


SPOILERS = [
  without_digests,
  text_as_digests,
  null_as_digest,
  lambda path: path.unlink(),
  lambda path: path.write_bytes(b""),
  lambda path: path.write_bytes(path.read_bytes()[:-100]),
]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_glance_at_a_file_that_cannot_be_read_sees_nothing(store, spoil):
  name = store.write(ALL, "r1", raw_rows(TEXTS))
  spoil(store.storage.path(f"{store.folder}/{name}"))
  assert store.glance(name).tolist() == []


def test_a_glance_at_a_file_with_changed_bytes_gives_digests_or_none(store):
  name = store.write(ALL, "r1", raw_rows(TEXTS))
  path = store.storage.path(f"{store.folder}/{name}")
  data = path.read_bytes()
  for i in range(0, len(data), 7):
    path.write_bytes(data[:i] + bytes([data[i] ^ 0xFF]) + data[i + 1 :])
    assert store.glance(name).dtype == "S16"


def test_columns_are_checked_whichever_are_read(store, tmp_path):
  name = store.write(ALL, "r1", raw_rows(TEXTS))
  with pytest.raises(DamagedFileError, match=": columns "):
    make_plan(tmp_path, hidden_size=H + 1).store.digests(name)


def test_vectors_of_another_width(store, tmp_path):
  name = store.write(ALL, "r1", raw_rows(TEXTS))
  other = make_plan(tmp_path, hidden_size=H + 1).store
  with pytest.raises(DamagedFileError, match=rf"^{store.folder}/{name}: columns "):
    other.read(name)


def test_probabilities_of_a_head(tmp_path):
  store = make_plan(tmp_path, predictions=Predictions(("a", "b"))).store
  probabilities = np.float32([[0.25, 0.75], [0.5, 0.5]])
  plain = raw_rows(TEXTS[:2])
  columns = [*plain.columns, to_vectors(probabilities)]
  name = store.write(ALL, "r1", pa.table(columns, schema=raw_schema(H, 2)))
  assert probabilities_of(store.read(name)).tobytes() == probabilities.tobytes()
  assert probabilities_of(plain).shape == (2, 0)
  other = store.write(ALL, "r2", plain)
  with pytest.raises(DamagedFileError, match=rf"^{store.folder}/{other}: columns "):
    store.read(other)
