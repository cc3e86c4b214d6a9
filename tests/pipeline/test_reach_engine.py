import socket

import pytest

from pipeline.engines import choose_engine
from pipeline.reach_engine import check_reachable
from tests.processes import deaf_port
from transforms.errors import EngineError

FLINK = "FlinkRunner"
PORTABLE = "PortableRunner"


@pytest.fixture
def listening():
  with socket.create_server(("localhost", 0)) as server:
    yield f"localhost:{server.getsockname()[1]}"


@pytest.fixture
def java(monkeypatch):
  monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/java")


@pytest.mark.parametrize(
  ("runner", "flag", "what"),
  [
    *((runner, "job_endpoint", "start the job server") for runner in (PORTABLE, FLINK)),
    (FLINK, "flink_master", "start the cluster"),
    *((runner, "environment_config", "start a worker pool (docs/clusters.md)") for runner in (PORTABLE, FLINK)),
  ],
)
def test_where_nobody_listens_the_job_is_not_begun(runner, flag, what, java):
  flags = {"flink_master": "[local]", "parallelism": "1"} if runner == FLINK else {}
  flags |= {"job_endpoint": "embed"} if flag == "environment_config" else {}
  with deaf_port() as port, pytest.raises(EngineError) as error:
    flags[flag] = address = f"localhost:{port}"
    check_reachable(choose_engine([f"--{name}={value}" for name, value in flags.items()], runner=runner))
  line = str(error.value)
  assert line.startswith(f"--{flag}={address}: nobody answers there (")
  assert line.endswith(f"); {what}, or name its HOST:PORT")


def test_what_is_no_address_is_said(java):
  with pytest.raises(EngineError, match=r"^--job_endpoint=jobs:x: is no HOST:PORT; start the job server"):
    check_reachable(choose_engine(["--job_endpoint=jobs:x"], runner=PORTABLE))


def test_who_listens_is_left_in_peace(listening, java):
  check_reachable(choose_engine([f"--job_endpoint={listening}"], runner=PORTABLE))
  check_reachable(choose_engine([f"--flink_master=http://{listening}", "--parallelism=1"], runner=FLINK))
  check_reachable(choose_engine(["--job_endpoint=embed", f"--environment_config={listening}"], runner=PORTABLE))
  check_reachable(choose_engine())


def test_flink_without_java_is_said(monkeypatch):
  monkeypatch.setattr("shutil.which", lambda _: None)
  with pytest.raises(EngineError, match=r"^--runner FlinkRunner: no `java` in PATH"):
    check_reachable(choose_engine(["--flink_master=[local]", "--parallelism=1"], runner=FLINK))
