"""`sorbus evaluate --sweep` against one forward pass of the same texts, by turns in one process.

  python -m benchmarks.sweep --data FOLDER [--rounds 5] [--minilm FOLDER]

Both encode the distinct texts of STS-B's English dev pairs, tokenised alike and in the same batches: the pass to the
mean of the last layer, by the encoder that `sorbus freeze` makes; the sweep to every layer in every pooling, and then
it scores every line. Loading is in neither. Results go to benchmarks/results/sweep.json.
"""

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.command import MINILM_FOLDER
from benchmarks.measure import Timing, alternate, timed, write_results
from pipeline.evaluate import PairTexts
from pipeline.model.all_layers import AllLayers
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.sweep import components_to_try, sweep
from transforms.encoder import load_encoder
from transforms.pairs import Pairs, read_pairs

PAIRS = "sts/stsb/stsb-en-dev.csv"
BERT_TINY = "checkpoints/bert_tiny_uncased_L-2_H-128_A-2"


@dataclass
class Rounds:
  """Seconds of each round, in their order; of the sweep also what of them is scoring."""

  passes: list[float] = field(default_factory=list)
  sweeps: list[float] = field(default_factory=list)
  scores: list[float] = field(default_factory=list)
  lines: int = 0

  def describe(self) -> dict[str, Any]:
    """Returns what is kept of them; the ratio is taken round by round."""
    ratios = [one / other for one, other in zip(self.sweeps, self.passes, strict=True)]
    seconds = {"pass": self.passes, "sweep": self.sweeps, "of_these_scores": self.scores, "ratio": ratios}
    return {"lines": self.lines, "rounds": len(ratios)} | {k: asdict(Timing.of(v)) for k, v in seconds.items()}


def race(checkpoint: Path, pairs: Pairs, rounds: int, scratch: Path) -> dict[str, Any]:
  """Lets the pass and the sweep of a checkpoint work by turns, and returns what was seen."""
  freeze(str(checkpoint), str(scratch), FreezeOptions(pooling="mean", layers=(-1,)), lambda line: None)
  encoder, loaded = load_encoder(str(scratch)), AllLayers.load(str(checkpoint), FreezeOptions())
  assert encoder.spec.max_seq_length == loaded.max_seq_length, "both cut texts alike"
  known = PairTexts.of(pairs, loaded.tokenizer)
  components, seen = components_to_try(loaded.config.hidden_size, None), Rounds()

  def one_pass() -> float:
    seen.passes.append(timed(lambda: encoder.encode_texts(known.texts)))
    return seen.passes[-1]

  def one_sweep() -> float:
    started = time.perf_counter()
    vectors = loaded.encode_texts(known.texts)
    encoded = time.perf_counter()
    seen.lines = len(sweep(known, vectors, components))
    seen.scores.append(time.perf_counter() - encoded)
    seen.sweeps.append(time.perf_counter() - started)
    return seen.sweeps[-1]

  for side in (encoder, loaded):  # what is compiled at first is compiled
    side.encode_texts(known.texts)
  alternate({"pass": one_pass, "sweep": one_sweep}, rounds)
  return {"texts": len(known.texts), **seen.describe()}


def parse() -> argparse.Namespace:
  """Returns the flags."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", type=Path, required=True, help=f"folder with {PAIRS} and {BERT_TINY}")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--minilm", type=Path, default=MINILM_FOLDER)
  return parser.parse_args()


def main() -> None:
  """Measures both checkpoints, prints the ratios, and keeps the results."""
  args = parse()
  pairs, results = read_pairs(str(args.data / PAIRS)), {}
  for name, checkpoint in {"bert_tiny": args.data / BERT_TINY, "all-MiniLM-L6-v2": args.minilm}.items():
    with tempfile.TemporaryDirectory(prefix="sorbus-sweep-") as scratch:
      results[name] = race(checkpoint, pairs, args.rounds, Path(scratch) / "encoder")
    print(f"{name:18} sweep / pass {results[name]['ratio']['median']:.2f}", flush=True)
  write_results("sweep", {"checkpoints": results})


if __name__ == "__main__":
  main()
