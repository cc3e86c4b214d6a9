import pickle
from dataclasses import replace

import apache_beam as beam
import numpy as np
import pytest

from tests.run_parts import A_FILE_FOR_EACH_TEXT, H, encode_by_bucket, make_plan, run_on_beam
from transforms import write_vectors
from transforms.measure_ranges import MeasureRanges, RangesCombineFn
from transforms.rows import Row
from transforms.settle_ids import SettledBucket, read_documents_file
from transforms.vector_table import from_vectors, read_parquet, vectors_schema
from transforms.vector_types import LEAST_RANGE, ranges_of
from transforms.whitening import Whitening
from transforms.write_vectors import NoWhitening, ShardWriter

K = 3
KERNEL = np.linalg.qr(np.random.default_rng(3).normal(size=(H, H)))[0][:, :K]
WHITENING = Whitening(np.full(H, 0.125), KERNEL, np.empty(0), 0, "")
ROWS = [Row(i, f"id {i:02d}", f"red tree {i % 20}", ()) for i in range(30)]
PARTS = [np.float32([1, 2, 3]), np.float32([3, 1, 1]), np.float32([2, 2, 4])]


def test_the_accumulator_keeps_the_contract_of_combine():
  fn = RangesCombineFn()
  empty, full = fn.create_accumulator(), fn.add_inputs(fn.create_accumulator(), iter(PARTS))
  assert fn.extract_output(full).tolist() == [3, 2, 4]
  for split in range(4):
    sides = [fn.add_inputs(empty, PARTS[:split]), fn.add_inputs(empty, PARTS[split:])]
    assert fn.merge_accumulators(side for side in sides).tolist() == [3, 2, 4]
  for sides in [(), (empty,), (empty, empty)]:
    assert fn.extract_output(fn.merge_accumulators(sides)) == LEAST_RANGE
  coder = fn.get_accumulator_coder()
  for accumulator in (empty, full):
    assert pickle.loads(pickle.dumps(accumulator)).tobytes() == accumulator.tobytes()
    assert coder.decode(coder.encode(accumulator)).tobytes() == accumulator.tobytes()


class Measure(beam.PTransform):
  def __init__(self, plan, whitening):
    super().__init__()
    self.plan, self.whitening = plan, whitening

  def expand(self, settled):
    return settled | MeasureRanges(self.plan, settled.pipeline | "Whitening" >> beam.Create([self.whitening]))


def settle(plan, *dropped):
  return [SettledBucket(record, np.array(dropped, np.int64)) for record in encode_by_bucket(plan, ROWS)]


def written(plan, settled):
  """All vectors of the shards, float32."""
  schema = vectors_schema(K, plan.kept)
  paths = [record.vectors.path for record in (ShardWriter(plan, WHITENING).write(bucket) for bucket in settled)]
  return np.concatenate([from_vectors(read_parquet(plan.storage.read(path), path, schema)["vector"]) for path in paths])


@pytest.mark.parametrize(("bits", "texts_per_pass"), [(0, 4096), (2, 3), (3, 1)])
def test_ranges_are_those_of_the_written_vectors_to_the_bit(tmp_path, monkeypatch, bits, texts_per_pass):
  monkeypatch.setattr(write_vectors, "TEXTS_PER_PASS", texts_per_pass)
  plan = make_plan(tmp_path / "ds", bits=bits, **A_FILE_FOR_EACH_TEXT)
  settled = settle(plan)
  (ranges,) = run_on_beam(tmp_path / "out", settled, Measure(plan, WHITENING))
  assert ranges.tobytes() == ranges_of(written(plan, settled)).tobytes()


def test_documents_that_lost_their_id_do_not_count(tmp_path):
  plan = make_plan(tmp_path / "ds")
  (whole,) = settle(plan)
  digests = read_documents_file(plan, whole.record)["text_digest"].to_pylist()
  last = [i for i, digest in enumerate(digests) if digest != digests[0]]  # all but the first text's
  (left,) = run_on_beam(tmp_path / "out", settle(plan, *last), Measure(plan, WHITENING))
  assert left.tobytes() == np.abs(written(plan, [whole])[0]).tobytes()


@pytest.mark.parametrize(
  "whitening", [NoWhitening("too few"), replace(WHITENING, ranges=np.float32([1, 1, 1]))], ids=["none", "has them"]
)
def test_nothing_is_read_where_nothing_is_to_be_measured(tmp_path, whitening):
  plan = make_plan(tmp_path / "ds")
  settled = settle(plan)
  plan.storage.remove_folder("raw")
  (ranges,) = run_on_beam(tmp_path / "out", settled, Measure(plan, whitening))
  assert ranges == LEAST_RANGE
