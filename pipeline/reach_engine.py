"""See that somebody listens where a job is to be sent, before the run is begun: Beam itself would wait for minutes."""

import shutil
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.engines import FLINK, PORTABLE, STARTED_BY_BEAM, Engine
from transforms.errors import EngineError

_SECONDS = 10.0
_FLINK_PORT = 8081  # where Flink's own configuration has it, if flink_master does not say
_JOB_PORT = 8099  # and Beam a job server


def check_reachable(engine: Engine) -> None:
  """Raises EngineError, with one line, where the job server, Flink or a worker pool of this machine does not answer."""
  if engine.runner not in (FLINK, PORTABLE):
    return
  options = engine.beam_options.get_all_options()
  if engine.runner == FLINK and not options["job_endpoint"] and not shutil.which("java"):
    raise EngineError(f"--runner {FLINK}: no `java` in PATH, which Beam's job server needs; install Java 11 or 17")
  for flag, address, port, remedy in _listeners(engine.runner, engine.beam_options):
    _check(flag, address, port, remedy)


def _listeners(runner: str, beam_options: PipelineOptions) -> Iterator[tuple[str, str, int, str]]:
  options = beam_options.get_all_options()
  endpoint = options["job_endpoint"]
  if endpoint and endpoint not in STARTED_BY_BEAM:
    yield "job_endpoint", endpoint, _JOB_PORT, "start the job server, or name its HOST:PORT"
  elif runner == FLINK and options["flink_master"] not in STARTED_BY_BEAM:
    yield "flink_master", options["flink_master"], _FLINK_PORT, "start the cluster, or name its HOST:PORT"
  if endpoint == "embed" and options["environment_type"] == "EXTERNAL":
    # Only then the pool is surely asked from here: a cluster's is beside each of its workers.
    pool = options["environment_config"]
    yield "environment_config", pool, 0, "start a worker pool (docs/clusters.md), or name its HOST:PORT"


def _check(flag: str, address: str, default_port: int, remedy: str) -> None:
  try:
    url = urlsplit(address if "://" in address else f"//{address}")
    host, port = url.hostname, url.port or default_port
  except ValueError:
    host, port = None, 0
  if not host or not port:
    raise EngineError(f"--{flag}={address}: is no HOST:PORT; {remedy}")
  try:
    socket.create_connection((host, port), timeout=_SECONDS).close()
  except OSError as error:
    raise EngineError(f"--{flag}={address}: nobody answers there ({error.strerror or error}); {remedy}") from error
