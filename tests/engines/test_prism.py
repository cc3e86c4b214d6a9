"""Jobs of ours on Prism: a job server of its own, which is no Python, with workers in processes of their own.

`make test-prism` runs this. Prism tries nothing again, so that a job which loses its worker fails, and the next one has
to find what was flushed.
"""

import subprocess
import sys

from pipeline.model.freeze import FreezeOptions, freeze
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
from tests.integration.run_files import published_runs, write_shards
from tests.processes import is_alive, wait_for
from tests.tiny_sentence_piece import made_texts, tiny_bytes, tiny_model
from tests.tiny_xlnet import write_hugging_face_xlnet


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


def test_an_xlnet(prism, tmp_path):
  """Its tokenizer holds a SentencePiece model, which does not travel: each worker makes its own."""
  checkpoint = write_hugging_face_xlnet(tmp_path / "checkpoint", tiny_bytes(), vocab_size=len(tiny_model()))
  freeze(str(checkpoint), str(tmp_path / "encoder"), FreezeOptions(max_seq_length=16), lambda line: None)
  words = ["--input", write_shards(tmp_path / "input", [*made_texts(300)], 3), "--id-column", "id", "--n-components", 8]
  words += ["--encoder", tmp_path / "encoder", "--long-texts", "windows", "--dataset"]
  here(*words, tmp_path / "here")
  there(prism, *words, tmp_path / "there")
  assert_same(tmp_path / "here", tmp_path / "there")
