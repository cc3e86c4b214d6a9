"""How much of what an encoder computes is text and not padding, by corpus, as a run cuts its batches.

  python -m benchmarks.padding VOCABULARY FILE [--buckets 8] [--budget 2048] [--max-seq-length 256]

FILE has a document a line (texts.py). The peer fills each batch, shortest first, up to the budget. Results go to
benchmarks/results/, one entry for each FILE.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.measure import add_results
from benchmarks.texts import read_lines
from benchmarks.tokenising import load
from transforms.batching import token_budget_batches
from transforms.digests import bucket_of, digest_array


def filled_batches(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
  """Returns the batches that are each filled to the budget before the next is begun: index arrays int64 [B]."""
  order, batches, start = np.argsort(lengths, kind="stable"), [], 0
  for stop in range(1, len(order) + 1):
    if stop == len(order) or (stop - start + 1) * lengths[order[stop]] > budget:
      batches.append(order[start:stop])
      start = stop
  return batches


def computed_tokens(lengths: np.ndarray, batches: Sequence[np.ndarray]) -> int:
  """Returns rows × longest, summed over batches."""
  return int(sum(len(batch) * lengths[batch].max() for batch in batches))


def main() -> None:
  """Measures one file and adds it to the results."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("vocabulary", type=Path)
  parser.add_argument("texts", type=Path)
  parser.add_argument("--buckets", type=int, default=8)
  parser.add_argument("--budget", type=int, default=2048)
  parser.add_argument("--max-seq-length", type=int, default=256)
  args = parser.parse_args()
  texts = list(dict.fromkeys(read_lines(args.texts)))
  lengths = load(args.vocabulary, args.max_seq_length).tokenise(texts).lengths
  bucket = bucket_of(digest_array(texts), args.buckets.bit_length() - 1)
  figures: dict[str, float] = {"documents": len(texts), "tokens": int(lengths.sum()), "buckets": args.buckets}
  for name, cut in (("ours", token_budget_batches), ("filled", filled_batches)):
    parts = [lengths[bucket == i] for i in range(args.buckets)]
    batches = [cut(part, args.budget) for part in parts]
    computed = sum(map(computed_tokens, parts, batches))
    figures |= {name: round(int(lengths.sum()) / computed, 4), f"{name}_batches": sum(map(len, batches))}
  print(json.dumps({args.texts.name: figures}))
  add_results("padding", "share_of_real_tokens", args.texts.name, figures)


if __name__ == "__main__":
  main()
