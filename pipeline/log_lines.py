"""What a command says on stderr while it works: lines for people, or JSON objects for a collector of logs.

Results go to stdout. A process runs one command, so how it speaks is a setting of the process.
"""

import datetime
import json
import logging
import sys
from dataclasses import dataclass
from typing import Literal

from transforms.errors import printable
from transforms.url_secrets import hide_secrets

FORMATS = ("text", "json")
Level = Literal["info", "warning", "error"]


@dataclass
class _Manner:
  """How this process speaks: an object a line; errors only; and the run that it is about, None for none."""

  as_json: bool = False
  quiet: bool = False
  run_id: str | None = None


_manner = _Manner()


def speak(*, as_json: bool = False, quiet: bool = False) -> None:
  """Settles how lines are told from here on; they are about no run yet."""
  _manner.as_json, _manner.quiet, _manner.run_id = as_json, quiet, None


def about_run(run_id: str | None) -> None:
  """Notes the run that the lines from here on are about."""
  _manner.run_id = run_id


def speaks_json() -> bool:
  """Says whether stderr is for programs, so that nothing else may stand there."""
  return _manner.as_json


def draws_progress() -> bool:
  """Says whether somebody watches a progress line: a terminal, whatever FORCE_COLOR says of colours."""
  return sys.stderr.isatty() and not _manner.as_json and not _manner.quiet


def tell(line: str, level: Level = "info", traceback: str | None = None) -> None:
  """Writes a line to stderr, without the secrets of the URLs in it; when quiet, an error only.

  Args:
    line: for people, as it stands; as JSON it is the object's `message`.
    level: what it is.
    traceback: of an error that is looked into.
  """
  if _manner.quiet and level != "error":
    return
  if _manner.as_json:
    text = to_object(line, level, traceback)
  else:
    text = hide_secrets(f"{line}\n{traceback}" if traceback else line)
  print(text, file=sys.stderr, flush=True)


def tell_error(line: str, traceback: str | None = None) -> None:
  """Says in one line why a command ends without what was asked."""
  line = printable(line)
  tell(line if _manner.as_json else f"sorbus: error: {line}", "error", traceback)


def to_object(line: str, level: str, traceback: str | None = None, logger: str | None = None) -> str:
  """Returns a line as a JSON object: time (UTC), level, message, and what there is of run_id, traceback and logger."""
  time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
  found = {"time": time, "level": level, "message": hide_secrets(line), "run_id": _manner.run_id}
  found |= {"traceback": hide_secrets(traceback) if traceback else None, "logger": logger}
  return json.dumps({key: value for key, value in found.items() if value is not None}, ensure_ascii=False)


class LogFormatter(logging.Formatter):
  """Tells what engines and libraries log in the manner of this process."""

  def format(self, record: logging.LogRecord) -> str:
    """Returns one record as text, or as an object in which `logger` says whose it is."""
    if not _manner.as_json:
      return hide_secrets(super().format(record))
    trace = self.formatException(record.exc_info) if record.exc_info else None
    return to_object(record.getMessage(), record.levelname.lower(), trace, record.name)


def local_time(moment: datetime.datetime) -> str:
  """Returns a time for people: in the zone of this machine, which it names. Files and JSON have UTC."""
  return f"{moment.astimezone():%Y-%m-%d %H:%M %Z}"
