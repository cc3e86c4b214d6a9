"""The examples say what is wrong with their arguments in a line; what they print of real models stands in the docs."""

import subprocess
import sys

import pytest

from pipeline.model.freeze import FreezeOptions, freeze
from tests.conftest import REPOSITORY
from tests.tiny_bert import write_google_checkpoint


def run_words(*arguments):
  command = [sys.executable, "examples/words_in_context.py", *arguments]
  environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
  return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["encoder", "rain"], "Print what a word means"),
    (["encoder", "rain", "the rain", "the sun"], "'rain' does not stand in 'the sun'"),
    (["/nowhere", "rain", "the rain"], "error: /nowhere/encoder.json: not there"),
  ],
)
def test_words_in_context_refuses_in_a_line(arguments, message):
  done = run_words(*arguments)
  assert done.returncode == 1
  assert done.stderr.startswith(message)
  assert "Traceback" not in done.stderr


def test_words_in_context_prints_a_line_a_text(tmp_path):
  folder = write_google_checkpoint(tmp_path / "checkpoint")
  freeze(str(folder), str(tmp_path / "encoder"), FreezeOptions(pooling="mean"), lambda line: None)
  done = run_words(str(tmp_path / "encoder"), "rain", "the rain in the tree", "she had not the rain")
  head, *lines = done.stdout.splitlines()
  assert head.startswith("to its text")
  assert [line.split(maxsplit=3)[3] for line in lines] == ["the rain in the tree", "she had not the rain"]
  figures = [list(map(float, line.split()[:3])) for line in lines]
  assert figures[0][1] == figures[1][2] == 1.0
  assert figures[0][2] == figures[1][1] < 1.0
