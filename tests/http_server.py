"""An HTTP server of this process, for tests: on a free port of loopback, in threads of its own, without a word."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
  """To be given methods such as `do_GET`."""

  def log_message(self, *_: object) -> None:
    """Says nothing."""


class QuietServer(ThreadingHTTPServer):
  """Answers from when it is made until it is stopped.

  Attributes:
    url: where it listens.
  """

  daemon_threads = True

  def __init__(self, handler: type[QuietHandler], **attributes: object):
    """`attributes` become those of every handler."""
    super().__init__(("127.0.0.1", 0), type("Handler", (handler,), attributes))
    self.url = f"http://127.0.0.1:{self.server_port}"
    threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

  def stop(self) -> None:
    """Ends it."""
    self.shutdown()
    self.server_close()

  def handle_error(self, *_: object) -> None:
    """Says nothing: a client that is killed, or does not wait for its answer, is what a test is about."""
