import signal
import subprocess

import apache_beam as beam
import pytest
from apache_beam.runners.worker import data_plane

from pipeline.engines import choose_engine
from pipeline.run_pipeline import find_engine_error, find_file_system_error, find_own_error, run_pipeline
from tests.processes import deaf_port
from transforms.errors import (
  EncoderError,
  EngineError,
  InputFileError,
  KnownTextsLostError,
  SorbusError,
  StoreError,
  UsageError,
)

FLINK = choose_engine(["--flink_master=f:8081", "--parallelism=1"], runner="FlinkRunner")
MESSAGE = "a.gz is damaged (bad: CRC): mend it"


def test_our_own_class_with_the_place_where_it_ran():
  error = InputFileError(f"{MESSAGE} [while running 'EncodeWave/ReadDocuments/Read']")
  found = find_own_error(str(error), error)
  assert type(found) is InputFileError and str(found) == MESSAGE


def test_a_traceback_as_text():
  text = (
    "Traceback (most recent call last):\n"
    '  File "rows.py", line 9, in read\n'
    "ValueError: bad CRC\n\n"
    "The above exception was the direct cause of the following exception:\n\n"
    f"transforms.errors.InputFileError: {MESSAGE}\n\n"
    "During handling of the above exception, another exception occurred:\n\n"
    f"transforms.errors.InputFileError: {MESSAGE} [while running 'EncodeWave/Read-ptransform-12']\n"
  )
  found = find_own_error(text, RuntimeError(text))
  assert type(found) is InputFileError and str(found) == MESSAGE
  assert find_own_error(text).exit_code == 1


@pytest.mark.parametrize("kind", [SorbusError, UsageError, EncoderError, StoreError, KnownTextsLostError])
def test_every_kind_of_ours_is_found(kind):
  found = find_own_error(f"Traceback\n{kind.__module__}.{kind.__name__}: why\n")
  assert type(found) is kind and str(found) == "why"


@pytest.mark.parametrize("text", ["", "ValueError: x", "other.errors.StoreError: x", "transforms.errors.StoreError"])
def test_other_errors_are_not_ours(text):
  assert find_own_error(text, ValueError(text)) is None


@pytest.mark.parametrize(
  ("error", "line"),
  [
    (
      RuntimeError(
        'details = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:50000: refused"\n>'
      ),
      "10.0.0.1:50000: refused (is a worker pool up beside each worker?)",
    ),
    (
      RuntimeError(
        "Unable to fetch remote job server jar at https://m/a.jar: 404. If no Internet, stage the jar at /c/a.jar"
      ),
      "Beam's job server cannot be downloaded (put https://m/a.jar at /c/a.jar, or say --flink_job_server_jar=PATH)",
    ),
    (RuntimeError('<_Rendezvous of RPC:\n\tdetails = "worker lost"\n>'), "worker lost"),
    (subprocess.CalledProcessError(125, ["docker"]), "Command '['docker']' returned non-zero exit status 125."),
  ],
)
def test_what_an_engine_fails_at_is_one_line(error, line):
  found = find_engine_error(FLINK, error)
  assert str(found) == f"FlinkRunner: {line}; what was encoded is kept: mend that and run again"


@pytest.mark.parametrize(
  "error", [TypeError("cannot pickle"), RuntimeError("Traceback (most recent call last):\n bug")]
)
def test_a_bug_keeps_its_traceback(error):
  assert find_engine_error(FLINK, error) is None


def test_a_cluster_that_nobody_answers_for_is_one_line():
  with deaf_port() as port:
    engine = choose_engine([f"--job_endpoint=localhost:{port}", "--job_server_timeout=1"], runner="PortableRunner")
    with pytest.raises(EngineError) as error, run_pipeline(engine) as p:
      _ = p | beam.Create([1], reshuffle=False)
  said = f"PortableRunner: nobody answers at --job_endpoint=localhost:{port}; what was encoded is kept: "
  assert str(error.value) == f"{said}mend that and run again"


def fail(_):
  raise StoreError("raw/x.parquet: damaged; remove it")


def fail_badly(_):
  raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_an_error_of_a_worker_comes_out_as_itself(mode):
  """Both forms in which Beam hands an error over: as it is, and as a text."""
  engine = choose_engine([f"--direct_running_mode={mode}"], threads=2)
  with pytest.raises(StoreError) as error, run_pipeline(engine) as p:
    _ = p | beam.Create([1, 2], reshuffle=False) | "Fail" >> beam.Map(fail)
  assert str(error.value) == "raw/x.parquet: damaged; remove it"
  with pytest.raises(Exception, match="a bug") as other, run_pipeline(engine) as p:
    _ = p | beam.Create([1], reshuffle=False) | "Fail" >> beam.Map(fail_badly)
  assert not isinstance(other.value, SorbusError)


def test_what_a_file_system_said_to_a_worker_is_one_line():
  said = "OSError: [Errno 5] Input/output error: '/d/raw/x' [while running 'A/B']"
  error = find_file_system_error(f'Traceback (most recent call last):\n  File "x.py", line 1\n{said}')
  assert str(error) == "Input/output error: '/d/raw/x'; mend that and run again: what is there is kept"
  assert error.exit_code == 1
  assert find_file_system_error("ValueError: [Errno] is no number") is None


def test_no_thread_of_beams_touches_what_a_worker_is_writing(monkeypatch):
  """A flush by time loses elements that are written meanwhile; there was one in each second of a stage."""

  def refuse(stream):
    raise AssertionError("flushed by time")

  monkeypatch.setattr(data_plane.TimeBasedBufferingClosableOutputStream, "_schedule_periodic_flush", refuse)
  with run_pipeline(choose_engine(threads=2)) as p:
    _ = p | beam.Create(range(4)) | beam.GroupBy(lambda number: number % 2)


def test_an_interrupt_cancels_the_job_though_the_runner_has_a_handler_of_its_own(monkeypatch):
  """As the Flink runner's, which stops the job server first; nobody could be asked to cancel then."""
  said = []

  class Job:
    def wait_until_finish(self):
      signal.raise_signal(signal.SIGINT)

    def cancel(self):
      said.append("cancelled")

  def run(_):
    signal.signal(signal.SIGINT, lambda *_: said.append("job server stopped"))
    return Job()

  monkeypatch.setattr(beam.Pipeline, "run", run)
  before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with none
  try:
    with pytest.raises(KeyboardInterrupt), run_pipeline(choose_engine(threads=1)):
      pass
  finally:
    signal.signal(signal.SIGINT, before)
  assert said == ["cancelled"]
