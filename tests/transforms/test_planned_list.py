import pickle

import pyarrow as pa
import pytest

from transforms.base_run import BaseShard
from transforms.errors import StoreError
from transforms.input_types import InputFile, RowGroup, Slice
from transforms.planned_list import PlannedList
from transforms.storage import Storage, StoredFile

FILES = (
  InputFile("s3://b/ä b.jsonl.gz", "ä b.jsonl.gz", 10, "etag", "jsonl", "gzip", 40),
  InputFile("/in/a.parquet", "a.parquet", 99, "", "parquet", None, 7, (RowGroup(3, 5), RowGroup(1, 2))),
  InputFile("/in/empty.parquet", "empty.parquet", 9, "1", "parquet", None, 0, ()),
)
SLICES = (Slice(0), Slice(1, 0, 1), Slice(1, 1, 2, limit=7))
SHARDS = (BaseShard(5, 4, StoredFile("runs/r1/vectors/part.parquet", 1, 2, "f")),)


@pytest.fixture
def storage(tmp_path):
  return Storage.at(str(tmp_path))


def _write(storage, kind, values):
  return PlannedList.write(storage, "runs/r1/planned", "values", kind, values)


@pytest.mark.parametrize(("kind", "values"), [(InputFile, FILES), (Slice, SLICES), (BaseShard, SHARDS), (Slice, ())])
def test_it_holds_what_was_written_also_where_it_arrives(storage, kind, values):
  there = pickle.loads(pickle.dumps(_write(storage, kind, values)))
  assert (len(there), tuple(there), there[:2]) == (len(values), values, values[:2])
  assert [there[i] for i in range(len(values))] == list(values)
  with pytest.raises(IndexError):
    there[len(values)]


def test_types_of_columns_stay_behind(storage):
  file = InputFile("/in/a.parquet", "a.parquet", 99, "", "parquet", None, 7, (), (pa.string(),))
  assert _write(storage, InputFile, [file])[0].kept_types == ()


def test_pickled_it_does_not_grow(storage):
  small, large = (_write(storage, Slice, [Slice(i) for i in range(n)]) for n in (1, 10_000))
  assert len(pickle.dumps(large)) - len(pickle.dumps(small)) < 10


def test_a_file_that_is_another_or_gone_is_refused(storage):
  there = _write(storage, Slice, SLICES[:2])
  storage.write(there.file.path, storage.read(there.file.path).replace(b"1", b"2"))
  with pytest.raises(StoreError, match=r"runs/r1/planned/values-\w+\.jsonl: damaged .* run again"):
    there[0]
  storage.remove(there.file.path)
  with pytest.raises(StoreError, match=r"runs/r1/planned/values-\w+\.jsonl: .* is gone; run again"):
    list(there)


def test_it_is_read_once_in_a_process(storage):
  there = _write(storage, Slice, [*SLICES, Slice(41)])
  first = there[0]
  storage.remove(there.file.path)
  assert pickle.loads(pickle.dumps(there))[0] == first
