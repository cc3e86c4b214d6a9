"""What the flex template runs: `sorbus embed --detach` with the template's parameters.

Google's launcher calls this file with each parameter, and with options of its own, as `--name=value`. Those that
`sorbus embed` has are given to it: a list is cut at commas, and a flag without a value is there where it is `true`. All
others are Beam's.
"""

import argparse
import sys
from collections.abc import Sequence

from pipeline.command_line import main
from pipeline.flags import add_embed


def embed_arguments(parameters: Sequence[str]) -> list[str]:
  """Returns what to type for the parameters."""
  flags = {action.dest: action for action in add_embed(argparse.ArgumentParser().add_subparsers())._actions}
  ours, beams = [], []
  for parameter in parameters:
    name, _, value = parameter.removeprefix("--").partition("=")
    action = flags.get(name)
    if action is None:
      beams.append(parameter)
    elif action.nargs == 0:
      ours += [action.option_strings[0]] if _is_true(name, value) else []
    else:
      ours += _with_value(action, name, value)
  return ["embed", *ours, "--detach", "--", *beams]  # detached: Google waits for this process before it starts the job


def _with_value(action: argparse.Action, name: str, value: str) -> list[str]:
  """Returns a flag with its value, which is never taken for another flag: that would be none of the template's."""
  option = action.option_strings[0]
  if action.nargs != "+":
    return [f"{option}={value}"]
  items = value.split(",")
  if any(item.startswith("-") for item in items):
    sys.exit(f"{name}={value}: begins with a dash, as flags do; give what does not")
  return [option, *items]


def _is_true(name: str, value: str) -> bool:
  if value not in ("true", "false"):
    sys.exit(f"{name}={value}: choose true or false")
  return value == "true"


if __name__ == "__main__":
  sys.exit(main(embed_arguments(sys.argv[1:])))
