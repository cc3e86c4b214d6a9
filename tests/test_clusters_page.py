"""The commands of docs/clusters.md, and of docs/dataflow.md, as our parser and Beam's take them."""

import re
import shlex

import pytest

from pipeline.command_line import make_parser
from pipeline.commands import embed_options
from pipeline.engines import choose_engine
from tests.conftest import REPOSITORY
from tests.integration.test_operations import commands
from transforms.errors import UsageError

PAGE = (REPOSITORY / "docs/clusters.md").read_text(encoding="utf-8")
COMMANDS = [
  line for block in re.findall("^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]


def parsed(words):
  """The options of a command line, and the engine that it chooses."""
  ours, _, beams = words, None, []
  if "--" in words:
    ours, beams = words[: words.index("--")], words[words.index("--") + 1 :]
  args = make_parser().parse_args(ours)
  args.beam_options = tuple(beams)
  options = embed_options(args)
  return options, choose_engine(options.beam_options, runner=options.runner)


@pytest.mark.parametrize("line", COMMANDS + commands("On Dataflow"))
def test_a_command_of_the_page_is_taken(line):
  options, engine = parsed(shlex.split(line)[1:])
  assert engine.runner == (options.runner or "FnApiRunner")
  assert options.read.id_column == "id"


def test_there_is_a_command_for_each_engine():
  runners = [re.search(r"--runner (\w+)", line) for line in COMMANDS]
  assert [found and found[1] for found in runners] == [None, "FlinkRunner", "DataflowRunner", "PortableRunner"]


def test_the_table_names_what_each_engine_needs_and_nothing_else():
  (row,) = re.findall(r"^\| needed behind `--` \|(.*)\|$", PAGE, re.MULTILINE)
  needed = [re.findall(r"`(\w+)`", cell) for cell in row.split("|")]
  for line, names in zip(COMMANDS, needed, strict=True):
    words = shlex.split(line)[1:]
    given = words[words.index("--") + 1 :] if "--" in words else []
    assert [flag.removeprefix("--").partition("=")[0] for flag in given] == names
    for flag, name in zip(given, names, strict=True):
      with pytest.raises(UsageError, match=f"needs --{name}=… behind '--': "):
        parsed([word for word in words if word != flag])
