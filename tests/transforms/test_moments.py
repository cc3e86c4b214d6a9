"""The laws of Moments, held for the value and for its Beam accumulator."""

import io
import pickle

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.util import assert_that

from transforms.combine_moments import MomentsCombineFn
from transforms.errors import StoreError
from transforms.moments import FORMAT_VERSION, Moments, VectorBlock

N, H = 40, 5
VECTORS = np.random.default_rng(1).normal(3.0, 2.0, (N, H)).astype(np.float32)
COVARIANCE = np.cov(VECTORS.astype(np.float64), rowvar=False)


def assert_same(actual, expected, rtol=1e-12):
  """Compares to `rtol` of the largest entry: single entries near 0 have no relative precision to keep."""
  assert actual.count == expected.count
  for name in ("mean", "scatter"):
    found, wanted = getattr(actual, name), getattr(expected, name)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=rtol * max(np.abs(wanted).max(), 1e-300), err_msg=name)


def assert_identical(actual, expected):
  assert_same(actual, expected, rtol=0)


def test_literal_moments_of_three_points():
  moments = Moments.from_vectors(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0]]))
  assert moments.count == 3
  assert moments.mean.tolist() == [2.0, 2.0]
  assert moments.scatter.tolist() == [[8.0, 6.0], [6.0, 6.0]]
  assert moments.covariance().tolist() == [[4.0, 3.0], [3.0, 3.0]]


def test_covariance_is_numpys():
  np.testing.assert_allclose(Moments.from_vectors(VECTORS).covariance(), COVARIANCE, rtol=1e-12)


def test_empty_is_neutral_on_both_sides():
  moments, empty = Moments.from_vectors(VECTORS), Moments.empty(H)
  assert_identical(empty + moments, moments)
  assert_identical(moments + empty, moments)
  assert_identical(empty + empty, empty)


@pytest.mark.parametrize("split", range(N + 1))
def test_every_split_point_gives_the_same(split):
  halves = Moments.from_vectors(VECTORS[:split]) + Moments.from_vectors(VECTORS[split:])
  assert_same(halves, Moments.from_vectors(VECTORS))


def test_merge_is_associative_and_commutative():
  a, b, c = (Moments.from_vectors(part) for part in np.split(VECTORS, [1, 9]))
  assert_same((a + b) + c, a + (b + c))
  assert_same(a + b, b + a)


def test_a_weight_counts_a_vector_as_often_as_it_occurs():
  weights = np.random.default_rng(2).integers(0, 4, N)
  weighted = Moments.from_vectors(VECTORS, weights)
  assert_same(weighted, Moments.from_vectors(np.repeat(VECTORS, weights, axis=0)))
  assert_identical(Moments.from_vectors(VECTORS, np.zeros(N, np.int64)), Moments.empty(H))


def test_a_mean_a_million_times_the_deviation_costs_no_digits():
  shifted = VECTORS.astype(np.float64) + 1e6
  blocks = [Moments.from_vectors(block) for block in np.split(shifted, [3, 20, 21])]
  merged = sum(blocks, Moments.empty(H))
  # The sum itself rounds each value to 1e-10; the textbook E[xxᵀ] - μμᵀ is off by 1e-3 here.
  np.testing.assert_allclose(merged.covariance(), COVARIANCE, rtol=0, atol=1e-8)


def test_scatter_is_symmetric_to_the_bit():
  moments = Moments.from_vectors(VECTORS[:7]) + Moments.from_vectors(VECTORS[7:])
  assert (moments.scatter == moments.scatter.T).all()


@pytest.mark.parametrize("count", [0, 1])
def test_covariance_of_fewer_than_two_is_refused(count):
  with pytest.raises(ValueError, match=f"needs 2 vectors, there are {count}"):
    Moments.from_vectors(VECTORS[:count]).covariance()


@pytest.mark.parametrize(
  ("vectors", "weights"),
  [
    (np.array([[1.0, np.nan]]), None),
    (np.array([[1.0, -np.inf]]), None),
    (np.array([1.0, 2.0]), None),
    (np.ones((2, 3)), np.array([1])),
    (np.ones((2, 3)), np.array([1, -1])),
    (np.ones((2, 3)), np.array([0.5, 0.5])),
  ],
)
def test_what_would_spoil_every_later_merge_is_refused(vectors, weights):
  with pytest.raises(ValueError, match="expected"):
    Moments.from_vectors(vectors, weights)


def test_widths_that_differ_are_not_merged():
  with pytest.raises(ValueError, match="width 5 and 6"):
    Moments.empty(5) + Moments.empty(6)


def test_bytes_and_pickle_give_the_same_back():
  moments = Moments.from_vectors(VECTORS)
  assert_identical(Moments.from_bytes(moments.to_bytes()), moments)
  assert_identical(pickle.loads(pickle.dumps(moments)), moments)
  assert Moments.from_bytes(moments.to_bytes()).to_bytes() == moments.to_bytes()


def _npz(**changes):
  arrays = {"format_version": FORMAT_VERSION, "count": 2, "mean": np.zeros(3), "scatter": np.eye(3)} | changes
  buffer = io.BytesIO()
  np.savez(buffer, **{key: value for key, value in arrays.items() if value is not None})
  return buffer.getvalue()


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"", "not a readable"),
    (_npz()[:-30], "not a readable"),
    (_npz(mean=np.array([{}, {}, {}])), "not a readable"),
    (_npz(format_version=None), "states no format_version"),
    (_npz(format_version=7), f"has format 7, this Sorbus reads {FORMAT_VERSION}: use the newer"),
    (_npz(format_version=0), "has format 0, .*write it anew"),
    (_npz(mean=None), "has no array 'mean'"),
    (_npz(scatter=np.eye(4)), r"scatter is float64\[4, 4\], expected f8\[3, 3\]"),
    (_npz(mean=np.zeros(3, np.float32)), r"mean is float32"),
    (_npz(count=2.0), "count is float64"),
    (_npz(count=-1), "count is -1"),
    (_npz(scatter=np.full((3, 3), np.nan)), "scatter holds NaN"),
  ],
)
def test_a_file_that_is_not_ours_is_refused_by_name(data, message):
  with pytest.raises(StoreError, match=f"^night.npz.*{message}"):
    Moments.from_bytes(data, "night.npz")


WEIGHTS = np.random.default_rng(7).integers(1, 4, N)


def _blocks():
  for rows in np.split(np.arange(N), [4, 4, 30]):  # the second block is empty
    yield VectorBlock(VECTORS[rows], WEIGHTS[rows])


def test_the_accumulator_keeps_the_contract_of_combine():
  fn, expected = MomentsCombineFn(H), Moments.from_vectors(VECTORS, WEIGHTS)
  coder = fn.get_accumulator_coder()
  empty = fn.create_accumulator()
  full = fn.add_inputs(empty, _blocks())
  assert_same(fn.extract_output(full), expected)
  assert_same(fn.merge_accumulators(fn.add_input(empty, block) for block in _blocks()), expected)
  for sides in [(), (empty,), (empty, empty)]:
    assert fn.extract_output(fn.merge_accumulators(sides)).count == 0
  for sides in [(empty, full), (full, empty)]:
    assert_identical(fn.merge_accumulators(sides), full)
  assert_identical(pickle.loads(pickle.dumps(full)), full)
  assert_identical(coder.decode(coder.encode(full)), full)


def test_beams_accumulator_costs_its_arrays_and_no_more():
  """The cloudpickle coder would write the class with every accumulator: 770 ms a round trip, not 2 ms."""
  fn = MomentsCombineFn(768)
  encoded = fn.get_accumulator_coder().encode(fn.create_accumulator())
  assert len(encoded) < 8 * (768 * 768 + 768) + 1000


def test_in_a_pipeline_the_moments_are_those_of_all_blocks():
  def check(found):
    assert_same(found[0], Moments.from_vectors(VECTORS, WEIGHTS))

  with beam.Pipeline(runner="FnApiRunner") as pipeline:
    moments = pipeline | beam.Create(list(_blocks())) | beam.CombineGlobally(MomentsCombineFn(H))
    assert_that(moments, check)
