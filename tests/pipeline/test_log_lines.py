import datetime
import io
import json
import logging
import re
import subprocess
import sys

import pytest

from pipeline import flags
from pipeline.command_line import main
from pipeline.log_lines import LogFormatter, about_run, draws_progress, local_time, speak, tell, tell_error
from pipeline.progress import progress_line, reading_bar, say, tell_log
from tests.conftest import REPOSITORY
from tests.run_parts import make_plan
from transforms.errors import RunHeldError

SECRET = "ftp://me:hunter2@host/a"
NOON = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)


@pytest.fixture(autouse=True)
def as_ever():
  yield
  speak()


@pytest.fixture
def answering(monkeypatch):
  """Lets `sorbus verify` do what a test says."""
  return lambda run: monkeypatch.setattr(flags, "run_verify", run)


def objects(text):
  return [json.loads(line) for line in text.splitlines()]


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_a_line_is_told_as_it_stands(capsys):
  say("a line")
  tell_error("no such file\nbut another")
  assert capsys.readouterr() == ("", "a line\nsorbus: error: no such file\\x0abut another\n")


def test_as_json_a_line_is_an_object(capsys):
  speak(as_json=True)
  say("precision float32: wärmer")
  about_run("r1")
  say("warning: so much")
  tell_log("sorbus embed status=published")
  tell_error("no such file")
  found = objects(capsys.readouterr().err)
  assert [line.keys() - {"time", "level", "message"} for line in found] == [set(), *[{"run_id"}] * 3]
  assert [line["level"] for line in found] == ["info", "warning", "info", "error"]
  assert [line["message"] for line in found[:2]] == ["precision float32: wärmer", "warning: so much"]
  assert found[3]["message"] == "no such file" and found[3]["run_id"] == "r1"
  assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"]) for line in found)


@pytest.mark.parametrize("as_json", [False, True])
def test_quiet_leaves_errors(capsys, as_json):
  speak(as_json=as_json, quiet=True)
  say("a line")
  say("warning: so much")
  tell_log("status")
  assert capsys.readouterr().err == ""
  tell_error("no such file")
  assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [False, True])
def test_no_secret_is_told(capsys, as_json):
  speak(as_json=as_json)
  say(f"reading {SECRET}")
  tell("failed", "error", f"Traceback: {SECRET}")
  record = logging.LogRecord("apache_beam", logging.INFO, "x.py", 1, "options %s", (SECRET,), None)
  told = capsys.readouterr().err + LogFormatter(logging.BASIC_FORMAT).format(record)
  assert told.count("ftp://me:***@host/a") == 3 and "hunter2" not in told


def test_what_libraries_log_is_an_object_too():
  speak(as_json=True)
  try:
    raise ZeroDivisionError
  except ZeroDivisionError:
    record = logging.LogRecord("apache_beam", logging.WARNING, "x.py", 1, "a %s", ("bundle",), sys.exc_info())
  found = json.loads(LogFormatter().format(record))
  assert (found["level"], found["message"], found["logger"]) == ("warning", "a bundle", "apache_beam")
  assert "ZeroDivisionError" in found["traceback"]


@pytest.mark.parametrize("asked", [["--log-format", "json"], ["--log-format=json"]])
def test_a_command_line_that_is_refused_is_told_as_an_object_too(capsys, asked):
  assert main(["verify", "ds", *asked, "--jsn"]) == 2
  (found,) = objects(capsys.readouterr().err)
  assert found["level"] == "error" and found["message"].startswith("--jsn: no such option or argument")


def test_every_end_of_a_command_is_an_object(answering, capsys):
  def ends(error):
    def run(args):
      raise error

    answering(run)
    return main(["verify", "ds", "--log-format", "json", "-v"])

  assert [ends(e) for e in (RunHeldError("held"), OSError(5, "bad disk", "/a"), ZeroDivisionError("so"))] == [75, 1, 1]
  held, disk, bug = objects(capsys.readouterr().err)
  assert held["message"] == "held" and "RunHeldError" in held["traceback"]
  assert disk["message"] == "/a: bad disk; mend that and run again: what is there is kept"
  assert bug["message"] == "ZeroDivisionError: so; this is a bug of Sorbus" and "line" in bug["traceback"]


def test_quiet_prints_nothing_of_a_command_that_ends_well(answering, capsys):
  answering(lambda args: print("a table") or 0)
  assert main(["verify", "ds", "--quiet"]) == 0
  assert capsys.readouterr() == ("", "")
  assert main(["verify", "ds"]) == 0
  assert capsys.readouterr() == ("a table\n", "")


def test_quiet_tells_why_a_command_does_not_end_well(answering, capsys):
  answering(lambda args: print("rows: FAILED") or 1)
  assert main(["verify", "ds", "--quiet"]) == 1
  assert capsys.readouterr() == ("", "rows: FAILED\n")
  assert main(["verify", "ds", "--quiet", "--log-format", "json"]) == 1
  captured = capsys.readouterr()
  assert captured.out == "" and objects(captured.err)[0]["message"] == "rows: FAILED"


def test_quiet_leaves_the_result_that_json_asks_for(answering, capsys):
  answering(lambda args: print("{}") or 0)
  assert main(["verify", "ds", "--quiet", "--json"]) == 0
  assert capsys.readouterr() == ("{}\n", "")


def test_a_progress_line_is_for_terminals_that_somebody_watches(monkeypatch, tmp_path):
  monkeypatch.setenv("FORCE_COLOR", "1")  # of a colour in a log it says something, of a moving line nothing
  for file, manner, drawn in (
    (io.StringIO(), {}, False),
    (Terminal(), {}, True),
    (Terminal(), {"quiet": True}, False),
    (Terminal(), {"as_json": True}, False),
  ):
    monkeypatch.setattr(sys, "stderr", file)
    speak(**manner)
    assert draws_progress() == drawn
    with progress_line(make_plan(tmp_path), 1000, 1), reading_bar("reading", 10) as advance:
      advance(10)
    assert bool(file.getvalue()) == drawn


@pytest.mark.parametrize(
  ("variables", "colours"),
  [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colours_are_for_terminals_and_obey(variables, colours):
  program = (
    "from rich.console import Console; from tests.manifests import manifest; from pipeline.show import show_run\n"
    "show_run(manifest(verdicts={'rejected': {'passed': False, 'finding': 'too many'}}), Console())"
  )
  environment = {"PATH": "", "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"} | variables
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
  assert "held back (rejected): too many" in done.stdout
  assert bool(re.search(r"\x1b\[[\d;]*3\d", done.stdout)) == colours  # the colours of text are 30 to 37


def test_times_are_of_this_machines_zone_which_is_named(zone):
  zone("Asia/Shanghai")
  assert local_time(NOON) == "2024-02-29 20:00 CST"
  zone("UTC")
  assert local_time(NOON) == "2024-02-29 12:00 UTC"
