"""An object store in this process for tests: moto's S3 server on loopback, behind a proxy that can fail."""

import contextlib
import logging
import os
from collections.abc import Iterator

import fsspec
import pytest

from tests.flaky_proxy import FlakyProxy
from transforms.object_storage import service

BUCKET = "bucket"
SECRET = "a-secret-that-no-file-may-hold"
_ENVIRONMENT = {
  "AWS_ACCESS_KEY_ID": "test",
  "AWS_SECRET_ACCESS_KEY": SECRET,
  "AWS_DEFAULT_REGION": "us-east-1",
  "AWS_EC2_METADATA_DISABLED": "true",  # asking for a role takes seconds where nobody answers
  "AWS_CONFIG_FILE": "/nonexistent",
  "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}


@contextlib.contextmanager
def running_server() -> Iterator[int]:
  """Runs an empty S3 server while the block runs; gives its port."""
  moto = pytest.importorskip("moto.server", reason="needs moto[server], which is not installed")
  pytest.importorskip("s3fs", reason="needs s3fs, which is not installed")
  logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request
  server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
  server.start()
  try:
    yield server.get_host_and_port()[1]
  finally:
    server.stop()


@contextlib.contextmanager
def bucket_behind_proxy(port: int) -> Iterator[FlakyProxy]:
  """Gives a proxy before the server, and makes the bucket, the credentials and the address known to this process."""
  proxy = FlakyProxy(port)
  with pytest.MonkeyPatch.context() as patch:
    for name, value in (_ENVIRONMENT | {"AWS_ENDPOINT_URL": proxy.url}).items():
      patch.setenv(name, value)
    _forget_clients()
    service(os.getpid()).ask(lambda fs: fs.call_s3("create_bucket", Bucket=BUCKET))
    yield proxy
  _forget_clients()
  proxy.stop()


def _forget_clients() -> None:
  """Those that datasets are kept with, and fsspec's, by which input and encoders are read: they know the address."""
  service.cache_clear()
  fsspec.get_filesystem_class("s3").clear_instance_cache()
