"""A file system that fails or hangs at any operation, or fails for good from there on: told in a line, mended by
running again, and nothing wrong is published meanwhile.

Four operations, spread over all of a run, are among the tests of every day; `make test-kill` takes many more.
"""

import os
import shutil
import time

import pytest

from tests.failing_files import fail, hang
from tests.integration.nightly_command import Night
from tests.integration.run_files import published_runs

N_FAULTS = int(os.environ.get("SORBUS_FAULTS", "4"))
FOREVER = 1 << 30


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
  """A night on a file system that works."""
  night = Night(tmp_path_factory.mktemp("clean"))
  assert night.run()[0] == 0
  return night


@pytest.mark.parametrize("k", range(N_FAULTS))
def test_any_operation_may_fail_once_or_for_good(clean, tmp_path, k):
  night, n = Night(tmp_path), 1 + k * len(clean.operations) // N_FAULTS
  if k % 2:  # a published run to lose; a night upon it has about as many operations
    shutil.copytree(clean.dataset, night.dataset)
  before = published_runs(night.dataset)
  code, said = night.run(fail(n, FOREVER if k % 4 >= 2 else None))
  assert code in (0, 1, 2) and "Traceback" not in said, (night.operations[n - 1 :][:1], said)
  if code:
    assert said.splitlines()[-1].startswith("sorbus: error: ") and "Input/output error" in said, said
  assert published_runs(night.dataset)[: len(before)] == before
  assert night.is_sound()
  code, said = night.run()
  assert code == 0, said
  assert night.is_sound() and night.equals(clean)


def test_a_file_system_that_hangs_only_costs_the_time(clean, tmp_path):
  night, n = (
    Night(tmp_path),
    next(n for n, what in enumerate(clean.operations, 1) if what.startswith("read /") and "/raw/" in what),
  )
  started = time.monotonic()
  code, said = night.run(hang(n, 2.0))
  assert code == 0 and len(night.operations) >= n and time.monotonic() - started > 2, said
  assert night.is_sound() and night.equals(clean)
