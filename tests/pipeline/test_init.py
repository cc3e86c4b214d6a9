"""What importing the package does to its process."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

_CODE = "import sys, pipeline, os; print(os.environ['OPENBLAS_NUM_THREADS'], 'numpy' in sys.modules)"


@pytest.mark.parametrize(("given", "taken"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")])
def test_blas_has_one_thread_unless_told_otherwise_and_that_is_said_before_numpy_is_there(given, taken):
  environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"} | given
  command = [sys.executable, "-c", _CODE]
  done = subprocess.run(command, env=environment, cwd=REPOSITORY, check=True, capture_output=True, text=True)
  assert done.stdout.split() == [taken, "False"]
