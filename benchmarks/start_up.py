"""How long one waits before anything happens: each command in a process of its own, and the imports of it alone.

  python -m benchmarks.start_up [--minilm FOLDER] [--rounds 5]

Results go to benchmarks/results/start_up.json.
"""

import argparse
import functools
import itertools
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.command import MINILM_FOLDER, SORBUS, freeze, run, run_sorbus
from benchmarks.measure import Timing, alternate, timed, write_results

DOCUMENTS = 10
FIRST_VECTOR = (
  "import sys; from transforms.encoder import load_encoder; load_encoder(sys.argv[1]).encode_texts(['a text'])"
)
# What each needs of Python, its packages and our modules before it can begin.
IMPORTS = {
  "sorbus --help": "pipeline.command_line",
  "first vector": "transforms.encoder, transforms.frozen_graph",
  f"embed {DOCUMENTS} documents": "pipeline.command_line, pipeline.embed, transforms.frozen_graph",
  "search": "pipeline.command_line, pipeline.search, pipeline.show_hits, transforms.frozen_graph",
}


def commands(encoder: Path, scratch: Path) -> Mapping[str, Sequence[str | Path]]:
  """Returns the words of each command that is not to leave anything behind."""
  python = [sys.executable, "-c"]
  work = {
    "sorbus --help": [*SORBUS, "--help"],
    "first vector": [*python, FIRST_VECTOR, encoder],
    "search": [*SORBUS, "search", scratch / "searched", "a text"],
  }
  imports = {f"{name}, imports": [*python, f"import {modules}"] for name, modules in IMPORTS.items()}
  return {"Python itself": [*python, ""], **work, **imports}


def embed_words(encoder: Path, scratch: Path, dataset: str) -> list[str | Path]:
  """Returns the words after `sorbus` that embed a few documents."""
  words = ["embed", "--input", scratch / "documents.jsonl", "--encoder", encoder]
  return [*words, "--whitening", "none", "--dataset", scratch / dataset]


def main() -> None:
  """Starts each by turns, prints what it took, and keeps the results."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--minilm", type=Path, default=MINILM_FOLDER)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory(prefix="sorbus-start-up-") as name:
    scratch, numbers = Path(name), itertools.count()
    encoder = freeze(args.minilm, scratch)
    lines = (json.dumps({"text": f"The text of document {i}."}) for i in range(DOCUMENTS))
    (scratch / "documents.jsonl").write_text("".join(f"{line}\n" for line in lines))
    run_sorbus(*embed_words(encoder, scratch, "searched"))

    def embed() -> None:
      run_sorbus(*embed_words(encoder, scratch, f"dataset-{next(numbers)}"))

    rivals = {what: functools.partial(run, list(words)) for what, words in commands(encoder, scratch).items()}
    rivals[f"embed {DOCUMENTS} documents"] = embed
    seconds = alternate({what: functools.partial(timed, work) for what, work in rivals.items()}, args.rounds)
  report(seconds, args.rounds)


def report(seconds: Mapping[str, Timing], rounds: int) -> None:
  """Prints and keeps what each took, beside what its imports alone took."""
  rows = [
    {"name": name, "seconds": asdict(seconds[name]), "imports": asdict(seconds[f"{name}, imports"])} for name in IMPORTS
  ]
  for name in IMPORTS:
    print(f"{name:20} {seconds[name].median:6.2f} s, {seconds[f'{name}, imports'].median:.2f} s of it imports")
  write_results("start_up", {"rounds": rounds, "python_itself": asdict(seconds["Python itself"]), "rows": rows})


if __name__ == "__main__":
  main()
