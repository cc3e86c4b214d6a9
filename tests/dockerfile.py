"""Reads a Dockerfile, and does its steps on this machine, without an engine: `/opt` and `/tmp` lie elsewhere."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
  """One instruction, its arguments as written but on one line."""

  name: str
  value: str


def read_dockerfile(path: Path) -> list[Step]:
  """Returns the instructions in their order, continued lines joined, without comments."""
  lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
  return [Step(*line.split(None, 1)) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]


def values_of(steps: list[Step], name: str) -> list[str]:
  """Returns the arguments of every instruction of a name."""
  return [step.value for step in steps if step.name == name]


def pairs_of(steps: list[Step], name: str) -> dict[str, str]:
  """Returns NAME=value of every ARG or ENV; an ARG without a value, which repeats an earlier one, is left out."""
  return dict(value.split("=", 1) for value in values_of(steps, name) if "=" in value)


def substitute(text: str, values: dict[str, str]) -> str:
  """Puts values in for `$NAME` and `${NAME}`, as an engine does; raises KeyError for one that is not declared."""
  return re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda found: values[found[1] or found[2]], text)


class Replay:
  """Does ARG, ENV, COPY and RUN. FROM is this machine with the Python that the tests run on, outside its environment.

  Attributes:
    root: the folder that takes the place of `/`.
    environment: the variables of a process in the image.
  """

  def __init__(self, context: Path, root: Path):
    """`context` is the folder that is sent to an engine; what `root` has is overwritten."""
    self.root, self._context = root, context
    self._before_from: dict[str, str] = {}
    self._arguments: dict[str, str] = {}
    python = root / "machine" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.base_prefix}/bin/python3" "$@"\n')
    python.chmod(0o755)
    self.environment = os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    self.environment.pop("PYTHONPATH", None)
    (root / "tmp").mkdir()

  def do(self, steps: list[Step]) -> None:
    """Does the steps in their order; raises AssertionError, with what it printed, for a RUN that fails."""
    for step in steps:
      value = self._here(step.value)
      if step.name == "FROM":
        self._before_from, self._arguments = self._arguments, {}
      elif step.name == "ARG":
        name, given, default = value.partition("=")
        self._arguments[name] = default if given else self._before_from[name]
      elif step.name == "ENV":
        self.environment |= [value.split("=", 1)]
      elif step.name == "COPY":
        self._copy(*value.split())
      elif step.name == "RUN":
        self.run("sh", "-euc", value)

  def run(self, *command: str) -> str:
    """Runs a command as it would be in the image, away from the checkout, and returns what it printed."""
    options = {"cwd": self.root / "tmp", "env": self.environment, "text": True, "capture_output": True}
    done = subprocess.run(command, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout

  def _here(self, text: str) -> str:
    text = substitute(text, self.environment | self._arguments)
    return re.sub(r"(?<![\w./])/(?=(opt|tmp)\b)", f"{self.root}/", text)

  def _copy(self, source: str, target: str) -> None:
    to = Path(target) / Path(source).name if target.endswith("/") else Path(target)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(self._context / source, to)
