"""The command line: where flags are parsed. `commands.py` turns them into a frozen configuration and calls."""

import argparse
import atexit
import difflib
import gc
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from itertools import pairwise
from typing import Any, NoReturn

from pipeline import __version__
from pipeline.estimate_flags import add_estimate
from pipeline.evaluate_flags import add_evaluate
from pipeline.export_flags import add_export
from pipeline.flags import (
  add_diff,
  add_embed,
  add_gc,
  add_publish,
  add_rewhiten,
  add_search,
  add_show,
  add_verify,
  add_wait,
)
from pipeline.freeze_flags import add_freeze
from pipeline.log_lines import FORMATS, LogFormatter, speak, speaks_json, tell, tell_error
from pipeline.report_flags import add_report
from transforms.errors import INTERRUPTED, SorbusError, UsageError

_AGAIN_SECONDS = 0.01
# Beam waits without end for a worker that was interrupted while it started.
_PATIENCE_SECONDS = 10.0
_COMMANDS = (
  add_freeze,
  add_embed,
  add_estimate,
  add_rewhiten,
  add_show,
  add_search,
  add_export,
  add_verify,
  add_diff,
  add_publish,
  add_gc,
  add_wait,
  add_evaluate,
  add_report,
)


class _Parser(argparse.ArgumentParser):
  """Refuses in one line that names what was mistyped and what was probably meant; never abbreviates."""

  def __init__(self, *args: Any, **kwargs: Any):
    kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
    kwargs["allow_abbrev"] = False
    super().__init__(*args, **kwargs)

  def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
    """Parses, and refuses what is left over with the closest option that there is."""
    if self._subparsers is None:  # first: argparse would rather say that --input is missing than that --inptu is wrong
      self._refuse([arg for arg in _before_dashes(args) if arg.startswith("--") and not self._knows(arg)])
      self._take_config(list(_before_dashes(args)))
    found, unknown = super().parse_known_args(args, namespace)
    self._refuse(unknown)
    return found, []

  def _take_config(self, args: Sequence[str]) -> None:
    """Makes the defaults of this command what a file says that stands on its command line, before that is parsed."""
    files = [b for a, b in pairwise(args) if a == "--config"]
    files += [arg.partition("=")[2] for arg in args if arg.startswith("--config=")]
    for path in files[-1:]:
      from pipeline.config_file import apply_config

      apply_config(self, path)
    if "--print-config" in args:  # also of what cannot run yet: to be filled in
      for action in self._actions:
        action.required = False

  def _knows(self, arg: str) -> bool:
    return arg.partition("=")[0] in self._option_string_actions

  def _refuse(self, unknown: Sequence[str]) -> None:
    if unknown:
      close = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, n=1)
      meant = f"; did you mean {close[0]}?" if close else ""
      if not close and "_" in unknown[0]:  # none of ours has one
        meant = "; if it is Beam's, it stands behind '--'"
      self.error(f"{unknown[0]}: no such option or argument{meant}")

  def error(self, message: str) -> NoReturn:
    """Raises UsageError instead of printing the whole usage."""
    raise UsageError(f"{message} (`{self.prog} --help` explains)")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command and returns its exit code (see `sorbus --help`)."""
  argv = list(sys.argv[1:] if argv is None else argv)
  verbose = "-v" in argv or "--verbose" in argv
  speak(as_json=_asks_for_json(argv))  # a command line that cannot be parsed is told so too
  # As it ends Python looks through all that TensorFlow and Beam have made: a second for nothing, the process goes away.
  atexit.register(gc.freeze)
  try:
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT):
      if signal.getsignal(number) is not signal.SIG_IGN:  # as it is in the background of a shell
        signal.signal(number, _interrupt)
    sys.unraisablehook = _raise_lost_interrupt
    # What stands behind '--' goes to Beam; for other commands it says, as everywhere, that no option follows.
    ours = _before_dashes(argv) if argv[:1] in (["embed"], ["estimate"]) else argv
    args = make_parser().parse_args(ours)
    args.beam_options = (*getattr(args, "beam_options", ()), *argv[len(ours) + 1 :])  # of two the last counts
    if args.print_config:
      return _print_config(args)
    if dataset := getattr(args, "dataset", None):  # "vectors/" is the folder too, and what is printed goes on behind it
      args.dataset = dataset if dataset.endswith("://") else dataset.rstrip("/") or "/"
    speak(as_json=args.log_format == "json", quiet=args.quiet)
    _quiet_libraries(verbose := args.verbose)
    command: Callable[[argparse.Namespace], int] = args.run
    return _unheard(command, args) if args.quiet and not getattr(args, "json", False) else command(args)
  except SorbusError as error:
    tell_error(str(error), _traceback(verbose))
    return error.exit_code
  except BrokenPipeError:  # `sorbus search … | head`
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    return 0
  except OSError as error:  # of a file system that fails, where nobody knew more about it
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    tell_error(f"{what}; mend that and run again: what is there is kept", _traceback(verbose))
    return SorbusError.exit_code
  except KeyboardInterrupt:
    tell("sorbus: interrupted; nothing is left half-done, and what was encoded is kept: run again", "error")
    os._exit(INTERRUPTED)  # Beam's threads would go on to the end of their bundles
  except Exception as error:
    if not speaks_json():  # a bug of ours: Python tells it
      raise
    tell_error(f"{type(error).__name__}: {error}; this is a bug of Sorbus", traceback.format_exc())
    return SorbusError.exit_code


def _print_config(args: argparse.Namespace) -> int:
  from pipeline.config_file import to_config

  print(to_config(args.parser, args), end="")
  return 0


def _asks_for_json(argv: Sequence[str]) -> bool:
  ours = list(_before_dashes(argv))
  return "--log-format=json" in ours or any(pair == ("--log-format", "json") for pair in pairwise(ours))


def _traceback(verbose: bool) -> str | None:
  return traceback.format_exc() if verbose else None


def _unheard(command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
  """Runs a command whose words nobody wants to hear, unless it ends otherwise than well: then they are the error."""
  with redirect_stdout(io.StringIO()) as said:
    code = command(args)
  if code and (text := said.getvalue().strip()):
    tell(text, "error")
  return code


def _interrupt(*_: Any) -> None:
  """Ends what runs; whatever of it does not end within `_PATIENCE_SECONDS` is interrupted again."""
  signal.setitimer(signal.ITIMER_REAL, _PATIENCE_SECONDS)
  raise KeyboardInterrupt


def _raise_lost_interrupt(lost: Any) -> None:
  """Interrupts again what Python could only report, in a callback of its own: else the run would go on to its end."""
  if issubclass(lost.exc_type, KeyboardInterrupt):
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)  # at once it would be lost again, in here
  else:
    sys.__unraisablehook__(lost)


def _before_dashes(argv: Sequence[str]) -> Sequence[str]:
  return argv[: argv.index("--")] if "--" in argv else argv


def _quiet_libraries(verbose: bool) -> None:
  """Keeps engines' tracebacks for --verbose: a failure of ours is told in one line."""
  level = logging.INFO if verbose else logging.CRITICAL
  handler = logging.StreamHandler(sys.stderr)
  handler.setFormatter(LogFormatter(logging.BASIC_FORMAT))
  logging.basicConfig(level=level, handlers=[handler])
  logging.getLogger("apache_beam").setLevel(level)
  logging.captureWarnings(speaks_json())
  if not verbose:
    threading.excepthook = _report_thread
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if verbose else "3")


def _report_thread(failed: threading.ExceptHookArgs) -> None:
  """Reports what ended a thread, but for gRPC's, which Beam's were reading or serving when the run was stopped."""
  places = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(failed.exc_traceback)]
  if not any(name.startswith("grpc") for name in (failed.exc_type.__module__, *places)):
    if not speaks_json():
      threading.__excepthook__(failed)
      return
    trace = "".join(traceback.format_exception(failed.exc_value))
    tell(f"{failed.exc_type.__name__}: {failed.exc_value}", "error", trace)


def make_parser() -> argparse.ArgumentParser:
  """Returns the parser of all commands."""
  parser = _Parser(
    prog="sorbus",
    description="Turn a text corpus into whitened BERT or XLNet vectors.\n\n"
    "  sorbus freeze CHECKPOINT ENCODER_DIR        make an encoder of a checkpoint: BERT, XLNet\n"
    "  sorbus embed --input GLOB --encoder ENCODER_DIR --dataset DATASET\n"
    "  sorbus estimate --input GLOB --encoder …    what that will take: time, memory, bytes; changes nothing\n"
    "  sorbus show DATASET                         what is in it, what the last run did; or of a checkpoint,\n"
    "                                              an encoder folder or a graph: what it is\n"
    '  sorbus search DATASET "a text"              the documents nearest to a text\n'
    "  sorbus export DATASET --to npy|faiss OUT    a run's vectors for another library\n"
    "  sorbus verify DATASET                       re-read every file of a run\n"
    "  sorbus report DATASET                       one HTML file about a run, for people\n"
    "  sorbus publish DATASET RUN                  publish a run that is there: roll back to an older one\n"
    "  sorbus wait DATASET [RUN]                   follow a run that another process makes, and end as it does\n"
    "  sorbus gc DATASET                           remove old runs and what no run needs\n"
    "  sorbus diff DATASET RUN RUN                 what differs between two runs: rows, vectors, moments\n"
    "  sorbus rewhiten DATASET                     whiten a run's raw vectors anew, encoding nothing\n"
    "  sorbus evaluate ENCODER --pairs FILE        is it good, does whitening help: against scored pairs",
    epilog="Exit codes: 0 done, 1 failed or held back by a gate, 2 bad usage or input, 75 another job came first: try "
    "later, 130 interrupted.",
  )
  parser.add_argument("--version", action="version", version=f"sorbus {__version__}")
  commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
  for add in _COMMANDS:
    command = add(commands)
    _add_manners(command.add_argument_group("in every command"))
    _add_opposites(command)
    command.set_defaults(parser=command)
  return parser


def _add_manners(g: Any) -> None:
  g.add_argument(
    "--config",
    metavar="FILE",
    help="YAML: options by name, such as `id-column: id`; flags win over it: of a switch that it turns on, such as "
    "`again: true`, --no-again",
  )
  g.add_argument("--print-config", action="store_true", help="print all options as such a file, and do nothing else")
  g.add_argument("-v", "--verbose", action="store_true", help="show the engines' logs and tracebacks")
  g.add_argument("--quiet", action="store_true", help="errors only, and the result if --json asks for it")
  g.add_argument(
    "--log-format",
    choices=FORMATS,
    default="text",
    help="of what goes to stderr; json: an object a line, with time (UTC), level, message and run_id; default: text",
  )


def _add_opposites(command: argparse.ArgumentParser) -> None:
  """Gives each switch what turns it off where a file turned it on: --no-again, and --report for --no-report.

  They stand in no help and in no file: without a file nobody needs them.
  """
  for action in list(command._actions):
    if action.const is True and action.dest != "print_config":
      name = action.option_strings[-1].removeprefix("--")
      opposite = name.removeprefix("no-") if name.startswith("no-") else f"no-{name}"
      command.add_argument(
        f"--{opposite}",
        dest=action.dest,
        action="store_const",
        const=False,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
      )
