"""Where input and encoders lie: any fsspec URL or a path. Where a dataset can lie says `storage.py`."""

from collections.abc import Mapping
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from transforms.errors import UsageError
from transforms.url_secrets import check_no_secret

# By protocol: what `pip install` brings it. Of others fsspec names the package.
_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def file_system(url: str, storage: Mapping[str, Any] | None = None) -> tuple[Any, str]:
  """Returns the fsspec file system of a path or URL, and the path on it.

  Args:
    url: a chain of file systems too, 'zip://a.txt::s3://bucket/b.zip'.
    storage: options for the file system; credentials are not among them, they are those of the process.

  Raises:
    UsageError: there is a secret in it, its protocol is not known, or the package for it is not installed.
  """
  if url.startswith("/"):  # a path of this machine, in whose names "::" chains no file systems
    return fsspec.filesystem("file", **(storage or {})), url
  check_no_secret(url)
  try:
    fs, path = fsspec.core.url_to_fs(url, **(storage or {}))
  except ImportError as error:
    raise UsageError(f"{url}: cannot be opened: {_what_is_missing(url, error)}") from error
  except (ValueError, TypeError) as error:
    raise UsageError(f"{url}: cannot be opened ({' '.join(str(error).split())}); is it spelt right?") from error
  return fs, path


def is_local(fs: Any) -> bool:
  """Says whether a file system is this machine's."""
  return isinstance(fs, LocalFileSystem)


def _what_is_missing(url: str, error: ImportError) -> str:
  links = (link.partition("://")[0] for link in url.split("::"))
  extra = next((_EXTRAS[protocol] for protocol in links if protocol in _EXTRAS), None)
  said = " ".join(str(error).split())
  return f"it takes `pip install 'sorbus[{extra}]'` ({said})" if extra else f"its package is not installed ({said})"
