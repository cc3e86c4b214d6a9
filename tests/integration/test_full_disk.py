"""A full disk: the run fails in one line that names the file and publishes nothing; the next, with space, finishes."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.integration.full_disk import STAGES

NAMESPACE = ("unshare", "--map-root-user", "--mount")
# What the message has to name.
NAMED = {"raw file": "raw/", "documents": "/documents/", "vectors": "/vectors/part-0000"}
NAMED |= {"manifest": "/manifest.json"}


def cannot_mount(folder):
  """Why there can be no small disk here; None if there can."""
  if not shutil.which("unshare") or not shutil.which("mount"):
    return "needs unshare and mount, which are not on this machine"
  tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True)
  return f"needs a mount namespace: {tried.stderr.strip()}" if tried.returncode else None


@pytest.fixture(scope="module")
def results(tmp_path_factory):
  folder = tmp_path_factory.mktemp("disk")
  if why := cannot_mount(folder):
    pytest.skip(why)
  command = [*NAMESPACE, sys.executable, "-m", "tests.integration.full_disk", str(folder)]
  done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def assert_told(code, said):
  """One line names the file and what is wrong with the disk."""
  assert code in (1, 2) and "Traceback" not in said, said
  (line,) = [line for line in said.splitlines() if line.startswith("sorbus: error: ")]
  assert "No space left on device" in line, line
  return line.split(":")[2]


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_on_a_full_disk_publishes_nothing_and_the_next_one_finishes(results, stage):
  result = results["stages"][stage]
  assert result["was_full"]
  assert NAMED[stage] in assert_told(result["code"], result["said"])
  assert result["code"] == 1
  assert result["left"] == []
  assert result["published"] == result["before"] and result["sound"]
  assert result["next_code"] == 0 and result["next_equals"], result["next_said"]


def test_a_disk_that_grows_is_filled_again_and_again_until_the_run_fits(results):
  *failed, (code, said) = results["growing"]
  assert code == 0, said
  for code, said in failed:
    assert "/" in assert_told(code, said)
