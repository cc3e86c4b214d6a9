import datetime
import json
import shutil
from pathlib import Path

import pytest

from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.outcome import Outcome
from pipeline.report import report_outcome, write_report
from transforms.errors import UsageError

NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.fixture
def dataset(reported, tmp_path):
  """A copy: a report is written into the dataset."""
  shutil.copytree(reported.storage.root, tmp_path / "ds")
  return Dataset.open(str(tmp_path / "ds"))


def test_a_report_lies_beside_its_run_and_one_with_texts_has_another_name(dataset):
  run_id = dataset.run_ids()[0]
  first = write_report(dataset, run_id, now=lambda: NOON)
  assert (first.path, first.replaced) == (f"{dataset.storage.root}/runs/{run_id}/report.html", False)
  data = dataset.storage.read(f"runs/{run_id}/report.html")
  assert len(data) == first.bytes and data.startswith(b"<!doctype html>")
  texts = write_report(dataset, run_id, with_texts=True, now=lambda: NOON)
  assert texts.path.endswith("/report-with-texts.html") and dataset.storage.read(f"runs/{run_id}/report.html") == data
  again = write_report(dataset, run_id, now=lambda: NOON)
  assert again.replaced and dataset.storage.read(f"runs/{run_id}/report.html") == data


def test_a_report_elsewhere_leaves_the_dataset_alone(dataset, tmp_path):
  before = dataset.storage.walk("")
  report = write_report(dataset, dataset.run_ids()[0], str(tmp_path / "x.html"))
  assert (tmp_path / "x.html").stat().st_size == report.bytes and dataset.storage.walk("") == before
  with pytest.raises(UsageError, match=r"--out .*/nowhere/x.html: cannot be written \(No such file or directory\)"):
    write_report(dataset, dataset.run_ids()[0], str(tmp_path / "nowhere/x.html"))


def outcome_of(dataset, status="published"):
  return Outcome(status, dataset.manifest(dataset.run_ids()[-1]))


@pytest.mark.parametrize("status", ["published", "held back", "overtaken"])
def test_a_run_that_was_made_has_a_report(dataset, status):
  said = []
  path = report_outcome(outcome_of(dataset, status), dataset.storage.root, said.append)
  assert path == f"{dataset.storage.root}/runs/{dataset.run_ids()[-1]}/report.html" and said == []
  assert dataset.storage.exists(path.removeprefix(f"{dataset.storage.root}/"))


def test_a_run_that_is_found_unchanged_has_one_written_only_where_there_is_none(dataset):
  path = f"runs/{dataset.run_ids()[-1]}/report.html"
  outcome = outcome_of(dataset, "unchanged")
  assert report_outcome(outcome, dataset.storage.root, print) == f"{dataset.storage.root}/{path}"
  written = dataset.storage.read(path)
  assert report_outcome(outcome, dataset.storage.root, print) is None and dataset.storage.read(path) == written


@pytest.mark.parametrize("status", ["submitted", "dry run"])
def test_a_job_that_made_no_run_has_none(dataset, status):
  assert report_outcome(outcome_of(dataset, status), dataset.storage.root, print) is None
  assert not [path for path in dataset.storage.walk("") if path.endswith(".html")]


def test_who_waits_for_a_run_leaves_the_report_that_is_there(dataset):
  path = f"runs/{dataset.run_ids()[-1]}/report.html"
  dataset.storage.write(path, b"theirs")
  assert report_outcome(outcome_of(dataset), dataset.storage.root, print) == f"{dataset.storage.root}/{path}"
  assert dataset.storage.read(path) == b"theirs"


@pytest.mark.parametrize(
  ("error", "why"),
  [
    (UsageError("no room"), "no room"),
    (ZeroDivisionError("x"), "ZeroDivisionError: x"),
    (KeyboardInterrupt(), "interrupted"),
  ],
)
def test_a_report_that_cannot_be_made_fails_no_run_and_is_told_in_a_line(dataset, monkeypatch, error, why):
  def fail(*args, **kwargs):
    raise error

  monkeypatch.setattr("pipeline.report_page.render", fail)
  said, run_id = [], dataset.run_ids()[-1]
  assert report_outcome(outcome_of(dataset), dataset.storage.root, said.append) is None
  assert said == [
    f"warning: no report of run {run_id} ({why}); `sorbus report {dataset.storage.root} --run {run_id}` makes it again"
  ]


def test_the_command_prints_where_it_is_as_the_dataset_was_given(dataset, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(Path(dataset.storage.root).parent)
  run_id, root = dataset.run_ids()[-1], Path(dataset.storage.root).name
  assert main(["report", root]) == 0
  assert capsys.readouterr().out == f"report: {root}/runs/{run_id}/report.html\n"
  assert main(["report", root]) == 0
  assert capsys.readouterr().out.endswith("report.html (in place of the one before)\n")
  out = str(tmp_path / "texts.html")
  assert main(["report", root, "--run", dataset.run_ids()[0], "--with-texts", "--out", out, "--json"]) == 0
  printed = json.loads(capsys.readouterr().out)
  assert printed == {"run_id": dataset.run_ids()[0], "path": out, "replaced": False, "bytes": printed["bytes"]}


def test_what_cannot_be_reported_is_told_in_a_line(dataset, capsys):
  assert main(["report", dataset.storage.root, "--run", "r9"]) == 2
  assert "no run 'r9'" in capsys.readouterr().err
  for path in dataset.storage.walk("published"):
    dataset.storage.remove(path)
  assert main(["report", dataset.storage.root]) == 2
  assert "nothing is published yet; name a run with --run" in capsys.readouterr().err
