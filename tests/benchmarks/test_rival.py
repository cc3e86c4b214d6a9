import sys

import pytest

from benchmarks.rival import Rival, RivalError

ECHO = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
  print(json.dumps({"was": json.loads(line)}), flush=True)
"""


def test_a_rival_says_that_it_is_ready_answers_and_ends_with_its_requests(tmp_path):
  with Rival([sys.executable, "-c", ECHO], tmp_path / "log") as rival:
    assert rival.ready() == {"ready": True}
    assert [rival.ask(a=1), rival.ask(b="ü")] == [{"was": {"a": 1}}, {"was": {"b": "ü"}}]
  assert rival._process.returncode == 0


def test_what_serves_answers_whatever_else_is_printed(tmp_path):
  program = "from benchmarks.rival import serve; serve({'a': '1'}, lambda request: print('noise') or request)"
  with Rival([sys.executable, "-c", program], tmp_path / "log") as rival:
    assert rival.ready() == {"versions": {"a": "1"}}
    assert [rival.ask(a=1), rival.ask(b=2)] == [{"a": 1}, {"b": 2}]
  assert (tmp_path / "log").read_text().split() == ["noise", "noise"]


@pytest.mark.parametrize(
  ("program", "why"),
  [
    ("import sys; print('a warning', file=sys.stderr); sys.exit('no such model')", "no such model"),
    ("raise SystemExit(3)", "ended with code 3, without a word"),
  ],
)
def test_one_that_cannot_start_gives_its_last_word(tmp_path, program, why):
  with pytest.raises(RivalError, match=why):
    Rival([sys.executable, "-c", program], tmp_path / "log").ready()


def test_one_that_ends_in_between_is_told_from_one_that_answers(tmp_path):
  rival = Rival([sys.executable, "-c", "print('{}', flush=True); input(); 1 / 0"], tmp_path / "log")
  rival.ready()
  with pytest.raises(RivalError, match="ZeroDivisionError: division by zero"):
    rival.ask()


def test_one_that_has_ended_reads_no_request(tmp_path):
  rival = Rival([sys.executable, "-c", "print('{}')"], tmp_path / "log")
  rival.ready()
  rival._process.wait()
  with pytest.raises(RivalError, match="ended with code 0"):
    rival.ask()


def test_a_program_that_is_not_there_is_named(tmp_path):
  with pytest.raises(RivalError, match="no-such-program: No such file"):
    Rival([tmp_path / "no-such-program"], tmp_path / "log")
