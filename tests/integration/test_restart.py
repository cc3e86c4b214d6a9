"""A killed run costs what it had not flushed; an overtaken one publishes nothing; the end can be repeated."""

import json
import os
import signal
import subprocess
import sys

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.embed import finish, outcome, run_wave
from pipeline.embed_plan import start_run
from pipeline.engines import choose_engine
from pipeline.graph import EmbedCorpus
from pipeline.options import EmbedOptions
from pipeline.planning import plan_run
from tests.conftest import REPOSITORY
from tests.integration.run_files import (
  embed_fake,
  published_runs,
  raw_files,
  read_vectors,
  run_folder,
  write_shards,
)
from tests.integration.slow_embed import TEXTS, slow_encoder
from tests.processes import wait_for
from transforms.input_files import ReadOptions
from transforms.planned_list import read_lines

BY_ID = ReadOptions(id_column="id")
N_DISTINCT = len(TEXTS)
EMBED = {"read": BY_ID, "n_components": 16, "buckets": 8, "threads": 2, "token_budget": 256}
HERE = choose_engine(threads=2)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  """600 texts, 60 of them twice."""
  return write_shards(tmp_path_factory.mktemp("restart") / "input", TEXTS + TEXTS[:60], 4)


@pytest.fixture(scope="module")
def uninterrupted(inputs, tmp_path_factory):
  """(doc ids, vectors) of a run that nobody disturbs."""
  dataset = tmp_path_factory.mktemp("uninterrupted") / "dataset"
  return read_vectors(dataset, embed_fake(slow_encoder(0), dataset, inputs, **EMBED).manifest)


def start_slow_run(inputs, dataset, waves=1):
  """Starts the command line in a process group of its own: 2 buckets of 30 batches, each flushed; 15 s in all."""
  options = {"--input": inputs, "--id-column": "id", "--encoder": "fake", "--dataset": dataset, "--threads": 2}
  options |= {"--buckets": 2, "--n-components": 16, "--token-budget": 256, "--flush-seconds": 0.2, "--waves": waves}
  arguments = [str(word) for pair in options.items() for word in pair]
  command = [sys.executable, "-m", "tests.integration.slow_embed", "0.5", "embed", *arguments]
  pipe = subprocess.PIPE
  return subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def wait_for_raw_files(process, dataset, n_files):
  """Waits until a run has flushed some files, and is still at work."""
  wait_for(lambda: process.poll() is not None or len(raw_files(dataset)) >= n_files, f"{n_files} raw files")
  assert process.poll() is None, process.communicate()


def rows_of(paths):
  return sum(pq.read_metadata(path).num_rows for path in paths)


def assert_finishes(dataset, inputs, uninterrupted, flushed, **options):
  """The next run encodes only what is not flushed, and gives what an undisturbed run gives."""
  assert 0 < flushed < N_DISTINCT, flushed
  next_run = embed_fake(slow_encoder(0), dataset, inputs, **EMBED | options)
  counts = next_run.manifest["counts"]
  assert next_run.status == "published", next_run.manifest["verdicts"]
  assert (counts["reused"], counts["encoded"]) == (flushed, N_DISTINCT - flushed)
  doc_ids, vectors = read_vectors(dataset, next_run.manifest)
  assert doc_ids == uninterrupted[0]
  np.testing.assert_allclose(vectors, uninterrupted[1], rtol=0, atol=1e-5)
  assert published_runs(dataset) == [next_run.manifest["run_id"]]


@pytest.mark.parametrize(("waves", "next_buckets"), [(1, 8), (2, 1)])
def test_a_killed_run_is_carried_on_from_what_it_flushed(inputs, uninterrupted, tmp_path, waves, next_buckets):
  dataset = tmp_path / "dataset"
  process = start_slow_run(inputs, dataset, waves)
  wait_for_raw_files(process, dataset, 5)  # more than buckets: also within one
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL
  assert published_runs(dataset) == []
  # Finer buckets than those of the run that was killed, and coarser ones.
  assert_finishes(dataset, inputs, uninterrupted, rows_of(raw_files(dataset)), buckets=next_buckets)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_publishes_nothing(inputs, uninterrupted, tmp_path, number):
  dataset = tmp_path / "dataset"
  process = start_slow_run(inputs, dataset)
  wait_for_raw_files(process, dataset, 2)
  process.send_signal(number)
  out, err = process.communicate(timeout=300)
  assert process.returncode == 130, err
  assert out == ""
  *_, planned, health, interrupted = err.splitlines()
  assert planned.startswith(f"run {unfinished_run(dataset)}: ")
  assert health.startswith(f"sorbus embed status=interrupted run={unfinished_run(dataset)} read=")
  assert interrupted.startswith("sorbus: interrupted;") and "run again" in interrupted
  assert published_runs(dataset) == []
  assert_finishes(dataset, inputs, uninterrupted, rows_of(raw_files(dataset)))


def unfinished_run(dataset):
  """The id of the one run, which has a plan and no manifest."""
  (run,) = (path for path in (dataset / "runs").iterdir() if not path.name.startswith("."))
  assert (run / "plan.json").exists() and not (run / "manifest.json").exists()
  return run.name


def test_what_a_killed_writer_left_half_written_does_no_harm(inputs, uninterrupted, tmp_path):
  """Temporary files are hidden and never taken for what they were to become."""
  dataset = tmp_path / "dataset"
  first = embed_fake(slow_encoder(0), dataset, inputs, **EMBED)
  (store,) = (dataset / "raw").iterdir()
  (store / ".tmp-0123").write_bytes(b"PAR1 half of a file")
  (dataset / "published" / ".tmp-4567").write_bytes(b"{")
  second = embed_fake(slow_encoder(0), dataset, inputs, **EMBED)
  assert second.manifest["counts"]["reused"] == N_DISTINCT
  assert published_runs(dataset) == [first.manifest["run_id"], second.manifest["run_id"]]
  np.testing.assert_array_equal(read_vectors(dataset, second.manifest)[1], uninterrupted[1])


def start(dataset, inputs):
  """(plan, records) of a run that has encoded everything and published nothing."""
  encoder = slow_encoder(0)
  options = EmbedOptions(inputs=(str(inputs),), encoder="fake", dataset=str(dataset), **EMBED)
  plan = plan_run(options, encoder.spec, 0, HERE)
  plan = start_run(plan, options, lambda line: None)
  return plan, run_wave(plan, 0, encoder.loaders(), HERE)


def test_a_run_whose_base_was_published_by_another_is_overtaken(inputs, tmp_path):
  dataset = tmp_path / "dataset"
  plan, records = start(dataset, inputs)
  other = embed_fake(slow_encoder(0), dataset, inputs, **EMBED)
  finish(plan, records, HERE)
  late = outcome(plan)
  assert (late.status, late.exit_code) == ("overtaken", 75)
  assert late.manifest["counts"]["written"] == len(TEXTS) + 60
  assert other.status == "published"
  assert published_runs(dataset) == [other.manifest["run_id"]]
  assert (dataset / "LATEST").read_text().strip() == other.manifest["run_id"]
  again = embed_fake(slow_encoder(0), dataset, inputs, **EMBED)
  assert (again.status, again.manifest["counts"]["encoded"]) == ("published", 0)


def all_bytes(dataset):
  """Every file but the progress of workers, which is for people."""
  return {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file() and path.parent.name != "progress"}


def test_finishing_twice_does_nothing(inputs, tmp_path):
  """As an engine does that repeats the last bundle, or a detached job that is started again."""
  dataset = tmp_path / "dataset"
  plan, records = start(dataset, inputs)
  finish(plan, records, HERE)
  before = all_bytes(dataset)
  finish(plan, records, HERE)
  assert all_bytes(dataset) == before
  assert outcome(plan).status == "published"


def test_a_job_tried_again_once_it_is_over_needs_nothing_that_was_tidied_away(inputs, tmp_path):
  dataset, encoder = tmp_path / "dataset", slow_encoder(0)
  embed_fake(encoder, dataset, inputs, **EMBED)
  options = EmbedOptions(inputs=(str(inputs),), encoder="fake", dataset=str(dataset), **EMBED)
  plan = start_run(plan_run(options, encoder.spec, 0, HERE), options, lambda line: None)
  job = beam.Pipeline(options=HERE.beam_options)
  _ = job | EmbedCorpus(plan.run, plan.waves[0], plan.slices, encoder.loaders(), plan.publish, plan.fit)
  job.run().wait_until_finish()
  assert outcome(plan).status == "published"
  before = all_bytes(dataset)
  read_lines.cache_clear()  # as in a new process
  job.run().wait_until_finish()
  assert all_bytes(dataset) == before


def test_finishing_again_after_a_later_run_leaves_that_published(inputs, tmp_path):
  dataset = tmp_path / "dataset"
  plan, records = start(dataset, inputs)
  finish(plan, records, HERE)
  later = embed_fake(slow_encoder(0), dataset, inputs, **EMBED)
  finish(plan, records, HERE)
  assert outcome(plan).status == "published"
  assert published_runs(dataset) == [plan.run.run_id, later.manifest["run_id"]]
  assert (dataset / "LATEST").read_text().strip() == later.manifest["run_id"]


def test_a_manifest_names_every_file_of_its_run_with_its_digest(inputs, tmp_path):
  """Nothing stands in the folders that the manifest does not name: a glob reads the run, whatever an attempt left."""
  dataset = tmp_path / "dataset"
  plan, records = start(dataset, inputs)
  orphans = [f"{plan.run.folder}/{name}/orphan.parquet" for name in ("vectors", "documents", "rejected", "changes")]
  for orphan in orphans:
    plan.run.storage.write(orphan, b"of an attempt that was not taken up")
  finish(plan, records, HERE)
  manifest = outcome(plan).manifest
  folder = run_folder(dataset, manifest)
  assert json.loads((folder / "manifest.json").read_text()) == manifest
  named = {file["path"]: file for files in manifest["files"].values() for file in files}
  globs = ("vectors/*", "documents/*", "rejected/*", "changes/*", "*.npz")
  found = [path for pattern in globs for path in folder.glob(pattern)]
  assert sorted(named) == sorted(str(path.relative_to(dataset)) for path in found)
  rows = {folder: sum(file["rows"] for file in files) for folder, files in manifest["files"].items()}
  assert rows == {"vectors": 660, "documents": 660, "changes": 660} | dict.fromkeys(
    ("rejected", "moments", "whitening"), 0
  )
  assert not (folder / "progress").exists() or not list((folder / "progress").iterdir())
