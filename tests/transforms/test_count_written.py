import pickle
import random

import numpy as np

from tests.run_parts import run_on_beam
from transforms.count_written import CountWritten, CountWrittenFn
from transforms.records import WrittenRecord

COUNTS = [{0: 3}, {}, {2: 5, 0: 1}, {1: 2}, {2: 1}]
EXPECTED = [4, 2, 6]


def add(fn, counts):
  accumulator = fn.create_accumulator()
  for count in counts:
    accumulator = fn.add_input(accumulator, count)
  return accumulator


def test_every_split_gives_the_same_sums():
  fn = pickle.loads(pickle.dumps(CountWrittenFn(3)))
  random.Random(0).shuffle(COUNTS)
  for split in range(len(COUNTS) + 1):
    parts = [add(fn, COUNTS[:split]), add(fn, COUNTS[split:])]
    assert fn.extract_output(fn.merge_accumulators(iter(parts))).tolist() == EXPECTED
  assert fn.extract_output(fn.merge_accumulators([])).tolist() == [0, 0, 0]
  assert fn.extract_output(fn.create_accumulator()).dtype == np.int64


def test_what_is_shipped_grows_with_the_files_met_not_with_all_of_them():
  fn = CountWrittenFn(1_000_000)
  assert len(pickle.dumps(add(fn, COUNTS))) < 200


def test_one_record_on_beam(tmp_path):
  assert run_on_beam(tmp_path / "1", COUNTS, CountWritten(3)) == [WrittenRecord((4, 2, 6))]
  assert run_on_beam(tmp_path / "2", [], CountWritten(2)) == [WrittenRecord((0, 0))]
