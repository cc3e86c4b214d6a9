"""`make package`: what sdist and wheel contain, and a job run by the installed wheel where the checkout is not."""

import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from pipeline import __version__
from tests.conftest import REPOSITORY
from tests.integration.run_files import made_up_texts, write_shards

SDIST, WHEEL = f"sorbus-{__version__}.tar.gz", f"sorbus-{__version__}-py3-none-any.whl"
MODULES = {
  path.relative_to(REPOSITORY).as_posix()
  for package in ("pipeline", "sorbus", "transforms")
  for ending in ("*.py", "py.typed")
  for path in (REPOSITORY / package).rglob(ending)
} | {"pipeline/report_page.html"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  """A folder with both, built as the Makefile says, from a copy: a build leaves files beside its source."""
  folder = tmp_path_factory.mktemp("package")
  left = shutil.ignore_patterns(".*", "demo", "dist", "build", "*.egg-info", "__pycache__")
  shutil.copytree(REPOSITORY, folder / "source", ignore=left)
  (command,) = (line for line in (REPOSITORY / "Makefile").read_text().splitlines() if " -m build " in line)
  words = command.replace("$(BIN)/python", sys.executable).split()
  done = subprocess.run(words, cwd=folder / "source", capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  return folder / "source" / "dist"


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
  """The `bin` of an environment with the wheel, and with the packages that it needs from the one we run in."""
  folder = tmp_path_factory.mktemp("installed")
  venv.create(folder)
  pip = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-deps", "--no-index"]
  subprocess.run([*pip, str(built / WHEEL)], check=True)
  (site,) = folder.glob("lib/python*/site-packages")
  # Only now, or pip would find a sorbus there. A path in a .pth file: the editable one's own .pth is not read.
  (site / "packages.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
  return folder / "bin"


def run(installed, folder, *command):
  """Runs a program of that environment in a folder, with nothing of the checkout in its surroundings."""
  environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
  done = subprocess.run(
    [installed / command[0], *command[1:]], cwd=folder, env=environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def test_the_wheel_has_every_module_and_nothing_else(built):
  names = set(zipfile.ZipFile(built / WHEEL).namelist())
  about = {"METADATA", "WHEEL", "entry_points.txt", "top_level.txt", "RECORD"}
  assert names == MODULES | {f"sorbus-{__version__}.dist-info/{name}" for name in about}


def test_the_sdist_has_what_the_wheel_is_built_from(built):
  with tarfile.open(built / SDIST) as sdist:
    names = {member.name.partition("/")[2] for member in sdist if member.isfile()}
  ours = {"setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "requirements.txt"}
  made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or name.startswith("sorbus.egg-info/")}
  assert names - made == MODULES | ours


def test_what_pip_is_told(built):
  text = zipfile.ZipFile(built / WHEEL).read(f"sorbus-{__version__}.dist-info/METADATA").decode()
  told = email.message_from_string(text)
  assert (told["Name"], told["Version"], told["Requires-Python"]) == ("sorbus", __version__, ">=3.11,<3.14")
  assert told["Description-Content-Type"] == "text/markdown"
  assert told.get_payload().strip() == (REPOSITORY / "README.md").read_text(encoding="utf-8").strip()


def test_the_sdist_builds_the_same_wheel_by_itself(built, tmp_path):
  pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
  subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(built / SDIST)], check=True, cwd=tmp_path)
  ours, theirs = (zipfile.ZipFile(folder / WHEEL) for folder in (built, tmp_path))
  assert {i.filename: i.CRC for i in ours.infolist()} == {i.filename: i.CRC for i in theirs.infolist()}


def test_the_installed_wheel_runs_a_job_without_the_checkout(installed, tiny_encoder, tmp_path):
  where = run(installed, tmp_path, "python", "-c", "import pipeline; print(*pipeline.__path__)")
  assert Path(where.strip()).is_relative_to(installed.parent)
  assert run(installed, tmp_path, "sorbus", "--version") == f"sorbus {__version__}\n"
  write_shards(tmp_path / "input", made_up_texts(40), 2)
  flags = ["--input", "input/*.jsonl", "--encoder", tiny_encoder, "--dataset", "vectors", "--n-components", "8"]
  assert "published: vectors/runs/" in run(installed, tmp_path, "sorbus", "embed", *flags)
  shown = json.loads(run(installed, tmp_path, "sorbus", "show", "vectors", "--json"))
  assert shown["run"]["counts"]["written"] == 40
  program = "import sorbus; print(len(sorbus.Dataset.open('vectors').run()), *sorbus.__path__)"
  count, where = run(installed, tmp_path, "python", "-c", program).split()
  assert count == "40" and Path(where).is_relative_to(installed.parent)
