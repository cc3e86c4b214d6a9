"""What of `pipeline/search.py` needs no encoder; the rest is in tests/integration/test_search.py."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.published_rows import PublishedRows
from pipeline.search import Searcher, _hits


def group(**columns):
  return pa.table({"doc_id": ["a", "b", "c"], "vector": [0, 0, 0], "n_tokens": [3, 3, 3], **columns})


def test_the_best_rows_and_what_was_kept_of_them():
  hits = _hits(group(lang=["x", "y", "z"]), np.float32([0.5, 0.25, 0.75]), 2, {"lang"})
  assert [(hit.score, hit.doc_id, hit.kept) for hit in hits] == [(0.5, "a", {"lang": "x"}), (0.75, "c", {"lang": "z"})]


def test_no_column_is_read_that_a_hit_does_not_have():
  head, kept = {"head": "sigmoid", "labels": ["l"]}, {"lang": "string"}
  assert searcher(head, kept)._columns == ["doc_id", "lang", "labels", "vector"]
  assert searcher({"head": "softmax", "labels": ["l"]}, kept)._columns == ["doc_id", "lang", "vector"]
  assert searcher({}, {"labels": "string"})._columns == ["doc_id", "labels", "vector"]  # the input's own


def searcher(encoder, kept):
  """One of a run, without an encoder to search by."""
  return Searcher(PublishedRows(None, {"encoder": encoder, "kept_columns": kept}), None, None)


def test_ties_with_the_last_are_left_to_the_caller():
  assert [hit.doc_id for hit in _hits(group(), np.float32([0.5, 0.5, 0.75]), 2, ())] == ["a", "b", "c"]


FAR = [0, 253_402_300_800_000_000, None]  # microseconds: the second is in the year 10000


@pytest.mark.parametrize(
  "kind", [pa.timestamp("us"), pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("us", "Nowhere/At")]
)
def test_a_time_that_python_cannot_hold_is_given_as_it_is_stored(kind):
  hits = _hits(group(at=pa.array(FAR, pa.int64()).view(kind)), np.float32([1, 1, 1]), 3, {"at"})
  assert [hit.kept["at"] for hit in hits] == FAR


def test_what_a_head_added_is_not_taken_for_a_kept_column():
  theirs = _hits(group(labels=["x", "y", "z"]), np.float32([1, 0, 0]), 1, {"labels"})
  assert [(hit.kept, hit.labels) for hit in theirs] == [({"labels": "x"}, None)]
  predicted = group(probabilities=[[0.5], [0.25], [1]], labels=[["l"], [], ["l"]], lang=["x", "y", "z"])
  ours = _hits(predicted, np.float32([1, 0.5, 0]), 2, {"lang"})
  assert [(hit.kept, hit.labels) for hit in ours] == [({"lang": "x"}, ["l"]), ({"lang": "y"}, [])]
