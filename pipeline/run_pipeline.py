"""Run a Beam pipeline on an engine; what goes wrong on a worker comes out as the error that was raised there."""

import contextlib
import logging
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import apache_beam as beam
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.runner import PipelineResult
from apache_beam.runners.worker import sdk_worker

from pipeline.engines import Engine
from pipeline.memory import release_memory
from transforms.errors import EngineError, SorbusError, StoreError

# What Beam raises of an engine itself, beside gRPC's errors; a bug of ours in the driver is a TypeError and the like.
_OF_ENGINES = (subprocess.SubprocessError, RuntimeError)

# A local worker flushes its output once a second from a thread that takes no lock against the one that writes: what is
# written between its reading the buffer and clearing it is lost (data_plane.py of 2.77; a block or more of each million
# documents, on a busy machine). By size alone the writer itself flushes. Workers of a cluster have it so by default.
worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0


@contextmanager
def run_pipeline(engine: Engine, *, detach: bool = False) -> Iterator[beam.Pipeline]:
  """Runs the pipeline built in the block, to its end or, detached, until the engine has it.

  Raises:
    SorbusError: that a worker raised, not Beam's traceback in a string.
    EngineError: the cluster cannot be reached, or lost its workers; a bug of ours comes out with its traceback.
  """
  if not logging.getLogger().isEnabledFor(logging.INFO):
    # The SDK prints a worker's traceback past every log level; what went wrong is told in one line, or raised, below.
    sdk_worker.print = lambda *args, **kwargs: None
  p = beam.Pipeline(options=engine.beam_options)
  yield p
  try:
    result = _submit(p)
    if not detach:
      _wait(result)
    release_memory()
  except Exception as error:
    ours = find_own_error(str(error), error) or find_file_system_error(str(error))
    if ours and not engine.is_local and not isinstance(error, SorbusError):
      ours = type(ours)(f"on a worker: {ours}")  # whose files and packages are not this machine's
    ours = ours or find_engine_error(engine, error)
    if ours is None:
      raise
    raise ours from error


def _submit(p: beam.Pipeline) -> PipelineResult:
  """Starts a job. Ctrl-C stays ours: the Flink runner's own handler stops the job server, whom `_wait` has to ask."""
  if threading.current_thread() is not threading.main_thread():  # which alone has handlers
    return p.run()
  handler = signal.getsignal(signal.SIGINT)
  try:
    return p.run()
  finally:
    signal.signal(signal.SIGINT, handler)


def _wait(result: PipelineResult) -> None:
  """Waits for the end of a job, and takes it with us if we are interrupted."""
  try:
    result.wait_until_finish()
  except KeyboardInterrupt:
    with contextlib.suppress(Exception):  # nothing that it says is as important as to stop
      result.cancel()
    raise


def find_own_error(text: str, error: Exception | None = None) -> SorbusError | None:
  """Returns the SorbusError that a worker raised, from the text in which an engine hands it over.

  In process Beam raises our own class, on threads a RuntimeError with the traceback as text; both say where it ran.
  """
  if isinstance(error, SorbusError):
    return type(error)(_without_place(text))
  kinds = {f"{kind.__module__}.{kind.__name__}": kind for kind in _kinds(SorbusError)}
  for line in reversed(text.splitlines()):
    name, separator, message = line.strip().partition(": ")
    if separator and name in kinds:
      return kinds[name](_without_place(message))
  return None


def find_file_system_error(text: str) -> StoreError | None:
  """Returns what a file system said to a worker, such as "Input/output error: '/x/y'", from an engine's text."""
  said = re.findall(r"^(?:\w+: )*\w*Error: \[Errno \d+\] (.*)", text, flags=re.MULTILINE)
  return StoreError(f"{_without_place(said[-1])}; mend that and run again: what is there is kept") if said else None


def find_engine_error(engine: Engine, error: Exception) -> EngineError | None:
  """Returns in one line what a cluster failed at by itself; None for a program's error: that needs its traceback."""
  text = str(error)
  is_of_engine = isinstance(error, _OF_ENGINES) or type(error).__module__.startswith("grpc")
  if engine.is_local or not is_of_engine or "Traceback (most recent call last)" in text:
    return None
  if type(error).__name__ == "FutureTimeoutError":  # gRPC's, and empty
    text = f"nobody answers at --job_endpoint={engine.beam_options.view_as(PortableOptions).job_endpoint}"
  elif lost := re.search(r"failed to connect to all addresses; last error: \w+: (?:ipv[46]:)?([^\"\n]+)", text):
    text = f"{lost[1]} (is a worker pool up beside each worker?)"
  elif jar := re.search(r"remote job server jar at (\S+?):? .*stage the jar at (\S+)", text, re.DOTALL):
    text = f"Beam's job server cannot be downloaded (put {jar[1]} at {jar[2]}, or say --flink_job_server_jar=PATH)"
  elif details := re.search(r'details = "(.+)"', text):  # gRPC's own words, below a line that says nothing
    text = details[1]
  line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
  return EngineError(f"{engine.runner}: {line[:500]}; what was encoded is kept: mend that and run again")


def _without_place(message: str) -> str:
  return re.sub(r" \[while running .*", "", message, flags=re.DOTALL)


def _kinds(kind: type[SorbusError]) -> Iterator[type[SorbusError]]:
  yield kind
  for child in kind.__subclasses__():
    yield from _kinds(child)
