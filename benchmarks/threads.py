"""How fast a graph encodes by callers of one session × threads of an operation, and by tokens in a batch.

  python -m benchmarks.threads ENCODER_DIR [--data FOLDER] [--documents 600] [--precision float32|bfloat16] [--rounds 5]

encoder.py's way to load and to run, with other rivals: the same paragraphs in each shape and each budget, by turns.
Results go to benchmarks/results/threads.json, one entry for each precision.
"""

import argparse
from pathlib import Path

from benchmarks.encoder import PRECISIONS, encoding, load, make_work
from benchmarks.measure import add_results, alternate
from benchmarks.texts import read_corpus
from transforms.encoder_spec import read_spec

BUDGET = 2048
# (callers, threads of an operation)
SHAPES = ((1, 2), (2, 2), (2, 1))
BUDGETS = (1024, BUDGET, 4096, 8192)


def main() -> None:
  """Measures one precision and adds it to the results."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("encoder", metavar="ENCODER_DIR")
  parser.add_argument("--data", type=Path, help="folder with the corpora; without it, Python's documentation")
  parser.add_argument("--documents", type=int, default=600)
  parser.add_argument("--precision", choices=PRECISIONS, default="float32")
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  texts = (read_corpus("paragraphs", args.data) or [])[: args.documents]
  work = {budget: make_work(args.encoder, texts, len(texts), budget) for budget in BUDGETS}  # every batch of all texts
  runs = {n: load(args.encoder, read_spec(args.encoder), args.precision, n) for n in (1, 2)}
  rivals = {f"{b} x {n}, {BUDGET}": encoding(runs[n], work[BUDGET], b) for b, n in SHAPES}
  rivals |= {f"2 x 2, {budget}": encoding(runs[2], work[budget], 2) for budget in BUDGETS if budget != BUDGET}
  for rival in rivals.values():  # once, for what is compiled and kept at the first call of a shape
    rival()
  tokens = int(work[BUDGET].lengths.sum())
  figures = {name: round(tokens / timing.median) for name, timing in alternate(rivals, args.rounds).items()}
  for name, rate in figures.items():
    print(f"{args.precision} {name:12} {rate:6} tokens/s")
  add_results("threads", "tokens_per_second", args.precision, figures)


if __name__ == "__main__":
  main()
