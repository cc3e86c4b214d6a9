"""A folder that is there whole or not at all: written beside its place, and moved there at the end."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from transforms.errors import EncoderError


@contextlib.contextmanager
def whole_folder(target: Path, *failures: type[Exception]) -> Iterator[Path]:
  """Gives the path of a new folder, and puts it in the place of `target` if the block ends well.

  What stood there stands there still, or again, if it does not.

  Args:
    target: local, and nothing but a folder that may be lost.
    failures: what raises beside OSError when a file cannot be written.

  Raises:
    EncoderError: it cannot be written.
  """
  with writing(target, *failures):
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
      new = Path(scratch) / "new"
      yield new
      _move(new, target, Path(scratch) / "old")  # which goes with the scratch folder


@contextlib.contextmanager
def writing(target: Path, *failures: type[Exception]) -> Iterator[None]:
  """Turns what the file system refuses into one line."""
  try:
    yield
  except Exception as error:
    if not isinstance(error, (OSError, *failures)):
      raise
    why = " ".join(str(getattr(error, "strerror", None) or error).split())
    raise EncoderError(
      f"{target}: cannot be written ({why[:200]}); give a new folder where you may write, with room"
    ) from error


def _move(new: Path, target: Path, old: Path) -> None:
  """Puts `new` in the place of `target`; what stood there stands there again if that fails."""
  try:
    if target.exists():
      target.rename(old)
    new.rename(target)
  except BaseException:
    if old.exists() and not target.exists():
      old.rename(target)
    raise
