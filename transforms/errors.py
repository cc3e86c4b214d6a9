"""What can go wrong in a way that a person can mend: one line each, never a traceback.

The message names the thing (file, value, option) and the remedy. Everything else that is raised is a bug of ours.
"""

# Exit status of a job that SIGINT or SIGTERM ended, as shells have it.
INTERRUPTED = 130


class SorbusError(Exception):
  """A failure that the command line prints as one line; `exit_code` is its exit status."""

  exit_code = 1


class UsageError(SorbusError):
  """The job as asked cannot be right: found before any work is done."""

  exit_code = 2


class EncoderError(UsageError):
  """An encoder folder, checkpoint or graph that is not what it has to be."""


class InputFileError(SorbusError):
  """An input file that is not, or cannot be read as, what was listed when the run was planned."""


class StoreError(SorbusError):
  """A file of the dataset that is missing, damaged, or not what its name says."""


class DamagedFileError(StoreError):
  """A file of the dataset that is gone, or whose bytes are not what was written: what it held can be made again."""


class KnownTextsLostError(StoreError):
  """Texts that were read as known, and so without their tokens, are in no whole raw file any more."""


class RunHeldError(SorbusError):
  """Another run holds, or has just published to, the dataset: trying again later works."""

  exit_code = 75


class RunDeadError(SorbusError):
  """A run whose job is gone before it was published: it has to be made again, or published by hand."""


class EngineError(SorbusError):
  """A cluster that cannot be reached, or that gave a job up: what was encoded is kept."""


def printable(text: str) -> str:
  """Returns a text as one line that no terminal takes for orders: what a file or a graph says is a stranger's."""
  return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
