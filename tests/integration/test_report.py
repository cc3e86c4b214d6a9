"""The report of a run as commands leave it: `embed`, `rewhiten`, `wait` and `gc`, here and on an object store."""

import json
import os
import shlex
import signal
import time
import uuid
from pathlib import Path

import pytest

from pipeline.command_line import main
from tests.integration.run_files import made_up_texts, published_runs, write_shards
from tests.integration.test_operations import commands, run
from tests.object_store import BUCKET


@pytest.fixture
def embed(tiny_encoder, tmp_path, monkeypatch):
  """Runs `sorbus embed` into the dataset `vectors` of a new folder."""
  monkeypatch.chdir(tmp_path)
  write_shards(tmp_path / "input", made_up_texts(40), 2)
  words = f"embed --input input/*.jsonl --id-column id --encoder {shlex.quote(tiny_encoder)} --dataset vectors"
  return lambda *more: main([*shlex.split(words), *more])


def reports():
  """The reports of the dataset, by the run that each is of."""
  return {path.parent.name: path for path in sorted(Path("vectors/runs").glob("*/report.html"))}


def test_each_run_leaves_a_report_and_says_where(embed, capsys):
  assert embed() == 0
  first = published_runs(Path("vectors"))[0]
  assert capsys.readouterr().out.splitlines()[-2:] == [
    f"published: vectors/runs/{first}/vectors",
    f"report: vectors/runs/{first}/report.html",
  ]
  assert f"run {first}" in reports()[first].read_text()
  written = reports()[first].stat()
  assert embed() == 0 and capsys.readouterr().out.startswith("unchanged: ")
  assert main(["wait", "vectors", first]) == 0
  assert reports()[first].stat().st_mtime_ns == written.st_mtime_ns, "it is theirs who made the run"
  assert embed("--again", "--no-report") == 0 and reports().keys() == {first}
  assert main(["rewhiten", "vectors", "--n-components", "8", "--json"]) == 0
  last = published_runs(Path("vectors"))[-1]
  assert reports().keys() == {first, last} and "whitened 32 → 8," in reports()[last].read_text()


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_an_interrupt_while_it_is_written_leaves_the_run_what_it_is(embed, capsys, monkeypatch, flags):
  def interrupted(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

  monkeypatch.setattr("pipeline.report_page.render", interrupted)
  assert embed(*flags) == 0 and not reports()
  (run_id,) = published_runs(Path("vectors"))
  out, error = capsys.readouterr()
  if flags:
    assert json.loads(out)["status"] == "published" and json.loads(out)["run"]["run_id"] == run_id
  else:
    assert out.splitlines()[-1] == f"published: vectors/runs/{run_id}/vectors"
  remedy = f"`sorbus report vectors --run {run_id}` makes it again"
  assert f"no report of run {run_id} (interrupted); {remedy}" in error and "run again" not in error
  assert signal.getitimer(signal.ITIMER_REAL)[0] == 0, "nothing is interrupted later"


def test_a_run_that_is_found_unchanged_gets_the_report_that_it_lacks(embed, capsys):
  assert embed("--no-report") == 0 and embed("--no-report") == 0 and not reports()
  capsys.readouterr()
  (run_id,) = published_runs(Path("vectors"))
  lines = [f"unchanged: vectors/runs/{run_id}/vectors", f"report: vectors/runs/{run_id}/report.html"]
  assert embed() == 0 and reports().keys() == {run_id}
  assert capsys.readouterr().out.splitlines() == lines
  assert embed() == 0 and capsys.readouterr().out.splitlines() == lines[:1]


def test_a_run_that_is_held_back_has_one_too_which_says_why(embed):
  Path("input/bad.jsonl").write_text('{"id": "bad", "text": null}\n')
  assert embed("--max-rejected", "0") == 1
  (page,) = (path.read_text() for path in reports().values())
  assert "held back" in page and "1 of 41 documents rejected" in page and "bad.jsonl" in page


def test_who_waits_writes_it_where_the_job_did_not(embed, capsys):
  assert embed("--no-report") == 0 and not reports()
  run_id = published_runs(Path("vectors"))[0]
  assert main(["wait", "vectors", run_id, "--no-report"]) == 0 and not reports()
  assert main(["wait", "vectors", run_id]) == 0 and reports().keys() == {run_id}


def test_verify_and_gc_know_of_it(embed):
  assert embed() == 0 and embed("--again") == 0
  old, new = published_runs(Path("vectors"))
  assert main(["report", "vectors", "--run", old, "--with-texts"]) == 0
  assert main(["verify", "vectors", "--run", old]) == 0
  assert main(["gc", "vectors", "--keep-runs", "1"]) == 0
  assert reports().keys() == {new} and not Path("vectors/runs", old).exists()


def test_on_an_object_store(embed, proxy, capsys):
  url = f"s3://{BUCKET}/{uuid.uuid4().hex}/dataset"
  assert embed("--dataset", url) == 0
  where = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("report: "))
  assert where.startswith(f"report: {url}/runs/") and where.endswith("/report.html")
  assert main(["report", url, "--json"]) == 0
  assert json.loads(capsys.readouterr().out)["replaced"] is True


def test_the_page_as_it_stands(embed, capsys):
  assert embed() == 0
  run_id = published_runs(Path("vectors"))[0]
  for line in commands("Making a report"):
    run(line, run_id)
  assert Path("report.html").exists() and Path(f"vectors/runs/{run_id}/report-with-texts.html").exists()
