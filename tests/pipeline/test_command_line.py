import argparse
import re
import signal
import subprocess
import sys
import threading

import pytest

from pipeline import command_line, flags, freeze_flags
from pipeline.command_line import INTERRUPTED, _report_thread, main, make_parser
from pipeline.commands import embed_options
from tests.conftest import REPOSITORY
from tests.tiny_bert import write_google_checkpoint
from transforms.errors import EncoderError, InputFileError, RunHeldError

COMMANDS = ("freeze", "embed", "show", "search")  # those of four options and more
EMBED = ["embed", "--input", "a*.txt", "b.txt", "--encoder", "enc", "--dataset", "ds"]


def parse(*more):
  args = make_parser().parse_args([*EMBED, *more])
  args.beam_options = ()
  return args


def refuse(capsys, *argv):
  """Returns the one line with which a command line is refused."""
  assert main(argv) == 2
  out, error = capsys.readouterr()
  assert out == "" and error.startswith("sorbus: error: ") and error.count("\n") == 1
  return error.removeprefix("sorbus: error: ").strip()


@pytest.mark.parametrize(
  ("text", "size"),
  [("1000", 1000), ("4GB", 4 * 10**9), ("512mb", 512 * 10**6), ("1.5GiB", 3 << 29), ("2 KB", 2000), ("1TiB", 1 << 40)],
)
def test_sizes(text, size):
  assert parse("--memory-budget", text).memory_budget == size


@pytest.mark.parametrize("text", ["GB", "4 G", "lots", "", "inf", "nan", "1e400TB"])
def test_what_is_no_size(capsys, text):
  assert refuse(capsys, *EMBED, "--memory-budget", text) == (
    f"argument --memory-budget: {text!r} is no size; write it like 4GB or 512MB (`sorbus embed --help` explains)"
  )


@pytest.mark.parametrize(("text", "share"), [("0", 0), ("0.05", 0.05), ("2%", 0.02), ("100%", 1), ("1", 1)])
def test_shares(text, share):
  assert parse("--max-rejected", text).max_rejected == share == parse("--threshold", text).threshold
  assert parse("--max-shrink", text).max_shrink == share == parse("--max-broken", text).max_broken


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_times(text, seconds):
  assert make_parser().parse_args(["wait", "ds", "--timeout", text]).timeout == seconds


@pytest.mark.parametrize("text", ["-1", "nan", "2 weeks", "h", "", "inf"])
def test_what_is_no_time(capsys, text):
  assert refuse(capsys, "wait", "ds", f"--timeout={text}").startswith("argument --timeout: ")


@pytest.mark.parametrize("text", ["1.5", "101%", "-1", "nan"])
def test_what_is_no_share(capsys, text):
  expected = f"argument --max-rejected: {text} is no share; choose 0 to 1, or 0% to 100%"
  assert refuse(capsys, *EMBED, f"--max-rejected={text}").startswith(expected)


@pytest.mark.parametrize(("text", "components"), [("256", 256), ("0.95", 0.95), (".5", 0.5)])
def test_components(text, components):
  found = parse("--n-components", text).n_components
  assert found == components and type(found) is type(components)


def test_layers_are_numbers_or_first_last(capsys):
  def layers(*words):
    return make_parser().parse_args(["freeze", "checkpoint", "encoder", "--layers", *words]).layers

  assert layers("-1", "0") == [-1, 0] and layers("first-last") == ["first-last"]
  for wrong in ("last", "1,2"):
    message = refuse(capsys, "freeze", "checkpoint", "encoder", "--layers", wrong)
    assert message.startswith(f"argument --layers: '{wrong}' is no layer; write several as --layers 1 2, behind")


def test_a_warning_of_freeze_goes_to_stderr_and_its_decisions_to_stdout(tmp_path, capsys):
  checkpoint = write_google_checkpoint(tmp_path / "checkpoint")
  assert main(["freeze", str(checkpoint), str(tmp_path / "encoder"), "--no-lowercase"]) == 0
  captured = capsys.readouterr()
  assert captured.err.startswith("warning: texts are not lower-cased")
  assert "pooling: mean" in captured.out and "warning:" not in captured.out


def test_options_of_checkpoints_and_of_graphs_are_kept_apart(capsys):
  for option, value in (("layers", "1"), ("combine", "sum"), ("activation", "relu"), ("bert-config", "a.json")):
    message = refuse(capsys, "freeze", "frozen.pb", "encoder", "--vocab", "v.txt", f"--{option}", value)
    assert message == f"--{option} is for a checkpoint; a graph has that in it; leave it out for frozen.pb"
  for option in ("output", "input-ids", "input-mask", "token-type-ids"):
    message = refuse(capsys, "freeze", "output/model.ckpt-9", "encoder", f"--{option}", "a")
    assert message == f"--{option} is for a graph frozen elsewhere, GRAPH.pb; leave it out for output/model.ckpt-9"


def test_a_graph_is_frozen_with_what_was_asked(monkeypatch):
  from pipeline.model import freeze_graph

  seen = []
  monkeypatch.setattr(
    freeze_graph, "freeze_graph", lambda path, folder, options, say: seen.append((path, folder, options))
  )
  ends = ["--output", "node", "--input-ids", "i", "--input-mask", "m", "--token-type-ids", "t"]
  assert main(["freeze", "frozen.pb", "e", "--vocab", "v.txt", *ends, "--pooling", "max", "--max-seq-length", "9"]) == 0
  asked = freeze_graph.AskedEnds("node", "i", "m", "t")
  options = freeze_graph.GraphOptions(vocab="v.txt", asked=asked, pooling="max", max_seq_length=9)
  assert seen == [("frozen.pb", "e", options)]


@pytest.mark.parametrize(
  ("option", "text", "message"),
  [
    ("--n-components", "1e-1", "argument --n-components: invalid number of components value: '1e-1'"),
    ("--threads", "0", "argument --threads: 0 is not 1 or more"),
    ("--waves", "2.5", "argument --waves: invalid whole number value: '2.5'"),
    ("--max-rejected", "few", "argument --max-rejected: invalid share value: 'few'"),
    ("--format", "xml", "argument --format: invalid choice: 'xml'"),
    ("--id-column", None, "argument --id-column: expected one argument"),
  ],
)
def test_values_that_are_refused(capsys, option, text, message):
  assert refuse(capsys, *EMBED, option, *([] if text is None else [text])).startswith(message)


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    ([*EMBED, "--n-component", "5"], "--n-component: no such option or argument; did you mean --n-components?"),
    ([*EMBED, "--keep-column=a"], "--keep-column=a: no such option or argument; did you mean --keep-columns?"),
    (["embed", "--inptu", "a"], "--inptu: no such option or argument; did you mean --input?"),
    (["show", "ds", "--jsn"], "--jsn: no such option or argument; did you mean --json?"),
    (["search", "ds", "a", "text"], "text: no such option or argument"),
    (["freeze", "ckpt", "enc", "--qqqqq"], "--qqqqq: no such option or argument"),
    (
      [*EMBED, "--job_endpoint=a"],
      "--job_endpoint=a: no such option or argument; if it is Beam's, it stands behind '--'",
    ),
    (["embed", "--input", "a"], "the following arguments are required: --encoder, --dataset"),
    (["embed", "--dataset", "ds"], "the following arguments are required: --input, --encoder"),
    (["wait"], "the following arguments are required: DATASET"),
    (["--hel"], "the following arguments are required: COMMAND"),
    (["embde"], "argument COMMAND: invalid choice: 'embde'"),
    ([], "the following arguments are required: COMMAND"),
  ],
)
def test_a_typing_mistake_cannot_pass(capsys, argv, message):
  line = refuse(capsys, *argv)
  assert re.fullmatch(re.escape(message) + r"( \(choose from .*\))? \(`sorbus( \w+)? --help` explains\)", line)


def option_strings(command):
  [action] = [a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)]
  told = [a for a in action.choices[command]._actions if a.help != argparse.SUPPRESS]
  return [option for a in told for option in a.option_strings]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_mentions_its_options(capsys, command):
  with pytest.raises(SystemExit) as exit_:
    main([command, "--help"])
  out = capsys.readouterr().out
  assert exit_.value.code == 0 and len(option_strings(command)) >= 4
  assert not [option for option in option_strings(command) if option not in out]


def test_help_says_what_commands_and_exit_codes_there_are(capsys):
  with pytest.raises(SystemExit) as exit_:
    main(["--help"])
  out = " ".join(capsys.readouterr().out.split())
  (commands,) = [a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)]
  assert exit_.value.code == 0 and set(COMMANDS) < set(commands.choices)
  assert [command for command in commands.choices if f"sorbus {command} " not in out] == []
  assert "0 done, 1 failed or held back by a gate, 2 bad usage or input, 75 another job came first: try later" in out


def test_help_warns_that_the_cls_vector_is_often_the_poolers(capsys):
  with pytest.raises(SystemExit):
    main(["freeze", "--help"])
  assert "bert/pooler/dense/Tanh" in capsys.readouterr().out


def test_help_waits_for_no_library():
  program = (
    "import sys; from pipeline.command_line import make_parser; make_parser();"
    "sys.exit(bool({'apache_beam', 'tensorflow', 'pyarrow'} & sys.modules.keys()))"
  )
  subprocess.run([sys.executable, "-c", program], check=True)


def test_flags_become_options():
  more = "--text-column title body --id-column id --keep-columns title --encoding gb18030 --format csv --no-header"
  work = "--limit 9 --threads 2 --memory-budget 2GB --token-budget 99 --flush-seconds 5 --buckets 4 --waves 2"
  output = "--whitening fit --n-components 0.9 --max-rejected 2% --allow-bad-files --long-texts windows --stride 99"
  options = embed_options(parse(*more.split(), *work.split(), *output.split()))
  read = options.read
  assert (options.inputs, options.encoder, options.dataset) == (("a*.txt", "b.txt"), "enc", "ds")
  assert (read.text_columns, read.id_column, read.keep_columns) == (("title", "body"), "id", ("title",))
  assert (read.encoding, read.format, read.header, read.allow_bad_files) == ("gb18030", "csv", False, True)
  assert (options.limit, options.threads, options.memory_budget, options.token_budget) == (9, 2, 2 * 10**9, 99)
  assert (options.flush_seconds, options.buckets, options.waves) == (5.0, 4, 2)
  assert (options.long_texts, options.stride) == ("windows", 99)
  assert (options.whitening, options.n_components, options.max_rejected) == ("fit", 0.9, 0.02)


def test_flags_that_are_not_given_keep_the_defaults():
  options = embed_options(parse())
  assert (options.token_budget, options.flush_seconds, options.max_rejected) == (2048, 60.0, 0.01)
  assert options.read.text_columns == ("text",) and options.read.header and options.whitening is None


@pytest.fixture
def seen(monkeypatch):
  """What the commands are given; they return 0, or raise what the test puts under 'raise'."""
  seen = {}

  def run(args):
    seen["args"] = args
    if "raise" in seen:
      raise seen["raise"]
    return seen.get("code", 0)

  for name in COMMANDS:
    monkeypatch.setattr(freeze_flags if name == "freeze" else flags, f"run_{name}", run)
  monkeypatch.setattr(command_line, "_quiet_libraries", lambda verbose: None)
  return seen


def test_what_stands_behind_two_dashes_goes_to_beam(seen):
  assert main([*EMBED, "--limit", "3", "--", "--job_name=tonight", "--unknown"]) == 0
  assert seen["args"].beam_options == ("--job_name=tonight", "--unknown") and seen["args"].limit == 3
  assert main(EMBED) == 0 and seen["args"].beam_options == ()


def test_a_query_may_begin_with_a_dash_behind_two(seen, capsys):
  assert main(["search", "ds", "--", "--why -x"]) == 0
  assert seen["args"].text == "--why -x" and seen["args"].beam_options == ()
  assert "no such option" in refuse(capsys, "search", "ds", "--why -x")


@pytest.mark.parametrize(
  ("error", "code"),
  [(EncoderError("no such encoder"), 2), (InputFileError("a.gz is damaged"), 1), (RunHeldError("held"), 75)],
)
def test_exit_codes(seen, capsys, error, code):
  seen["raise"] = error
  assert main(["show", "ds"]) == code
  assert capsys.readouterr().err == f"sorbus: error: {error}\n"
  assert main(["show", "ds", "-v"]) == code
  assert "Traceback" in capsys.readouterr().err


def test_a_command_says_its_own_exit_code(seen):
  seen["code"] = 1
  assert main(["show", "ds"]) == 1


def test_a_bug_of_ours_is_not_taken_for_the_users(seen):
  seen["raise"] = ZeroDivisionError()
  with pytest.raises(ZeroDivisionError):
    main(["show", "ds"])


def test_a_reader_that_goes_away_is_no_error(seen, monkeypatch):
  monkeypatch.setattr(sys, "stdout", sys.stdout)  # given back after the test
  seen["raise"] = BrokenPipeError()
  assert main(["search", "ds", "a"]) == 0


def test_an_error_is_one_line_whatever_a_strangers_file_says(capsys, monkeypatch):
  def run(args):
    raise EncoderError("graph.pb: node 'x' is a Foo\nBar\x1b[31m")

  monkeypatch.setattr(freeze_flags, "run_freeze", run)
  assert main(["freeze", "graph.pb", "encoder"]) == 2
  assert capsys.readouterr().err == "sorbus: error: graph.pb: node 'x' is a Foo\\x0aBar\\x1b[31m\n"


def test_a_process_that_ends_does_not_look_through_all_that_it_has_loaded():
  """Python collects once more after what is registered for the end; what is frozen it does not walk."""
  code = """if True:
    import atexit, gc
    atexit.register(lambda: print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 1000))  # the first is the last
    from pipeline.command_line import main
    main(["verify", "no-such-dataset"])
  """
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
  assert done.stdout == "True True\n"


def test_an_interrupt_that_python_only_reports_is_not_lost():
  """As when a signal comes while an object is being freed: nothing can be raised there."""
  code = """if True:
    import os, signal, sys
    from pipeline import command_line, flags

    class Freed:
      def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

    def verify(args):
      Freed()
      signal.pause()  # for the second one
      raise AssertionError("the interrupt was lost")

    flags.run_verify = verify
    sys.exit(command_line.main(["verify", "dataset"]))
  """
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=REPOSITORY)
  assert done.returncode == INTERRUPTED, done.stderr
  assert done.stderr.startswith("sorbus: interrupted;") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_said_again_to_what_waits_without_end_on_its_way_out(number):
  """As Beam's local runner does for a worker that was interrupted while it started."""
  code = f"""if True:
    import os, sys, threading
    from pipeline import command_line, flags

    def verify(args):
      try:
        os.kill(os.getpid(), {int(number)})
      finally:
        threading.Event().wait()

    command_line._PATIENCE_SECONDS = 0.05
    flags.run_verify = verify
    sys.exit(command_line.main(["verify", "dataset"]))
  """
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=REPOSITORY)
  assert done.returncode == INTERRUPTED, done.stderr
  assert done.stderr.startswith("sorbus: interrupted;") and len(done.stderr.splitlines()) == 1


def test_a_file_system_that_fails_is_told_in_one_line(monkeypatch, capsys):
  def fails(args):
    raise OSError(5, "Input/output error", "/data/x.parquet")

  monkeypatch.setattr(flags, "run_verify", fails)
  assert main(["verify", "dataset"]) == 1
  said = capsys.readouterr().err
  assert said == "sorbus: error: /data/x.parquet: Input/output error; mend that and run again: what is there is kept\n"


def test_a_thread_of_grpc_that_was_cut_off_says_nothing_and_one_of_ours_does(monkeypatch, capsys):
  cut_off = type("Cut", (Exception,), {"__module__": "grpc._channel"})

  def verify(args):
    for error in (cut_off("cancelled"), ValueError("of ours")):
      thread = threading.Thread(target=lambda error=error: (_ for _ in ()).throw(error))
      thread.start()
      thread.join()
    return 0

  monkeypatch.setattr(flags, "run_verify", verify)
  assert main(["verify", "dataset"]) == 0
  said = capsys.readouterr().err
  assert "ValueError: of ours" in said and "cancelled" not in said


def raise_as_if_in(module):
  """Runs a thread that fails in a module of that name."""
  program = {"__name__": module}
  exec("def serve(): raise ValueError('not while shutting down')", program)
  thread = threading.Thread(target=program["serve"])
  thread.start()
  thread.join()


def test_a_thread_that_ends_in_grpc_is_no_news_and_any_other_is(monkeypatch, capsys):
  """Beam's own servers are still listening when a run is interrupted."""
  monkeypatch.setattr(threading, "excepthook", _report_thread)
  raise_as_if_in("grpc._server")
  assert capsys.readouterr().err == ""
  raise_as_if_in("pipeline.embed")
  assert "ValueError: not while shutting down" in capsys.readouterr().err
