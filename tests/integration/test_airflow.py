"""The DAG of deploy/schedule, loaded and run by Airflow itself; `make test-airflow` runs this."""

import json
import os
import subprocess

import pytest

from tests.conftest import REPOSITORY

AIRFLOW = REPOSITORY / ".venv-airflow" / "bin" / "python"
pytestmark = pytest.mark.skipif(
  not (AIRFLOW.parent.parent / "ready").exists(),
  reason="needs Airflow, which has an environment of its own: make test-airflow",
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
  """What Airflow makes of the file, without examples or a database that is somebody's."""
  home = tmp_path_factory.mktemp("airflow")
  environment = os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
  command = [AIRFLOW, "tests/integration/run_airflow.py", "deploy/schedule/airflow_dag.py"]
  done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def test_airflow_loads_it(loaded):
  assert loaded["errors"] == {}
  assert loaded["tasks"] == {"embed": ["gc"], "gc": []}
  assert (loaded["schedule"], loaded["catchup"], loaded["max_active_runs"]) == ("30 3 * * *", False, 1)
  assert loaded["retries"] == {"embed": 48, "gc": 48}


@pytest.mark.parametrize(
  ("code", "raised"),
  [
    (0, None),
    (1, "AirflowFailException"),  # at once and for good
    (2, "AirflowFailException"),
    (75, "AirflowException"),  # which is tried again
    (130, "AirflowException"),
    (-9, "AirflowException"),
  ],
)
def test_what_is_tried_again(loaded, code, raised):
  assert loaded["raised"][str(code)] == raised
