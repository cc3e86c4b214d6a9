"""An encoder folder behind HTTP on loopback, for tests: it counts what is fetched, and can be slow or stop halfway."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.http_server import QuietHandler, QuietServer


class EncoderServer:
  """Serves the files of a folder.

  Attributes:
    url: of the folder.
    fetched: how often each file was asked for.
    seconds: that each answer takes.
    stalled: set: an answer stops in its middle until this is cleared again.
  """

  def __init__(self, folder: Path):
    self.folder, self.fetched, self.seconds, self.stalled = folder, Counter[str](), 0.0, threading.Event()
    self._server = QuietServer(_Handler, of=self)
    self.url = f"{self._server.url}/encoder"

  def stop(self) -> None:
    """Ends it."""
    self.stalled.clear()
    self._server.stop()


@contextmanager
def serving(folder: Path) -> Iterator[EncoderServer]:
  """Runs a server while the block runs."""
  server = EncoderServer(folder)
  try:
    yield server
  finally:
    server.stop()


class _Handler(QuietHandler):
  of: EncoderServer

  def _answer(self) -> None:
    path = self.of.folder / self.path.rpartition("/")[2]
    if not path.is_file():
      self.send_error(404)
      return
    data = path.read_bytes()
    self.send_response(200)
    self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    if self.command == "GET":
      self.of.fetched[path.name] += 1
      time.sleep(self.of.seconds)
      self.wfile.write(data[: len(data) // 2])
      while self.of.stalled.is_set():
        time.sleep(0.01)
      self.wfile.write(data[len(data) // 2 :])

  do_GET = do_HEAD = _answer  # noqa: N815
