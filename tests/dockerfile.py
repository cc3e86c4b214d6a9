"""Reads a Dockerfile, and does its steps on this machine in a folder of their own, without an engine."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
  """One instruction, its arguments as written but on one line."""

  name: str
  value: str


def read_dockerfile(path: Path) -> list[Instruction]:
  """Returns the instructions in their order, continued lines joined, without comments."""
  lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
  joined = "\n".join(lines).replace("\\\n", " ")
  return [Instruction(*line.split(None, 1)) for line in joined.splitlines()]


def values_of(steps: list[Instruction], name: str) -> list[str]:
  """Returns the arguments of every instruction of a name."""
  return [step.value for step in steps if step.name == name]


def pairs_of(steps: list[Instruction], name: str) -> dict[str, str]:
  """Returns NAME=value of every ARG or ENV; an ARG without a value, which repeats an earlier one, is left out."""
  return dict(value.split("=", 1) for value in values_of(steps, name) if "=" in value)


def substitute(text: str, values: dict[str, str]) -> str:
  """Puts values in for `$NAME` and `${NAME}`, as an engine does; raises KeyError for one that is not declared."""
  return re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda found: values[found[1] or found[2]], text)


class Replay:
  """Does ENV, COPY and RUN with `/opt` and `/tmp` as folders under a root; FROM is the machine as it is.

  Attributes:
    environment: the variables that a process in the image would have, paths under the root.
  """

  def __init__(self, context: Path, root: Path):
    """`context` is the folder that is sent to the engine; `root` takes the place of `/` for what is written."""
    self._context, self._root = context, root
    self._arguments: dict[str, str] = {}
    self.environment = {name: value for name, value in os.environ.items() if name.split("_")[0] != "PYTHON"}
    self.environment.pop("PYTHONPATH", None)
    (root / "tmp").mkdir(parents=True)

  def run(self, steps: list[Instruction]) -> None:
    """Does the steps in their order; raises CalledProcessError, with what a step printed, for the first that fails."""
    for step in steps:
      if step.name == "ARG":
        name, _, value = step.value.partition("=")
        self._arguments |= {name: value} if value else {}
      elif step.name == "ENV":
        name, value = self._here(step.value).split("=", 1)
        self.environment[name] = value
      elif step.name == "COPY":
        self._copy(*self._here(step.value).split())
      elif step.name == "RUN":
        self.shell(self._here(step.value))

  def shell(self, command: str) -> str:
    """Runs a line as the image would, away from the checkout, and returns what it printed."""
    done = subprocess.run(
      ["sh", "-euc", command], cwd=self._root / "tmp", env=self.environment, text=True, capture_output=True
    )
    if done.returncode:
      raise AssertionError(f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout

  def _here(self, text: str) -> str:
    # A line of the shell is given its variables by the engine's ARGs; ENV is in the environment already.
    text = substitute(text, self.environment | self._arguments)
    return re.sub(r"(?<![\w./])/(opt|tmp)\b", lambda found: f"{self._root}/{found[1]}", text)

  def _copy(self, source: str, target: str) -> None:
    to = Path(target) / Path(source).name if target.endswith("/") else Path(target)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(self._context / source, to)
