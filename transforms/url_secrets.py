"""Secrets in URLs: found before one is used, so that none is ever recorded, and hidden in whatever is printed.

A URL that is given to a run stands in its plan, its manifest and in what workers are sent. So one with a password or a
signature in it is refused; file systems take credentials from the environment and from fsspec's configuration.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from transforms.errors import UsageError

HIDDEN: Final = "***"
REMEDY: Final = "leave it out, and give credentials by the environment or fsspec's configuration (docs/places.md)"
# A whole name of a query's parameter or of an option, and what may be a part of one.
_NAMES = "auth|code|jwt|key|pass|pw|pwd|sas|sig"
_PARTS = (
  "(?:access|account|api|functions|private|subscription)[_-]?key|authorization|connection[_-]?string|credential|"
  "passphrase|passwd|password|secret|signature|token"
)
_SECRET_NAME = re.compile(rf"(?i)(?:{_NAMES})|.*(?:{_PARTS}).*")
_PARAMETER = re.compile(rf"(?i)(?<=[?&;#])((?:{_NAMES}|[\w.\-]*(?:{_PARTS})[\w.\-]*)=)([^&;\s'\"]+)")
# A secret key may have slashes in it, a bucket's name has neither colon nor '@'.
_OF_BUCKET = re.compile(r"(?i)\b((?:s3[an]?|gs|gcs|oss)://)([^\s@'\":]*:[^\s@'\"]*)(?=@)")
# A web server's user without a password is a token more often than not. The last '@' before a path ends what is secret.
_OF_WEB = re.compile(r"(?i)\b((?:https?|gist|webdavs?)://)([^\s/?#'\"]+)(?=@)")
# github://ORGANISATION:REPOSITORY@REVISION only looks like one.
_OF_HOST = re.compile(r"(?i)(?<!\bgithub)(?<!\bgit)(://[^\s/?#@:'\"]*:)([^\s/?#'\"]+)(?=@)")
_SHAPES = (_OF_BUCKET, _OF_WEB, _OF_HOST, _PARAMETER)


def hide_secrets(text: str) -> str:
  """Returns a text with what looks like a secret in a URL replaced by `***`."""
  for shape in _SHAPES:
    text = shape.sub(rf"\g<1>{HIDDEN}", text)
  return text


def check_no_secret(url: str, what: str = "") -> None:
  """Raises UsageError, without the secret, for a URL with a password, a token or a signature in it.

  Args:
    url: a path, or a URL, or a chain of them.
    what: the option that it was given for.
  """
  shown = hide_secrets(url)
  if shown != url and "://" in url:
    raise UsageError(f"{what} {shown}: has a secret in it, which would be recorded; {REMEDY}".lstrip())


def check_no_secret_option(options: Mapping[str, Any], what: str = "storage option") -> None:
  """Raises UsageError for options of a file system or engine that are credentials: they are pickled with the job."""
  for name in _names(options):
    if _SECRET_NAME.fullmatch(name):
      raise UsageError(f"{what} {name!r} is a credential, which would be sent along with the job; {REMEDY}")


def check_no_secret_flag(flag: str, what: str) -> None:
  """Raises UsageError for a flag of an engine that is a credential, or has one in its value: a URL, or JSON.

  Args:
    flag: `--name=value`, or one of them where they stand apart.
    what: where it was given.
  """
  name, _, value = flag.partition("=") if flag.startswith("-") else ("", "", flag)
  check_no_secret_option({name.lstrip("-"): None}, what)
  check_no_secret(flag, what)
  with contextlib.suppress(ValueError):  # what is no JSON, such as an environment's variables, has no names in it
    found = json.loads(value)
    check_no_secret_option(found if isinstance(found, Mapping) else {}, what)


def _names(options: Mapping[str, Any]) -> Iterator[str]:
  for name, value in options.items():
    yield name
    if isinstance(value, Mapping):
      yield from _names(value)
