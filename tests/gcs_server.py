"""A Google Cloud Storage on loopback for tests: fake-gcs-server as `make test-gcs` builds it, behind a flaky proxy."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.flaky_proxy import FlakyProxy
from tests.processes import free_port, wait_for_port

BUCKET = "bucket"
SERVER = os.environ.get("SORBUS_FAKE_GCS") or shutil.which("fake-gcs-server")
MISSING = "needs fake-gcs-server, which `make test-gcs` builds"


@contextlib.contextmanager
def running_gcs() -> Iterator[FlakyProxy]:
  """Runs an empty server while the block runs, known to this process, with one bucket; gives what stands before it."""
  if not SERVER:
    pytest.skip(MISSING)
  port = free_port()
  proxy = FlakyProxy(port)
  command = [SERVER, "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)]
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # it would ask by gRPC, which the server does not speak
    pytest.importorskip("gcsfs", reason="needs gcsfs, which is not installed")
    from transforms.gcs_storage import client

    with subprocess.Popen([*command, "-external-url", proxy.url], stderr=subprocess.DEVNULL) as server:
      try:
        wait_for_port(port, server)
        client.cache_clear()
        client(os.getpid()).call("POST", "b", project="test", json={"name": BUCKET})
        yield proxy
      finally:
        client.cache_clear()
        server.terminate()
        proxy.stop()
