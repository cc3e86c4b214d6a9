"""A dataset's files on Google Cloud Storage: what differs from S3, spoken in its JSON interface.

The service decides who is first: an object is created by an upload with `ifGenerationMatch=0`. Requests are repeated by
gcsfs, for about half a minute; it does not know that it may be refused because of its own request, whose answer was
lost, so a creation labels its object here too.
"""

import contextlib
import datetime
import errno
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

import fsspec

from transforms import object_storage
from transforms.errors import SorbusError, StoreError, UsageError
from transforms.object_errors import GOOGLE_CREDENTIALS
from transforms.object_storage import ObjectFolder

# gcsfs by itself waits without end for a connection and for an answer. It tries six times, in half a minute of pauses.
_CONNECT_SECONDS, _READ_SECONDS = 5, 60
_RIGHTS = "it takes storage.objects.create, get, list and delete there, as in the role Storage Object User"

T = TypeVar("T")


@functools.cache
def client(process: int) -> Any:
  """Returns the client of this process: a fork must not use its parent's connections."""
  try:
    from aiohttp import ClientTimeout
    from gcsfs.core import GCSFileSystem  # and not its subclass, which asks by gRPC what kind of bucket it is
  except ImportError as error:
    raise UsageError("a dataset on gs:// needs the package gcsfs: pip install 'sorbus[gcs]'") from error
  timeout = ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
  return GCSFileSystem(consistency="md5", use_listings_cache=False, skip_instance_cache=True, requests_timeout=timeout)


@dataclass(frozen=True)
class GcsFolder(ObjectFolder):
  """The objects below `gs://bucket/prefix`; answers are given to `ObjectFolder` in the words of S3."""

  def read(self, relative: str) -> bytes:
    """Returns the bytes of an object; raises FileNotFoundError."""
    path = f"{self._bucket}/{self._key(relative)}"
    return cast(bytes, self._ask(relative, "read", lambda fs: fs.cat_file(path)))

  def remove(self, relative: str) -> None:
    """Removes an object; one that is gone already is as good."""
    with contextlib.suppress(FileNotFoundError):
      self._ask(relative, "removed", lambda fs: fs.call("DELETE", "b/{}/o/{}", self._bucket, self._key(relative)))

  def remove_folder(self, relative: str) -> None:
    """Removes all objects below a folder."""
    root = self._below("")
    for found in list(self._listed(relative)):
      self.remove(found["Key"].removeprefix(root))

  def _create_labelled(self, relative: str, data: bytes, label: dict[str, str]) -> None:
    self._put(relative, data, metadata=label, mode="create")

  def _head(self, relative: str) -> dict[str, Any]:
    place = "b/{}/o/{}", self._bucket, self._key(relative)
    found = self._ask(relative, "read", lambda fs: fs.call("GET", *place, json_out=True))
    return {
      "ContentLength": int(found["size"]),
      "LastModified": datetime.datetime.fromisoformat(found["updated"]),
      "Metadata": found.get("metadata", {}),
    }

  def _pages(self, folder: str, **request: Any) -> Iterator[dict[str, Any]]:
    names = {"Prefix": "prefix", "Delimiter": "delimiter", "MaxKeys": "maxResults"}
    asked = {names[name]: value for name, value in request.items()}
    while True:
      with self._bucket_named():
        page = self._ask(folder, "listed", lambda fs: fs.call("GET", "b/{}/o", self._bucket, json_out=True, **asked))
      yield {
        "Contents": [{"Key": item["name"], "Size": int(item["size"])} for item in page.get("items", ())],
        "CommonPrefixes": [{"Prefix": prefix} for prefix in page.get("prefixes", ())],
      }
      if not page.get("nextPageToken"):
        return
      asked["pageToken"] = page["nextPageToken"]

  def _send(self, relative: str, file: BinaryIO, size: int) -> None:
    """Writes an object from a file, in one request or, where it is large, in parts: it is there with the last."""
    part_bytes = object_storage.PART_BYTES
    if size <= part_bytes:
      self._put(relative, file.read())
      return
    with self._bucket_named():
      self._ask(relative, "written", lambda fs: fsspec.asyn.sync(fs.loop, self._upload, fs, relative, file, size))

  async def _upload(self, fs: Any, relative: str, file: BinaryIO, size: int) -> None:
    from gcsfs.core import initiate_upload, upload_chunk

    place = await initiate_upload(fs, self._bucket, self._key(relative))
    try:
      at = 0
      while data := file.read(object_storage.PART_BYTES):
        await upload_chunk(fs, place, data, at, size, "application/octet-stream")
        at += len(data)
    except BaseException:
      with contextlib.suppress(Exception):
        await fs._call("DELETE", place)
      raise

  def _put(self, relative: str, data: bytes, **how: Any) -> None:
    path = f"{self._bucket}/{self._key(relative)}"
    with self._bucket_named():
      self._ask(relative, "written", lambda fs: fs.pipe_file(path, data, chunksize=len(data) + 1, **how))

  @contextlib.contextmanager
  def _bucket_named(self) -> Iterator[None]:
    """What is not there when something is written or listed can only be the bucket."""
    try:
      yield
    except FileNotFoundError as error:
      raise UsageError(f"{self.root}: there is no such bucket; make it, or correct the name") from error

  def _ask(self, relative: str, done: str, action: Callable[[Any], T]) -> T:
    place = f"{self.root}/{relative}"
    try:
      return action(client(os.getpid()))
    except SorbusError:
      raise
    except FileNotFoundError as error:
      raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place) from error
    except FileExistsError as error:
      raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place) from error
    except Exception as error:
      if type(error).__module__ == "builtins" and not isinstance(error, OSError | ValueError):
        raise  # a bug of ours
      raise _explain(error, self.root, relative, done) from error


def _explain(error: Exception, root: str, relative: str, done: str) -> SorbusError:
  """Returns what to tell a person of a failed request: one line."""
  why = " ".join(str(error).split()) or type(error).__name__
  if type(error).__module__.startswith("google.auth") or getattr(error, "code", None) in (401, "401"):
    return UsageError(f"{root}: no credentials for it ({why}); {GOOGLE_CREDENTIALS}")
  if isinstance(error, OSError) and why.startswith("Forbidden"):  # as gcsfs calls a 403
    return UsageError(f"{root}: {relative or 'it'} cannot be {done}: these credentials may not do that; {_RIGHTS}")
  if isinstance(error, ValueError):
    return UsageError(f"{root}: cannot be asked for ({why}); is the name right?")
  return StoreError(
    f"{root}/{relative}: cannot be {done} ({why}); run again when the service answers: what is there is kept"
  )
