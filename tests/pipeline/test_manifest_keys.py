import copy

import pytest

from pipeline.manifest_keys import find_fault
from tests.manifests import MANIFEST, manifest


def paths(value, prefix=()):
  """The path of every key, of every level."""
  for key, child in value.items():
    yield (*prefix, key)
    if isinstance(child, dict):
      yield from paths(child, (*prefix, key))


# Not asked for by any reader, or there only sometimes.
FREE = {("format_version",), ("options", "threshold")}
MAY_BE_NONE = {("whitening", "kept_variance"), ("changes", "against"), ("changes", "problem")}
FREE |= {path for path in paths(MANIFEST) if path[:2] == ("counts", "rejected") and len(path) == 3}
FREE |= {path for path in paths(MANIFEST) if path[0] == "verdicts" and len(path) == 2}


def test_what_sorbus_writes_can_be_read():
  assert find_fault(MANIFEST) is None
  assert find_fault(manifest(whitening={"kept_variance": None})) is None
  assert find_fault({**MANIFEST, "changes": None, "whitening": {"asked": "fit", "refused": "too few"}}) is None
  assert find_fault(manifest(new="key", counts={"more": "count"})) is None  # a later Sorbus may say more


@pytest.mark.parametrize("path", sorted(set(paths(MANIFEST)) - FREE), ids=".".join)
@pytest.mark.parametrize("wrong", ["gone", None])
def test_each_key_that_is_read_has_to_be_there(path, wrong):
  value = copy.deepcopy(MANIFEST)
  *above, last = path
  parent = value
  for key in above:
    parent = parent[key]
  if wrong == "gone":
    del parent[last]
    assert find_fault(value) == f"has no {'.'.join(path)!r}"
  elif path not in MAY_BE_NONE:
    parent[last] = wrong
    assert find_fault(value) == f"has NoneType as {'.'.join(path)!r}"


@pytest.mark.parametrize(
  ("changes", "fault"),
  [
    ({"counts": []}, "has list as 'counts'"),
    ({"counts": {"read": "many"}}, "has str as 'counts.read'"),
    ({"counts": {"rejected": {"null": None}}}, "has NoneType as 'counts.rejected.null'"),
    ({"files": {"vectors": [{}]}}, "has no 'files.vectors.0.path'"),
    ({"files": {"moments": {}}}, "has dict as 'files.moments'"),
    ({"by_input": [{"read": 1, "written": 1}]}, "has no 'by_input.0.rejected'"),
    ({"inputs": [1]}, "has int as 'inputs.0'"),
    ({"inputs": [{"name": "a", "bytes": 1}]}, "has no 'inputs.0.url'"),
    ({"bad_files": [1]}, "has int as 'bad_files.0'"),
    ({"raw_files": ["a", None]}, "has NoneType as 'raw_files.1'"),
    ({"whitening": []}, "has list as 'whitening'"),
    ({"verdicts": {"rejected": {"passed": True}}}, "has no 'verdicts.rejected.finding'"),
    ({"replay": None}, "has NoneType as 'replay'"),
    ({"replay": {"run_id": "r0", "rejected": 1, "written": 1, "still_rejected": {}}}, "has no 'replay.gone'"),
    ({"replay": {"run_id": "r0", "problem": 1}}, "has int as 'replay.problem'"),
  ],
)
def test_what_is_of_another_type_is_a_fault(changes, fault):
  assert find_fault({**MANIFEST, **changes} if "replay" in changes else manifest(**changes)) == fault


DRIFT = {"against": "r0", "mean": 0.1, "covariance": 0.2, "neighbours": None, "sample": 9, "reason": "too few"}


def test_drift_may_be_missing_or_null_but_not_something_else():
  assert find_fault(MANIFEST | {"drift": None}) is None
  assert find_fault(MANIFEST | {"drift": DRIFT}) is None
  assert find_fault(MANIFEST | {"drift": 3}) == "has int as 'drift'"
  assert find_fault(MANIFEST | {"drift": DRIFT | {"mean": "0.1"}}) == "has str as 'drift.mean'"
  for key in DRIFT:
    assert find_fault(MANIFEST | {"drift": {k: v for k, v in DRIFT.items() if k != key}}) == f"has no 'drift.{key}'"
