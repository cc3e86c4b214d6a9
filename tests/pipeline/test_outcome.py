import datetime

import pytest

from pipeline.dataset import Dataset
from pipeline.outcome import Outcome, find_outcome
from tests.manifests import manifest

NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
  ("passed", "others", "status", "code"),
  [
    (True, ["r0", "r1"], "published", 0),
    (True, ["r0", "r1", "r2", "r0"], "published", 0),  # whatever came after it
    (True, ["r0", "r2"], "overtaken", 75),
    (True, ["r0", "r2", "r1"], "overtaken", 75),  # by hand, later: not what its own job came to
    (True, ["r0"], None, None),
    (False, ["r0"], "held back", 1),
    (False, ["r0", "r2"], "held back", 1),
  ],
)
def test_what_came_of_a_run_planned_upon_the_first(tmp_path, passed, others, status, code):
  dataset = Dataset.open_or_create(str(tmp_path), {"fingerprint": "ab", "tokenizer": {}})
  for base, run_id in enumerate(others):
    dataset.publish(run_id, base, NOON)
  value = manifest(base=1, verdicts={"rejected": {"passed": passed, "finding": ""}})
  found = find_outcome(dataset, value)
  assert found == (Outcome(status, value) if status else None)
  assert found is None or found.exit_code == code


def test_nothing_changed_is_no_failure():
  assert Outcome("unchanged", {}).exit_code == 0
