import json

import pytest

import benchmarks.measure
from benchmarks.estimate import keep


@pytest.fixture
def results(tmp_path, monkeypatch):
  monkeypatch.setattr(benchmarks.measure, "RESULTS", tmp_path)

  def read():
    runs = json.loads((tmp_path / "estimate.json").read_text())["runs"]
    return {(run["corpus"], run["precision"]): [each["n"] for each in run["rounds"]] for run in runs}

  return read


def test_rounds_are_added_to_those_of_the_same_corpus(results):
  keep("a", "float32", {"n": 1}, anew=False)
  keep("b", "float32", {"n": 2}, anew=False)
  keep("a", "float32", {"n": 3}, anew=False)
  keep("a", "bfloat16", {"n": 4}, anew=False)
  assert results() == {("a", "float32"): [1, 3], ("b", "float32"): [2], ("a", "bfloat16"): [4]}
  keep("a", "float32", {"n": 5}, anew=True)
  assert results() == {("a", "float32"): [5], ("b", "float32"): [2], ("a", "bfloat16"): [4]}


def test_another_machines_rounds_are_forgotten(results, tmp_path):
  (tmp_path / "estimate.json").write_text('{"machine": {}, "runs": [{"corpus": "a", "precision": "x", "rounds": []}]}')
  keep("b", "float32", {"n": 1}, anew=False)
  assert results() == {("b", "float32"): [1]}
