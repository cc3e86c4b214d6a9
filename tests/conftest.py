"""Fixtures of all tests."""

import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import setuptools

from tests.flaky_proxy import FlakyProxy
from tests.gcs_server import running_gcs
from tests.object_store import bucket_behind_proxy, running_server

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
  """Real checkpoints and corpora that are too large, or not ours, to keep in the repository."""
  folder = REPOSITORY.parent / "shared" / "data"
  if not folder.is_dir():
    pytest.skip("needs the shared test data in ../shared/data beside the repository, which is not here")
  return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
  """The port of an S3 server in this process."""
  with running_server() as port:
    yield port


@pytest.fixture(scope="module")
def proxy(s3_server: int) -> Iterator[FlakyProxy]:
  """What stands before an object store that all of this process reaches meanwhile; reliable until told otherwise."""
  with bucket_behind_proxy(s3_server) as flaky:
    yield flaky


@pytest.fixture(scope="session")
def gcs() -> Iterator[FlakyProxy]:
  """What stands before a Google Cloud Storage that this process reaches from then on; reliable until told otherwise."""
  with running_gcs() as flaky:
    yield flaky


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Any:
  """A dataset of two nights to make reports of; nobody changes it."""
  from tests.report_runs import make_runs  # with Beam, which most tests do without

  return make_runs(tmp_path_factory.mktemp("reported"))


@pytest.fixture(autouse=True)
def keep_signal_handler() -> Iterator[None]:
  """`main` takes signals over, and what Python does with an interrupt that is lost; pytest keeps its own."""
  handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
  hook, thread_hook = sys.unraisablehook, threading.excepthook
  yield
  for number, handler in handlers.items():
    signal.signal(number, handler)
  sys.unraisablehook, threading.excepthook = hook, thread_hook


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
  """Puts this machine into a time zone."""

  def move(name: str) -> None:
    monkeypatch.setenv("TZ", name)
    time.tzset()

  yield move
  monkeypatch.undo()
  time.tzset()


@pytest.fixture
def stated(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
  """What setup.py hands to setuptools."""
  arguments: dict[str, Any] = {}
  monkeypatch.chdir(REPOSITORY)
  monkeypatch.setattr(setuptools, "setup", lambda **given: arguments.update(given))
  runpy.run_path("setup.py")
  return arguments
