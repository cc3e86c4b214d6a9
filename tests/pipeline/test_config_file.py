import argparse

import pytest
import yaml

from pipeline.command_line import main, make_parser
from pipeline.commands import embed_options
from pipeline.config_file import apply_config, options_of, to_config
from transforms.errors import UsageError

EMBED = ["embed", "--input", "a*.jsonl", "--encoder", "enc", "--dataset", "ds"]


def commands():
  [action] = [a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)]
  return action.choices


def write(tmp_path, text):
  path = tmp_path / "nightly.yaml"
  path.write_text(text, encoding="utf-8")
  return str(path)


def parse(*argv):
  args = make_parser().parse_args(list(argv))
  return {name: value for name, value in vars(args).items() if name not in ("config", "print_config", "parser", "run")}


def printed(*argv):
  args = make_parser().parse_args([*argv, "--print-config"])
  return to_config(args.parser, args)


def refuse(tmp_path, capsys, text, *argv):
  """Returns the one line with which a file is refused, without its folder."""
  assert main([*(argv or ["embed"]), "--config", write(tmp_path, text)]) == 2
  out, error = capsys.readouterr()
  assert out == "" and error.startswith("sorbus: error: ") and error.count("\n") == 1
  return error.removeprefix("sorbus: error: ").strip().replace(f"{tmp_path}/", "")


def words_of(action):
  """A value for an option that is not its default, as it would be typed."""
  if action.choices:
    words = [list(action.choices)[-1]]
  elif action.type is None:
    words = ["007"]
  else:
    words = ["1"]
  return words * {"+": 2, None: 1}.get(action.nargs, action.nargs)


@pytest.mark.parametrize("command", commands())
def test_what_is_printed_says_the_same_when_it_is_fed_back(command, tmp_path):
  parser = commands()[command]
  arguments = [word for a in parser._actions if not a.option_strings and a.nargs != "?" for word in ["word"]]
  assert all(a.nargs in (None, "?", "+") for a in parser._actions if not a.option_strings)
  options = options_of(parser).values()
  for actions in ([a for a in options if a.required], options):
    given = [word for a in actions for word in (a.option_strings[0], *words_of(a))]
    path = write(tmp_path, printed(command, *arguments, *given))
    assert parse(command, *arguments, "--config", path) == parse(command, *arguments, *given)
    assert printed(command, *arguments, "--config", path) == printed(command, *arguments, *given)


@pytest.mark.parametrize("command", commands())
def test_every_option_of_every_command_is_printed_and_none_needs_to_be_there(command):
  found = yaml.safe_load(printed(command))
  found.pop("beam", None)
  flags = {flag for action in options_of(commands()[command]).values() for flag in action.option_strings}
  told = [action for action in commands()[command]._actions if action.help != argparse.SUPPRESS]
  every = {flag for action in told for flag in action.option_strings}
  assert every - flags == {"-h", "--help", "--config", "--print-config"}
  assert {f"--{name}" for name in found} - {"--k"} <= flags and len(found) == len(options_of(commands()[command]))


def test_no_option_is_of_a_kind_that_a_file_cannot_say():
  kinds = {type(action) for parser in commands().values() for action in options_of(parser).values()}
  assert kinds <= {argparse._StoreAction, argparse._StoreTrueAction, argparse.BooleanOptionalAction}


def test_what_has_no_value_says_its_default():
  lines = printed("embed").splitlines()
  assert "max-rejected: null  # default: 1%" in lines and "limit: null" in lines
  assert "memory-budget: null  # default: half of the machine's" in lines


def test_a_file_says_what_flags_say(tmp_path):
  path = write(
    tmp_path,
    """
    # nightly
    input: ['a*.jsonl', "b"]
    text-column: title
    id-column: 007   # not seven
    keep-columns: [title, date]
    encoder: enc
    dataset: ds
    max-rejected: 2%
    memory-budget: 4GB
    n-components: 0.95
    limit: null
    no-header: true
    again: false
    wait: yes
    """,
  )
  flags = "--input a*.jsonl b --text-column title --id-column 007 --keep-columns title date --encoder enc --dataset ds"
  more = "--max-rejected 2% --memory-budget 4GB --n-components 0.95 --no-header --wait"
  assert parse("embed", "--config", path) == parse("embed", *flags.split(), *more.split())
  options = embed_options(make_parser().parse_args(["embed", "--config", path]))
  assert (options.read.id_column, options.memory_budget, options.wait) == ("007", 4 * 10**9, True)


def test_the_command_line_wins_over_the_file(tmp_path):
  path = write(tmp_path, "input: [a, b]\nlimit: 5\nbeam: [--job_name=a]\nlog-format: json\n")
  found = parse("embed", "--limit", "9", f"--config={path}", "--input", "c", "--log-format", "text")
  assert (found["input"], found["limit"], found["log_format"]) == (["c"], 9, "text")
  assert found["beam_options"] == ("--job_name=a",)


@pytest.mark.parametrize(
  ("said", "flag", "name"),
  [
    ("again: true", "--no-again", "again"),
    ("no-report: true", "--report", "no_report"),
    ("json: yes", "--no-json", "json"),
  ],
)
def test_what_a_file_turns_on_a_flag_turns_off(tmp_path, said, flag, name):
  path = write(tmp_path, said)
  assert parse("embed", "--config", path)[name] is True
  assert parse("embed", "--config", path, flag)[name] is False and parse("embed", flag, "--config", path)[name] is False


@pytest.mark.parametrize("command", commands())
def test_every_switch_has_an_opposite_that_changes_no_default(command):
  for action in commands()[command]._actions:
    if isinstance(action, argparse._StoreTrueAction) and action.dest != "print_config":
      [off] = [a for a in commands()[command]._actions if a.dest == action.dest and a.const is False]
      assert off.help == off.default == argparse.SUPPRESS


def test_an_option_without_a_long_flag_has_its_letter(tmp_path):
  assert parse("search", "ds", "text", "--config", write(tmp_path, "k: 3"))["k"] == 3


def test_no_may_be_said_of_what_is_yes_by_default(tmp_path):
  path = write(tmp_path, "lowercase: false\nstrip-accents: true\n")
  found = parse("freeze", "ckpt", "enc", "--config", path)
  assert (found["lowercase"], found["strip_accents"], found["tokenize_chinese_chars"]) == (False, True, None)


@pytest.mark.parametrize(
  ("beam", "flags"),
  [
    ("[--job_name=a, --parallelism, 8]", ("--job_name=a", "--parallelism", "8")),
    (
      "{job_name: a, parallelism: 8, experiments: [x, y], no_use_public_ips: true}",
      ("--job_name=a", "--parallelism=8", "--experiments=x", "--experiments=y", "--no_use_public_ips"),
    ),
    ("{dry_run: 'True'}", ("--dry_run=True",)),
    ("null", ()),
  ],
)
def test_beams_options(tmp_path, beam, flags):
  path = write(tmp_path, f"beam: {beam}")
  assert parse("embed", "--config", path)["beam_options"] == flags


def test_beams_options_of_the_command_line_come_after_the_files(tmp_path, capsys):
  path = write(tmp_path, "beam: {job_name: file}")
  assert main(["embed", "--config", path, "--print-config", "--", "--job_name=line"]) == 0
  assert yaml.safe_load(capsys.readouterr().out)["beam"] == ["--job_name=file", "--job_name=line"]


def test_printing_does_nothing_else(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main([*EMBED, "--print-config"]) == 0
  assert yaml.safe_load(capsys.readouterr().out)["input"] == ["a*.jsonl"]
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("input: a\nmax-rejectd: 1%", "line 2: max-rejectd: no such option of `sorbus embed`; did you mean max-rejected?"),
    ("--text_column: a", "line 1: --text_column: no such option of `sorbus embed`; did you mean text-column?"),
    ("qqqq: 1", "line 1: qqqq: no such option of `sorbus embed`; `sorbus embed --print-config` lists what there is"),
    ("qqqq: null", "line 1: qqqq: no such option of `sorbus embed`; `sorbus embed --print-config` lists what there is"),
    (
      "config: a",
      "line 1: config: no such option of `sorbus embed`; `sorbus embed --print-config` lists what there is",
    ),
    ("limit: 1\nlimit: 2", "line 2: limit: stands there twice; keep one of them"),
    ("threads: 0", "line 1: threads: 0 is not 1 or more"),
    ("threads: many", "line 1: threads: invalid whole number value: 'many'"),
    ("format: xml", "line 1: format: invalid choice: 'xml' (choose from 'text', 'jsonl', 'csv', 'tsv', 'parquet')"),
    ("id-column: [a, b]", "line 1: id-column: takes one value, not a list"),
    ("input: {a: b}", "line 1: input: takes a list, not a mapping"),
    ("input: []", "line 1: input: is empty; name something, or leave the line out"),
    ("input: [a, [b]]", "line 1: input: takes a value, not a list"),
    ("id-column: no", 'line 1: id-column: takes a value, not no; if it is meant as text, write "no"'),
    ("again: 1", "line 1: again: is true or false, not 1"),
    ("again: 'true'", "line 1: again: is true or false, not true"),
    ("beam: x", "line 1: beam: takes a list of --name=value, or a mapping of names to values, not x"),
    (
      "beam: {dry_run: false}",
      'line 1: beam: dry_run: takes a value, not false; if it is meant as text, write "false"',
    ),
    (
      "input: *.jsonl",
      "line 1: not YAML (expected alphabetic or numeric character, but found '.'); "
      "a value such as *.jsonl goes in quotes",
    ),
    ("- input", "has no options; write them as `name: value`, a line each"),
    ("input", "has no options; write them as `name: value`, a line each"),
  ],
)
def test_a_file_that_is_refused(tmp_path, capsys, text, message):
  told = refuse(tmp_path, capsys, text)
  assert told == f"nightly.yaml{':' if message.startswith('has') else ''} {message}"


def test_a_list_of_a_fixed_length(tmp_path, capsys):
  found = parse("evaluate", "enc", "--config", write(tmp_path, "columns: [a, b, score]"))
  assert found["columns"] == ["a", "b", "score"]
  told = refuse(tmp_path, capsys, "columns: [a, b]", "evaluate", "enc")
  assert told == "nightly.yaml line 1: columns: takes a list of 3, not of 2"


def test_an_argument_of_the_command_line_is_no_option(tmp_path, capsys):
  told = refuse(tmp_path, capsys, "dataset: ds", "verify", "ds")
  assert told.endswith("dataset: is no option; write it on the command line, as `sorbus verify --help` shows")
  assert "no such option of `sorbus verify`" in refuse(tmp_path, capsys, "beam: []", "verify", "ds")


def test_a_file_that_cannot_be_read(tmp_path, capsys):
  for name in ("nothing.yaml", ""):
    assert main([*EMBED, "--config", str(tmp_path / name)]) == 2
    assert "cannot be read" in capsys.readouterr().err
  (tmp_path / "latin.yaml").write_bytes(b"input: \xe4")
  assert main([*EMBED, "--config", str(tmp_path / "latin.yaml")]) == 2
  assert "latin.yaml: is not UTF-8 text" in capsys.readouterr().err
  assert main([*EMBED, "--config"]) == 2
  assert "argument --config: expected one argument" in capsys.readouterr().err


def test_an_empty_file_says_nothing(tmp_path):
  assert parse(*EMBED, "--config", write(tmp_path, "# all by default\n")) == parse(*EMBED)


SECRETS = ("ftp://me:hunter2@host/a", "s3://key:hunter2@bucket/a", "https://host/a?X-Amz-Signature=hunter2")


@pytest.mark.parametrize("url", SECRETS)
def test_a_secret_is_neither_taken_nor_printed_nor_told(tmp_path, capsys, url):
  assert "has a secret in it" in refuse(tmp_path, capsys, f"input: ['{url}']")
  assert "hunter2" not in refuse(tmp_path, capsys, f"beam: {{job_endpoint: '{url}'}}")
  for argv in (["embed", "--input", url], ["embed", "--whitening", url], ["freeze", "a", "b", "--vocab", url]):
    for more in ([], ["--log-format", "json", "-v"]):
      assert main([*argv, *more, "--print-config"]) == 2
      captured = capsys.readouterr()
      assert "***" in captured.err and "hunter2" not in captured.err + captured.out


def test_a_secret_flag_of_beams_is_neither_taken_nor_printed(tmp_path, capsys):
  message = refuse(tmp_path, capsys, "beam: {s3_secret_access_key: hunter2}")
  assert "is a credential" in message and "hunter2" not in message
  assert main(["embed", "--print-config", "--", "--s3_secret_access_key=hunter2"]) == 2
  captured = capsys.readouterr()
  assert "hunter2" not in captured.err + captured.out


def test_an_option_that_is_required_may_stand_in_the_file(tmp_path):
  parser = argparse.ArgumentParser()
  parser.add_argument("--pairs", required=True)
  apply_config(parser, write(tmp_path, "pairs: a.csv"))
  assert parser.parse_args([]).pairs == "a.csv"


def test_what_the_file_says_can_be_tried_at_once(tmp_path):
  with pytest.raises(UsageError, match="no such option"):
    make_parser().parse_args(["gc", "ds", "--config", write(tmp_path, "keep-run: 3")])
  assert parse("gc", "ds", "--config", write(tmp_path, "keep-runs: 3"))["keep_runs"] == 3
