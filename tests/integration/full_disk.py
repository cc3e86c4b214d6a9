"""A disk that is full, for real: a small tmpfs in a mount namespace of its own.

`unshare -rm python -m tests.integration.full_disk FOLDER` mounts it on FOLDER and prints a JSON object: what came of
runs on it, by what was to be written when the last byte was gone, and of runs on one that grows from very small.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.failing_files import Fault
from tests.integration.nightly_command import Night
from tests.integration.run_files import published_runs

N_TEXTS = 200
# What is to be written: (a part of its path, and how many such files there are before it).
STAGES = {
  "raw file": ("/raw/", 1),
  "documents": ("/documents/", 1),
  "vectors": ("/vectors/", 0),
  "manifest": ("/runs/2", -1),
}
UPON_A_PUBLISHED_RUN = ("documents", "vectors")


@dataclass(frozen=True)
class Result:
  """What came of a run on a full disk, and of the next one, on one with space."""

  code: int
  said: str
  was_full: bool
  left: list[str]
  before: list[str]
  published: list[str]
  sound: bool
  next_code: int
  next_said: str
  next_equals: bool


def mount(folder: Path, size: str, *, again: bool = False) -> None:
  """Mounts a tmpfs of this size, or changes the size of the one that is mounted."""
  options = f"remount,size={size}" if again else f"size={size}"
  subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def fill(ballast: Path) -> None:
  """Takes every byte there is."""
  with ballast.open("wb", buffering=0) as file:
    try:
      while file.write(b"x" * 4096):
        pass
    except OSError:
      return


def creations(operations: list[str], part: str) -> list[str]:
  """The files that were begun, where `part` is in the path of their folder and not in a deeper one."""
  begun = [what for what in operations if what.startswith("open xb ") and part in what]
  return [what for what in begun if part != "/runs/2" or what.rpartition("/runs/2")[2].count("/") == 1]


def fill_before(part: str, number: int, ballast: Path, seen: list[str]) -> Fault:
  """Fills the disk when the file of this number, among those with `part` in their path, is begun."""

  def fault(n: int, what: str) -> None:
    if not creations([what], part):
      return
    if len(seen) == number:
      fill(ballast)
    seen.append(what)

  return fault


def try_stage(folder: Path, clean: Night, name: str) -> Result:
  """Runs on a disk that is full when one file is begun, then on one with space."""
  part, number = STAGES[name]
  number %= len(creations(clean.operations, part))
  night, ballast, seen = Night(folder / f"night-{len(list(folder.iterdir()))}", N_TEXTS), folder / "ballast", []
  if name in UPON_A_PUBLISHED_RUN:
    shutil.copytree(clean.dataset, night.dataset)
  return judge(night, clean, fill_before(part, number, ballast, seen), lambda: ballast.unlink(), ballast)


def judge(night: Night, clean: Night, fault: Fault, make_space: Callable[[], None], ballast: Path) -> Result:
  """Runs with the fault, looks, makes space, runs again, and looks again."""
  before = published_runs(night.dataset)
  code, said = night.run(fault)
  was_full = ballast.exists()
  left = [str(path.relative_to(night.dataset)) for path in night.dataset.rglob(".tmp-*")]
  make_space()
  published, sound = published_runs(night.dataset), night.is_sound()
  next_code, next_said = night.run()
  equals = next_code == 0 and night.is_sound() and night.equals(clean)
  return Result(code, said, was_full, left, before, published, sound, next_code, next_said, equals)


def grow(folder: Path, clean: Night) -> list[tuple[int, str]]:
  """Runs again and again on a disk that grows each time, until a run is published; (exit code, stderr) of each."""
  night, found = Night(folder.parent / "growing", N_TEXTS), []
  night.dataset = folder / "dataset"
  for pages in (2, 20, 400):
    mount(folder, f"{pages * 4096}", again=bool(found))
    found.append(night.run())
  assert night.is_sound() and night.equals(clean)
  return found


def main(folder: Path) -> None:
  """Prints what came of all of it."""
  mount(folder, "16m")
  clean = Night(folder / "clean", N_TEXTS)
  assert clean.run()[0] == 0
  results = {name: asdict(try_stage(folder, clean, name)) for name in STAGES}
  (folder / "small").mkdir()
  print(json.dumps({"stages": results, "growing": grow(folder / "small", clean)}))


if __name__ == "__main__":
  main(Path(sys.argv[1]))
