"""An HTTP proxy before a server, in this process, that does to a share of the requests what networks do.

The interesting one is 'lost': the request is carried out, and its answer never arrives.
"""

import contextlib
import http.client
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator

from tests.http_server import QuietHandler, QuietServer

FAULTS = ("500", "503", "slow", "dropped", "lost")
_SLOW_SECONDS = 0.05
_CODES = {"500": "InternalError", "503": "SlowDown"}
# So that no patience runs out by chance, unless everything is to fail.
_MOST_IN_A_ROW = 5
_OF_ONE_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length"))


class FlakyProxy:
  """Forwards to a server on this machine.

  Attributes:
    url: where it listens.
    share: of the requests that something happens to; 0 until it is set. Less than 1: to one path five times at most.
    where: what stands in those that it may happen to.
    seen: how often it forwarded each method, and did each fault.
  """

  def __init__(self, port: int, seed: int = 0):
    self.share = 0.0
    self.where = ""
    self.seen: Counter[str] = Counter()
    self._turn = itertools.cycle(FAULTS)
    self._in_a_row: Counter[str] = Counter()
    # The server of the tests checks a condition and then writes; the service that it stands for does both at once.
    self.conditional = threading.Lock()
    self._random, self._lock, self._port = random.Random(seed), threading.Lock(), port
    self._server = QuietServer(_Handler, proxy=self)
    self.url = self._server.url

  def stop(self) -> None:
    """Ends it."""
    self._server.stop()

  @contextlib.contextmanager
  def unreliable(self, share: float, *faults: str, where: str = "") -> Iterator[None]:
    """Lets faults happen while the block runs, all kinds unless some are named, to requests with `where` in them."""
    self.share, self.where = share, where
    self._turn, self._in_a_row = itertools.cycle(faults or FAULTS), Counter()
    try:
      yield
    finally:
      self.share = 0.0

  def next_fault(self, request: str) -> str:
    """Returns what happens to a request, 'METHOD path', '' for nothing."""
    path = request.partition("?")[0]
    with self._lock:
      hit = self._random.random() < self.share and self.where in request
      if self.share < 1 and self._in_a_row[path] == _MOST_IN_A_ROW:
        hit = False
      fault = next(self._turn) if hit else ""
      self._in_a_row[path] = self._in_a_row[path] + 1 if hit else 0
      self.seen[fault] += 1
    return fault

  def forward(
    self, method: str, path: str, headers: dict[str, str], body: bytes
  ) -> tuple[http.client.HTTPResponse, bytes]:
    """Returns what the server answers."""
    is_conditional = any(name.lower() == "if-none-match" for name in headers)
    with self._lock:
      self.seen[method] += 1
    with self.conditional if is_conditional else contextlib.nullcontext():
      connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
      try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer, answer.read()
      finally:
        connection.close()


class _Handler(QuietHandler):
  protocol_version = "HTTP/1.1"
  disable_nagle_algorithm = True  # or each answer with a body takes 40 ms
  proxy: FlakyProxy

  def _pass_on(self) -> None:
    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
    fault = self.proxy.next_fault(f"{self.command} {self.path}")
    if fault in _CODES:
      self._refuse(int(fault), _CODES[fault])
      return
    if fault == "dropped":
      self.close_connection = True
      return
    if fault == "slow":
      time.sleep(_SLOW_SECONDS)
    headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_ONE_HOP}
    answer, data = self.proxy.forward(self.command, self.path, headers, body)
    if fault == "lost":
      self.close_connection = True
      return
    self._answer(answer, data)

  do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

  def _answer(self, answer: http.client.HTTPResponse, data: bytes) -> None:
    self.send_response_only(answer.status)
    for name, value in answer.getheaders():
      if name.lower() not in _OF_ONE_HOP:
        self.send_header(name, value)
    length = answer.getheader("Content-Length") if self.command == "HEAD" else None
    self.send_header("Content-Length", length or str(len(data)))
    self.end_headers()
    self.wfile.write(data)

  def _refuse(self, status: int, code: str) -> None:
    data = f"<Error><Code>{code}</Code><Message>as the test says</Message></Error>".encode()
    self.send_response_only(status)
    self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(data)
