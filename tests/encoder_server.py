"""An encoder folder behind HTTP on loopback, for tests: it counts what is fetched, and can be slow or stop halfway."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


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
    self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"of": self}))
    self.url = f"http://127.0.0.1:{self._server.server_port}/encoder"
    threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

  def stop(self) -> None:
    """Ends it."""
    self.stalled.clear()
    self._server.shutdown()
    self._server.server_close()


@contextmanager
def serving(folder: Path) -> Iterator[EncoderServer]:
  """Runs a server while the block runs."""
  server = EncoderServer(folder)
  try:
    yield server
  finally:
    server.stop()


class _Server(ThreadingHTTPServer):
  daemon_threads = True

  def handle_error(self, *_: object) -> None:
    """Says nothing: a client that is killed is what a test is about."""


class _Handler(BaseHTTPRequestHandler):
  of: EncoderServer

  def _answer(self, with_body: bool) -> None:
    path = self.of.folder / self.path.rpartition("/")[2]
    if not path.is_file():
      self.send_error(404)
      return
    data = path.read_bytes()
    self.send_response(200)
    self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    if with_body:
      self.of.fetched[path.name] += 1
      time.sleep(self.of.seconds)
      self.wfile.write(data[: len(data) // 2])
      while self.of.stalled.is_set():
        time.sleep(0.01)
      self.wfile.write(data[len(data) // 2 :])

  def do_GET(self) -> None:
    self._answer(True)

  def do_HEAD(self) -> None:
    self._answer(False)

  def log_message(self, *_: object) -> None:
    """Says nothing."""
