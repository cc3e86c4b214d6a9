"""The bytes of an encoder folder's files: read where they lie on this machine, fetched once per host from elsewhere."""

import contextlib
import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Final

from transforms.encoder_cache import EncoderCache, WrongBytesError
from transforms.errors import EncoderError, UsageError
from transforms.object_errors import credentials_problem
from transforms.places import file_system, is_local

_PIECE_BYTES: Final = 8 << 20
_WHAT_IT_IS: Final = "an encoder folder is what `sorbus freeze` writes"


def read_bytes(encoder_dir: str, name: str) -> bytes:
  """Returns a file of an encoder folder as it is there now.

  Raises:
    EncoderError: it is not there, or cannot be read, or its URL has a secret in it.
  """
  return b"".join(_pieces(_path(encoder_dir, name)))


def read_checked(encoder_dir: str, name: str, sha256: str) -> bytes:
  """Returns a file of an encoder folder; that of a remote one is fetched by one process of this host.

  Args:
    encoder_dir: a path or any fsspec URL.
    name: of the file.
    sha256: what `encoder.json` says of it.

  Raises:
    EncoderError: as `read_bytes`; or it is not what `encoder.json` says, or cannot be kept on this machine.
  """
  path = _path(encoder_dir, name)
  with _explained(path):
    fs, _ = file_system(path)
  if is_local(fs):
    data = read_bytes(encoder_dir, name)
    check_sha256(data, sha256, path)
    return data
  try:
    return EncoderCache.here().read(sha256, partial(_pieces, path))
  except WrongBytesError as error:
    raise EncoderError(
      f"{path}: sha256 {str(error)[:12]}, but encoder.json says {sha256[:12]}; it was changed, or cut on its way: "
      "try again, or freeze again"
    ) from error


def check_sha256(data: bytes, wanted: str, name: str) -> None:
  """Raises EncoderError if `data` is not what `encoder.json` says."""
  found = hashlib.sha256(data).hexdigest()
  if found != wanted:
    raise EncoderError(
      f"{name}: sha256 {found[:12]}, but encoder.json says {wanted[:12]}; it was changed: freeze again"
    )


def _path(encoder_dir: str, name: str) -> str:
  return f"{encoder_dir.rstrip('/')}/{name}"


def _pieces(path: str) -> Iterator[bytes]:
  with _explained(path):
    fs, place = file_system(path)
    fs.invalidate_cache()  # a listing of this process may be older than the encoder
    # Read from its start to its end: a web server need not know ranges for that.
    streamed = {"block_size": 0} if "http" in fs.protocol else {}
    with fs.open(place, "rb", **streamed) as file:
      while piece := file.read(_PIECE_BYTES):
        yield piece


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
  """Turns what a file system says into one line."""
  try:
    yield
  except EncoderError:
    raise
  except UsageError as error:  # no file system for it
    raise EncoderError(str(error)) from error
  except (FileNotFoundError, NotADirectoryError) as error:
    raise EncoderError(f"{path}: not there; {_WHAT_IT_IS}") from error
  except Exception as error:
    if not isinstance(error, OSError) and type(error).__module__ == "builtins":
      raise  # a bug of ours: the clients of object stores have classes of their own
    if problem := credentials_problem(error):
      raise EncoderError(f"{path}: {problem}") from error
    why = getattr(error, "strerror", None) or " ".join(f"{type(error).__name__}: {error}".split())
    raise EncoderError(f"{path}: cannot be read ({why}); {_WHAT_IT_IS}") from error
