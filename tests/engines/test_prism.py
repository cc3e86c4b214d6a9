"""Jobs of ours on Prism: a job server of its own, which is no Python, with workers in processes of their own.

`make test-prism` runs this. Prism tries nothing again, so that a job which loses its worker fails, and the next one has
to find what was flushed.
"""

import subprocess
import sys

from tests.conftest import REPOSITORY
from tests.engines.jobs import (
  SlowJob,
  assert_same,
  assert_same_rows,
  here,
  newest_manifest,
  of_demo,
  of_paragraphs,
  rows_stored,
)
from tests.integration.run_files import published_runs
from tests.processes import is_alive, wait_for


def there(prism, *words):
  """Runs `sorbus embed` on Prism, as a person would."""
  argv = [sys.executable, "-m", "pipeline", "embed", *map(str, words), *prism.words]
  done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-4000:]


def test_the_demo(prism, demo, tmp_path):
  here(*of_demo(demo, tmp_path / "here"))
  there(prism, *of_demo(demo, tmp_path / "there"))
  assert_same(tmp_path / "here", tmp_path / "there")


def test_paragraphs(prism, paragraphs, local_paragraphs, demo, tmp_path):
  there(prism, *of_paragraphs(paragraphs, demo, tmp_path / "there"))
  assert_same(local_paragraphs, tmp_path / "there")


def test_a_worker_is_killed_in_the_middle(prism, tmp_path):
  """The job says so and ends; the next one encodes what had not been flushed, and nothing else."""
  job = SlowJob(prism, tmp_path)
  wait_for(lambda: job.is_in_the_middle, "raw files of the first buckets")
  killed = prism.kill_worker()
  assert job.end() == 1 and not is_alive(killed), job.said
  assert "Traceback" not in job.said and "PortableRunner: " in job.said.splitlines()[-1]
  assert not published_runs(job.dataset)
  flushed = rows_stored(job.dataset)
  job.start(prism, 0)
  job.finish()
  job.run_here(tmp_path / "here")
  counts = newest_manifest(job.dataset)["counts"]
  assert (counts["reused"], counts["encoded"]) == (flushed, counts["distinct"] - flushed) and flushed
  assert rows_stored(job.dataset) == counts["distinct"]
  assert_same_rows(tmp_path / "here", job.dataset)
