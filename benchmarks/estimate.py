"""`sorbus estimate` against the run that it foretells, as commands, by turns.

  python -m benchmarks.estimate [--data FOLDER] [--corpora paragraphs …] [--precision float32] [--rounds 3] [--anew]

The estimate reads a part of each corpus, so that it has to foretell and cannot count. Of a round both are taken minutes
apart, and which comes first changes: what the machine does beside them is part of the error. Rounds are added to those
that benchmarks/results/estimate.json has of the same corpus on this machine; --anew begins again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.command import MINILM_FOLDER, REPOSITORY, SORBUS, freeze, run_sorbus
from benchmarks.contenders import remove
from benchmarks.measure import machine, read_results, timed, write_results
from benchmarks.texts import draw, read_corpus, write_shards
from pipeline.estimate_flags import LEAST_SAMPLE
from transforms.encoder_spec import PRECISIONS

NAME = "estimate"
# Documents of a run, which so takes half a minute or more on two cores, and what the estimate may read of them.
SIZES = {"paragraphs": 4_000, "sentences": 12_000, "titles": 8_000}
SAMPLED = 1 / 4


def foretell(texts: Path, encoder: Path, precision: str, sample: int) -> dict[str, Any]:
  """Returns what `sorbus estimate --json` says."""
  words = ["estimate", "--input", texts, "--id-column", "id", "--encoder", encoder, "--precision", precision]
  done = subprocess.run(
    [*SORBUS, *words, "--sample", str(sample), "--json"], capture_output=True, text=True, cwd=REPOSITORY
  )
  if done.returncode:
    sys.exit(done.stderr)
  return dict(json.loads(done.stdout))


def embed(texts: Path, encoder: Path, precision: str, dataset: Path) -> tuple[float, dict[str, Any]]:
  """Returns the seconds that the command takes as a person runs it, and the counts of its manifest."""
  words = ["embed", "--input", texts, "--id-column", "id", "--encoder", encoder, "--precision", precision]
  seconds = timed(lambda: run_sorbus(*words, "--dataset", dataset))
  (manifest,) = dataset.glob("runs/*/manifest.json")
  counts = dict(json.loads(manifest.read_text())["counts"])
  remove(dataset)
  return seconds, counts


def one_round(texts: Path, encoder: Path, precision: str, sample: int, *, run_first: bool) -> dict[str, Any]:
  """Returns what was foretold and what came: seconds, documents and tokens."""
  dataset = texts.parent / "dataset"
  run = embed(texts, encoder, precision, dataset) if run_first else None
  told = foretell(texts, encoder, precision, sample)
  seconds, counts = run or embed(texts, encoder, precision, dataset)
  return {
    "seconds": [told["precisions"][0]["seconds"]["total"], round(seconds, 1)],
    "documents": [told["documents"]["number"], counts["read"]],
    "tokens": [told["tokens"]["number"], counts["tokens"]],
    "parts": told["precisions"][0]["seconds"],
  }


def keep(corpus: str, precision: str, figures: dict[str, Any], *, anew: bool) -> None:
  """Writes a round beside those that are there of the same corpus on this machine."""
  before = read_results(NAME)
  runs = before.get("runs", []) if before.get("machine") == machine() else []
  same = [run for run in runs if (run["corpus"], run["precision"]) == (corpus, precision)]
  others = [run for run in runs if run not in same]
  rounds = [] if anew or not same else same[0]["rounds"]
  write_results(NAME, {"runs": [*others, {"corpus": corpus, "precision": precision, "rounds": [*rounds, figures]}]})


def parse() -> argparse.Namespace:
  """Returns the flags."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", type=Path, help="folder with the corpora; without it, Python's documentation")
  parser.add_argument("--corpora", nargs="+", choices=list(SIZES), default=list(SIZES))
  parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
  parser.add_argument("--documents", type=int, help="of each corpus, rather than what takes half a minute")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--anew", action="store_true", help="forget the rounds that are there")
  parser.add_argument("--minilm", type=Path, default=MINILM_FOLDER)
  return parser.parse_args()


def main() -> None:
  """Measures each corpus and keeps the results."""
  args = parse()
  with tempfile.TemporaryDirectory(prefix="sorbus-estimate-") as name:
    scratch = Path(name)
    encoder = freeze(args.minilm, scratch)
    for corpus in args.corpora:
      if (found := read_corpus(corpus, args.data)) is None:
        print(f"left out: {corpus}: they lie in the data that --data names")
        continue
      texts = draw(found, args.documents or SIZES[corpus])
      folder = write_shards(scratch / corpus, texts)
      few = max(round(len(texts) * SAMPLED), LEAST_SAMPLE)
      for i in range(args.rounds):
        figures = one_round(folder, encoder, args.precision, few, run_first=bool(i % 2))
        keep(corpus, args.precision, figures, anew=args.anew and not i)
        print(json.dumps({"corpus": corpus} | figures), flush=True)


if __name__ == "__main__":
  main()
