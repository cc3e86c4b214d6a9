"""Our commands as a person runs them, and the encoder that benchmarks are run with."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
MINILM_FOLDER = REPOSITORY / "demo/all-MiniLM-L6-v2"
SORBUS = (sys.executable, "-m", "pipeline")


def run_sorbus(*words: str | Path) -> None:
  """Runs one command in a process of its own."""
  run([*SORBUS, *words])


def run(words: list[str | Path]) -> None:
  """Runs a program from the repository, whose output matters only if it fails."""
  done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY)
  if done.returncode:
    sys.exit(f"{' '.join(map(str, words))}\n{done.stderr}")


def freeze(model: Path, scratch: Path) -> Path:
  """Returns an encoder frozen of a model by the code as it is: one that lies about may have an older graph.

  Raises:
    SystemExit: the model is not there.
  """
  if not model.is_dir():
    sys.exit(f"{model}: not there; `make demo/all-MiniLM-L6-v2` fetches it, --minilm names another place")
  encoder = scratch / "encoder"
  run_sorbus("freeze", model.absolute(), encoder)
  return encoder
