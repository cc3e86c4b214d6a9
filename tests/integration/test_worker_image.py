"""deploy/worker: what the image says it has, and with SORBUS_IMAGE=1 its steps and a job on workers made by them.

`make test-image` builds the wheel and sets the variable; the steps take minutes, and a package registry.
"""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from pipeline import __version__, memory
from tests.conftest import REPOSITORY
from tests.dockerfile import Replay, pairs_of, read_dockerfile, substitute, values_of
from tests.integration.run_files import made_up_texts, write_shards
from tests.worker_pool import worker_pool

STEPS = read_dockerfile(REPOSITORY / "deploy/worker/Dockerfile")
ARGUMENTS = pairs_of(STEPS, "ARG")
SETTINGS = pairs_of(STEPS, "ENV")


def pins(name):
  """Package → Requirement of each line of a requirements file."""
  lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
  wanted = [Requirement(line.split(" #")[0]) for line in lines if not line.startswith(("#", "-r"))]
  return {requirement.name: requirement for requirement in wanted}


def test_it_is_beams_image_of_the_pinned_beam_and_a_python_that_sorbus_runs_on(stated):
  (image,) = (substitute(value, ARGUMENTS) for value in values_of(STEPS, "FROM"))
  python, beam = re.fullmatch(r"apache/beam_python([\d.]+)_sdk:([\d.]+)", image).groups()
  assert str(pins("requirements.txt")["apache-beam"].specifier) == f"=={beam}"
  assert Version(python) in SpecifierSet(stated["python_requires"])
  assert values_of(STEPS, "ENTRYPOINT") == ['["/opt/apache/beam/boot"]']


def test_it_installs_the_pins_that_sorbus_is_tested_with_and_an_extra_for_each_cloud(stated):
  assert [value.split()[0] for value in values_of(STEPS, "COPY")[:2]] == [
    "requirements.txt",
    "deploy/worker/requirements.txt",
  ]
  base, worker, dev = (
    pins(name) for name in ("requirements.txt", "deploy/worker/requirements.txt", "requirements-dev.txt")
  )
  assert all(re.fullmatch(r"==[\d.]+", str(pin.specifier)) for pin in worker.values())
  assert worker["apache-beam"].specifier == base["apache-beam"].specifier
  assert worker["s3fs"].specifier == dev["s3fs"].specifier
  extras = {Requirement(line).name for lines in stated["extras_require"].values() for line in lines}
  assert extras - {"faiss-cpu"} == worker.keys()  # which `sorbus export` needs, and no worker


def test_its_wheel_is_of_this_version():
  assert ARGUMENTS["SORBUS_VERSION"] == __version__


def test_what_is_sent_to_the_engine_is_what_is_copied_and_nothing_else():
  lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
  everything, *kept = [line for line in lines if not line.startswith("#")]
  copied = [substitute(value.split()[0], ARGUMENTS) for value in values_of(STEPS, "COPY")]
  assert everything == "*" and all(line.startswith("!") for line in kept)
  assert [fnmatch.filter(copied, line.removeprefix("!")) for line in kept] == [[path] for path in copied]


def test_nobody_is_root_unless_asked_for():
  assert substitute(values_of(STEPS, "USER")[-1], ARGUMENTS) == "10001"


PROBE = """
import ctypes, os, numpy
threads = len(os.listdir("/proc/self/task"))
import pyarrow
class Info(ctypes.Structure):
  _fields_ = [(name, ctypes.c_size_t) for name in [*"arena ordblks smblks hblks".split(), *"abcdef"]]
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.realloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
libc.mallinfo2.restype = Info
libc.free(libc.malloc(16 << 20))  # a glibc left alone keeps all that is smaller from here on
before = libc.mallinfo2().hblks
libc.malloc(1 << 20)
print(threads, pyarrow.default_memory_pool().backend_name, libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, whose C library and /proc tell")
def test_its_settings_do_what_they_are_there_for():
  names = ("OPENBLAS_NUM_THREADS", "MALLOC_MMAP_THRESHOLD_", "ARROW_DEFAULT_MEMORY_POOL")
  settings = {name: SETTINGS[name] for name in names}
  done = subprocess.run(
    [sys.executable, "-c", PROBE], env=os.environ | settings, check=True, capture_output=True, text=True
  )
  # NumPy has started no thread, Arrow's blocks are glibc's, and one of 1 MB goes back as soon as it is freed.
  assert done.stdout.split() == ["1", "system", "1"]
  assert settings["MALLOC_MMAP_THRESHOLD_"] == str(memory._MMAP_THRESHOLD_BYTES)


# What follows does the steps.


@pytest.fixture(scope="module")
def image(tmp_path_factory):
  """The image's file system, as far as its own steps make it; nothing in it can be written to but its /tmp."""
  if "SORBUS_IMAGE" not in os.environ:
    pytest.skip("takes minutes: make test-image")
  python = ".".join(map(str, sys.version_info[:2]))
  if python != ARGUMENTS["PYTHON_VERSION"]:
    pytest.skip(f"the image has Python {ARGUMENTS['PYTHON_VERSION']}, this is {python}: make PYTHON=… test-image")
  root = tmp_path_factory.mktemp("image")
  _needs_a_registry(root / "probe")
  replay = Replay(REPOSITORY, root)
  replay.do(STEPS)
  replay.run("chmod", "-R", "a-w", f"{root}/opt")
  yield replay
  replay.run("chmod", "-R", "u+w", f"{root}/opt")
  shutil.rmtree(root / "opt")  # gigabytes, and pytest keeps what three sessions made


def _needs_a_registry(folder):
  line = str(pins("requirements.txt")["rich"])
  command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), line]
  if subprocess.run(command, capture_output=True).returncode:
    pytest.skip(f"needs a package registry: `pip download {line}` fails")


def as_worker(image):
  """What to begin a command with to run it as the image's user, who has no name and may not write to the image."""
  prefix = ["unshare", "--user", "--map-user=10001", "--map-group=10001"]
  if not shutil.which("unshare") or subprocess.run([*prefix, "true"], capture_output=True).returncode:
    return []  # where the kernel does not give that to everybody: the job runs all the same, as who we are
  return prefix


def test_the_steps_install_every_pin(image):
  frozen = [line.split("==") for line in image.run("pip", "freeze").splitlines() if "==" in line]
  installed = {canonicalize_name(name): version for name, version in frozen}  # PyYAML calls itself so
  wanted = pins("requirements.txt") | pins("deploy/worker/requirements.txt")
  assert {name: f"=={installed[name]}" for name in wanted} == {n: str(pin.specifier) for n, pin in wanted.items()}
  where = image.run("python", "-c", "import pipeline, transforms; print(pipeline.__file__, transforms.__file__)")
  assert all(path.startswith(f"{image.root}/opt/sorbus/lib/") for path in where.split())


def test_a_job_runs_on_workers_of_the_image(image, tiny_encoder):
  texts, folder, user = made_up_texts(60), image.root / "tmp", as_worker(image)
  write_shards(folder / "input", texts, 2)
  with worker_pool(image.environment, [*user, "python"], folder) as pool:
    command = f"sorbus embed --input input/*.jsonl --encoder {tiny_encoder} --dataset dataset --n-components 8 --runner"
    flags = ["PortableRunner", "--", "--job_endpoint=embed", f"--environment_config={pool.address}"]
    said = image.run(*user, *command.split(), *flags)
  assert "published: " in said
  shown = json.loads(image.run(*user, "sorbus", "show", "dataset", "--json"))
  assert shown["run"]["counts"]["written"] == 60
