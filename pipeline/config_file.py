"""A command's options from a YAML file, and as one: whatever options its parser has, under the names of their flags.

The file says what flags would say, word for word: it is read as text with its place in the file, and each value goes
through the converter of its flag. So `007` stays an id and an error can name the line.
"""

import argparse
import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from transforms.errors import UsageError
from transforms.url_secrets import check_no_secret, check_no_secret_flag

# Under this key stands what the command line has behind '--', for a command that takes such: it has the default
# `beam_options`.
BEAM = "beam"
_NOT_OF_A_FILE = ("help", "config", "print_config")
_NULL, _BOOL = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"
_TRUE = ("true", "yes", "on")


def options_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
  """Returns what a file may say to a command: its options, but hidden ones, by the keys that they have there."""
  told = [action for action in parser._actions if action.help != argparse.SUPPRESS]
  named = [action for action in told if action.option_strings and action.dest not in _NOT_OF_A_FILE]
  return {_key_of(action.option_strings): action for action in named}


def _key_of(flags: Sequence[str]) -> str:
  """Returns the first long flag, or `k` for -k, without dashes."""
  return next((flag for flag in flags if flag.startswith("--")), flags[0]).lstrip("-")


def apply_config(parser: argparse.ArgumentParser, path: str) -> None:
  """Makes what a file says the defaults of a command's parser, so that the command line wins over it.

  Raises:
    UsageError: the file cannot be read, or says something that is no option or no value of one.
  """
  seen: set[str] = set()
  for key, value in _entries(path):
    name, where = str(key.value), f"{path} line {key.start_mark.line + 1}: {key.value}"
    if name in seen:
      raise UsageError(f"{where}: stands there twice; keep one of them")
    seen.add(name)
    if name == BEAM and _takes_beam(parser):
      parser.set_defaults(beam_options=tuple(_beam_flags(value, where)))
    elif value.tag != _NULL or name not in options_of(parser):  # null: as if it were not there
      action = options_of(parser).get(name) or _refuse_key(parser, name, where)
      action.default, action.required = _value(parser, action, value, where), False


def to_config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
  """Returns the options of a parsed command line as a file that says the same; what has no value is null.

  Raises:
    UsageError: a value has a secret in it, which belongs in no file.
  """
  options = options_of(parser)
  lines = [f"# {parser.prog} --config FILE; null is what is not given\n"]
  for group in parser._action_groups:
    members = {key: action for key, action in options.items() if action in group._group_actions}
    lines += [f"\n# {group.title}\n"] * bool(members)
    lines += [_entry(key, getattr(args, action.dest), _default(parser, action)) for key, action in members.items()]
  if _takes_beam(parser):
    for flag in args.beam_options:
      check_no_secret_flag(flag, "behind '--':")
    lines += ["\n# Beam's, as behind '--'\n", _entry(BEAM, list(args.beam_options), "")]
  return "".join(lines)


def _takes_beam(parser: argparse.ArgumentParser) -> bool:
  return parser.get_default("beam_options") is not None


def _entries(path: str) -> list[tuple[yaml.Node, yaml.Node]]:
  """Returns the keys and values of a file, in its order."""
  try:
    node = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
  except OSError as error:
    raise UsageError(
      f"--config {path}: cannot be read ({error.strerror}); --print-config prints such a file"
    ) from error
  except UnicodeDecodeError as error:
    raise UsageError(f"--config {path}: is not UTF-8 text; save it as that") from error
  except yaml.YAMLError as error:
    mark = getattr(error, "problem_mark", None)
    line = f" line {mark.line + 1}" if mark else ""
    why = getattr(error, "problem", None) or error
    raise UsageError(f"{path}{line}: not YAML ({why}); a value such as *.jsonl goes in quotes") from error
  if node is None:  # empty, or all comments
    return []
  if not isinstance(node, yaml.MappingNode) or not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
    raise UsageError(f"{path}: has no options; write them as `name: value`, a line each")
  return list(node.value)


def _refuse_key(parser: argparse.ArgumentParser, name: str, where: str) -> NoReturn:
  if name in [str(action.metavar or action.dest).lower() for action in parser._actions if not action.option_strings]:
    raise UsageError(f"{where}: is no option; write it on the command line, as `{parser.prog} --help` shows")
  close = difflib.get_close_matches(name.strip("-").replace("_", "-"), options_of(parser), n=1)
  meant = f"did you mean {close[0]}?" if close else f"`{parser.prog} --print-config` lists what there is"
  raise UsageError(f"{where}: no such option of `{parser.prog}`; {meant}")


def _value(parser: argparse.ArgumentParser, action: argparse.Action, value: yaml.Node, where: str) -> Any:
  """Returns what a file says of an option, as its flag would."""
  if action.nargs == 0:
    if value.tag != _BOOL:
      raise UsageError(f"{where}: is true or false, not {_shown(value)}")
    said = value.value.lower() in _TRUE
    return said if isinstance(action, argparse.BooleanOptionalAction) else action.const if said else not action.const
  has_many = isinstance(action.nargs, int) or action.nargs in ("+", "*")
  if has_many and isinstance(value, yaml.SequenceNode):
    words = [_word(item, where) for item in value.value]
  elif isinstance(value, yaml.ScalarNode):
    words = [_word(value, where)]
  else:
    raise UsageError(f"{where}: takes {'a list' if has_many else 'one value'}, not {_shown(value)}")
  if action.nargs == "+" and not words:
    raise UsageError(f"{where}: is empty; name something, or leave the line out")
  if isinstance(action.nargs, int) and len(words) != action.nargs:
    raise UsageError(f"{where}: takes a list of {action.nargs}, not of {len(words)}")
  try:
    return parser._get_values(action, words)  # the flag's own converter and choices
  except argparse.ArgumentError as error:
    raise UsageError(f"{where}: {error.message}") from error


def _word(node: yaml.Node, where: str) -> str:
  """Returns a value as it would be typed."""
  if not isinstance(node, yaml.ScalarNode) or node.tag in (_NULL, _BOOL):
    quoted = f"; if it is meant as text, write {json.dumps(node.value)}" if isinstance(node, yaml.ScalarNode) else ""
    raise UsageError(f"{where}: takes a value, not {_shown(node)}{quoted}")
  check_no_secret(node.value, f"{where}:")
  return str(node.value)


def _shown(node: yaml.Node) -> str:
  if isinstance(node, yaml.ScalarNode):
    return str(node.value) or "nothing"
  return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _beam_flags(value: yaml.Node, where: str) -> Iterator[str]:
  """Yields what a list of words, or a mapping of names to values, is on the command line."""
  if isinstance(value, yaml.SequenceNode):
    flags = [_word(item, where) for item in value.value]
  elif isinstance(value, yaml.MappingNode):
    flags = [flag for name, given in value.value for flag in _named_flags(str(name.value), given, where)]
  elif value.tag == _NULL:
    flags = []
  else:
    raise UsageError(f"{where}: takes a list of --name=value, or a mapping of names to values, not {_shown(value)}")
  for flag in flags:
    check_no_secret_flag(flag, f"{where}:")
    yield flag


def _named_flags(name: str, given: yaml.Node, where: str) -> Sequence[str]:
  """Returns the flags of one name: several for a list, and one without a value for true."""
  if given.tag == _BOOL and given.value.lower() in _TRUE:
    return [f"--{name}"]
  items = given.value if isinstance(given, yaml.SequenceNode) else [given]
  return [f"--{name}={_word(item, f'{where}: {name}')}" for item in items]


def _entry(key: str, value: Any, default: str) -> str:
  """Returns an option as lines of a file, with what its help says of its default where it has no value."""
  for text in value if isinstance(value, list) else [value]:
    check_no_secret(str(text), f"--{key}")
  lines = yaml.safe_dump({key: value}, allow_unicode=True, width=float("inf"), indent=2)
  return lines if value is not None or not default else f"{lines.rstrip()}  # {default}\n"


def _default(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
  text = parser._get_formatter()._expand_help(action) if action.help else ""
  found = re.search(r"[Dd]efault: (.*?)(?:(?<!\.)\.(?: |$)|$)", text)  # to the end of that sentence
  return f"default: {found[1]}" if found else ""
