"""Whole jobs with a fake encoder, from the command line: each way to end is told, with its exit code."""

import re
from dataclasses import replace

import pytest

import pipeline.embed
from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.embed import embed
from pipeline.health import STATUSES
from pipeline.lock import DatasetLock, Owner
from pipeline.outcome import Outcome
from pipeline.watch_job import watched_job
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import NIGHT, made_up_texts, write_shards
from transforms.errors import InputFileError, UsageError
from transforms.storage import Storage

TEXTS = made_up_texts(60)
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 16)


class Night:
  def __init__(self, folder, capsys):
    self.folder, self.capsys = folder, capsys
    self.inputs, self.dataset = write_shards(folder / "in", TEXTS, 2), folder / "ds"
    self.words = [*NIGHT, "--input", str(self.inputs), "--id-column", "id", "--encoder", "fake"]
    self.words += ["--threads", "1", "--buckets", "1", "--dataset", str(self.dataset)]
    self.words += ["--metrics-file", str(folder / "sorbus.prom")]

  def run(self, *more):
    """Returns (exit code, status, what else the health line says) of a job; the file has to say the same."""
    code = main([*self.words, *more])
    [line] = [line for line in self.capsys.readouterr().err.splitlines() if line.startswith("sorbus embed ")]
    said = dict(word.split("=", 1) for word in line.split()[2:])
    assert said["exit"] == str(code) == self.gauge("sorbus_exit_code") and said["dataset"] == str(self.dataset)
    assert {status: self.gauge("sorbus_run_status", status) for status in STATUSES} == {
      status: str(int(status == said["status"])) for status in STATUSES
    }
    return code, said["status"], said

  def gauge(self, name, status=None):
    more = f',status="{status}"' if status else ""
    text = (self.folder / "sorbus.prom").read_text()
    found = re.search(rf'^{name}{{dataset="{re.escape(str(self.dataset))}"{more}}} (.*)$', text, re.MULTILINE)
    return found[1] if found else None


@pytest.fixture
def night(tmp_path, capsys, monkeypatch):
  def embed_fake(options, **more):
    return embed(options, ENCODER.loaders(), ENCODER.spec, **more)

  monkeypatch.setattr(pipeline.embed, "embed", embed_fake)
  return Night(tmp_path, capsys)


def test_published_unchanged_and_held_back(night):
  code, status, said = night.run()
  assert (code, status) == (0, "published")
  assert [said[name] for name in ("read", "written", "encoded", "new")] == ["60"] * 4
  assert said["run"] == Dataset.open(str(night.dataset)).published().run_id
  first = night.gauge("sorbus_last_success_timestamp_seconds")
  code, status, said = night.run()
  assert (code, status, said["written"], said["encoded"], said["reused"]) == (0, "unchanged", "60", "0", "60")
  second = night.gauge("sorbus_last_success_timestamp_seconds")
  assert float(second) > float(first)
  with (night.inputs / "more.jsonl").open("w") as file:
    file.write('{"id": "bad", "text": null}\n' * 9)
  code, status, said = night.run()
  assert (code, status, said["read"], said["rejected"]) == (1, "held-back", "69", "9")
  assert night.gauge("sorbus_last_success_timestamp_seconds") == second
  assert float(night.gauge("sorbus_last_run_timestamp_seconds")) > float(second)
  assert night.gauge("sorbus_documents_rejected") == "9"


def test_held_by_another_and_refused_and_overtaken(night, monkeypatch):
  night.run()
  lock = DatasetLock(Storage.at(str(night.dataset)))
  number = lock.acquire(replace(Owner.here("embed"), host="elsewhere"))
  assert night.run("--again")[:2] == (75, "busy")
  lock.release(number)
  assert night.run("--n-components", "99")[:2] == (2, "refused")
  assert night.gauge("sorbus_documents_read") is None
  publish = Dataset.publish
  monkeypatch.setattr(Dataset, "publish", lambda self, run, base, now: publish(self, "another", base, now))
  assert night.run("--again")[:2] == (75, "overtaken")


def test_a_run_that_fails_half_way_tells_how_far_it_came(night, monkeypatch):
  def fails(*args):
    raise OSError(28, "No space left on device", "raw/x")

  monkeypatch.setattr(pipeline.embed, "finish", fails)
  code, status, said = night.run()
  assert (code, status) == (1, "failed") and said["run"] != "-" and int(said["read"]) > 0
  assert (said["new"], night.gauge("sorbus_last_success_timestamp_seconds")) == ("-", None)


def test_a_bug_of_ours_and_an_interrupt_are_told_too(tmp_path):
  said = []
  for error, words in ((ZeroDivisionError(), "status=failed"), (KeyboardInterrupt(), "status=interrupted")):
    with pytest.raises(type(error)), watched_job("ds", str(tmp_path / "a.prom"), said.append, said.append):
      raise error
    assert words in said[-1] and words.split("=")[1] in (tmp_path / "a.prom").read_text()
  assert len(said) == 2


def test_a_file_that_cannot_be_written_does_not_change_how_the_job_ended(tmp_path):
  logged, said = [], []
  folder = tmp_path / "metrics"
  folder.mkdir()
  with watched_job("ds", str(folder / "a.prom"), logged.append, said.append) as watch:
    folder.rmdir()
    folder.write_text("a file now")
    assert watch.ended(Outcome("submitted", {"run_id": "r1"})).exit_code == 0
  assert "status=submitted run=r1" in logged[0]
  assert re.fullmatch(rf"warning: --metrics-file {folder}/a.prom: .+", said[0])


def test_a_folder_that_is_not_there_is_refused_before_the_job(tmp_path):
  with pytest.raises(UsageError), watched_job("ds", str(tmp_path / "no/a.prom"), print, print):
    raise InputFileError("the job was begun")


def test_seconds_are_those_of_the_job(tmp_path):
  said, times = [], iter([100.0, 107.25])
  with watched_job("ds", None, said.append, said.append, clock=lambda: next(times)) as watch:
    watch.ended(Outcome("submitted", {"run_id": "r1"}))
  assert "seconds=7.2 " in said[0]
