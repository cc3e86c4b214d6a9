import json

import numpy as np
import pyarrow as pa
import pytest

from transforms.encoder_spec import Head
from transforms.errors import UsageError
from transforms.predictions import NO_PREDICTIONS, Predictions
from transforms.vector_table import from_vectors

PROBABILITIES = np.float32([[0.5, 0.75, 0.0], [0.25, 0.0, 0.125], [1.0, 0.5000001, 1.0]])
SIGMOID = Predictions(("joy", "财经", 'a "quote"'), 0.5)


def labels_above(threshold, probabilities=PROBABILITIES):
  return Predictions(SIGMOID.labels, threshold).columns(probabilities)[1].to_pylist()


def test_without_a_head_nothing_is_added():
  assert Predictions.of(None, None) == NO_PREDICTIONS
  assert (NO_PREDICTIONS.fields, NO_PREDICTIONS.metadata) == ((), {})
  assert NO_PREDICTIONS.columns(np.empty((3, 0), np.float32)) == []


def test_a_softmax_head_adds_probabilities_only():
  found = Predictions.of(Head("softmax", ("a", "b", "c")), None)
  assert found == Predictions(("a", "b", "c"))
  assert [field.name for field in found.fields] == ["probabilities"] and found.metadata == {"labels": '["a", "b", "c"]'}
  [column] = found.columns(PROBABILITIES)
  assert column.type == found.fields[0].type and (from_vectors(column) == PROBABILITIES).all()


def test_a_sigmoid_head_adds_the_labels_that_hold():
  assert Predictions.of(Head("sigmoid", SIGMOID.labels), None) == SIGMOID
  columns = SIGMOID.columns(PROBABILITIES)
  assert [column.type for column in columns] == [field.type for field in SIGMOID.fields]
  assert columns[1].to_pylist() == [["财经"], [], ["joy", "财经", 'a "quote"']]  # 0.5 itself is not above 0.5
  assert json.loads(SIGMOID.metadata["labels"]) == list(SIGMOID.labels) and SIGMOID.metadata["threshold"] == "0.5"
  for column in columns:
    column.validate(full=True)


def test_the_threshold_is_strict_at_both_ends():
  assert labels_above(0.0) == [["joy", "财经"], ["joy", 'a "quote"'], ["joy", "财经", 'a "quote"']]
  assert labels_above(1.0) == [[], [], []]


def test_a_threshold_is_compared_as_a_reader_of_the_column_would():
  """0.3 as float32 is above the float64 0.3, 0.7 is below its own; rounded to float32 both would be equal to it."""
  probabilities = np.float32([[0.3, 0.7, 0.0]])
  assert labels_above(0.3, probabilities) == [["joy", "财经"]] and labels_above(0.7, probabilities) == [[]]


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_any_number_of_rows(rows):
  probabilities = np.random.default_rng(rows).random((rows, 3), np.float32)
  expected = [[SIGMOID.labels[i] for i in range(3) if row[i] > 0.5] for row in probabilities]
  table = pa.table(SIGMOID.columns(probabilities), schema=pa.schema(SIGMOID.fields))
  assert table["labels"].to_pylist() == expected


@pytest.mark.parametrize("head", [None, Head("softmax", ("a", "b"))])
def test_a_threshold_without_a_sigmoid_head_is_refused(head):
  with pytest.raises(UsageError, match=r"^--threshold 0\.25: this encoder has no sigmoid head, .*; leave it out, or"):
    Predictions.of(head, 0.25)
