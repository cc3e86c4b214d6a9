"""Drift of a corpus that changes: what is usual, and what a new fit is worth. The figures stand in docs/numerics.md.

  python -m benchmarks.drift --encoder ENCODER_DIR --texts FILE --other-texts FILE [--documents 10000] [--components K]

Both files have a text a line. The whitening is fitted on the first N documents; then a share of them is replaced by
texts that follow in the same file, or by those of another domain.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transforms.digests import digest_array
from transforms.drift import SAMPLE_TEXTS, Drift
from transforms.encoder import load_encoder
from transforms.moments import Moments
from transforms.whitening import Whitening

BATCH = 64


def read_texts(path: Path, most: int) -> np.ndarray:
  """Returns the first distinct texts of a file, as objects [N]."""
  lines = path.read_text(encoding="utf-8").split("\n")
  return np.array(list(dict.fromkeys(line for line in lines if line.strip()))[:most], dtype=object)


def encode(encoder_dir: str, texts: np.ndarray) -> np.ndarray:
  """Returns raw vectors float32 [N, H]."""
  encoder = load_encoder(encoder_dir)
  order = np.argsort([len(text) for text in texts])
  parts = [encoder.encode_texts(list(texts[order[i : i + BATCH]])) for i in range(0, len(texts), BATCH)]
  vectors = np.concatenate(parts)
  return vectors[np.argsort(order)]


def nights(n: int, new: int, other: int) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (what happened, rows that are in the corpus), of n first documents, `new` of their kind and `other` ones."""
  generator = np.random.default_rng(0)
  gone = generator.permutation(n)
  yield "the same corpus", np.arange(n)
  for what, share in [("1 %", 0.01), ("10 %", 0.1), ("20 %", 0.2), ("half", 0.5), ("all", 1.0)]:
    k = round(n * share)
    if k <= new:
      yield f"{what} replaced by new texts", np.concatenate([gone[k:], n + np.arange(k)])
    if k <= other:
      yield f"{what} replaced by another domain", np.concatenate([gone[k:], n + new + np.arange(k)])
  yield "half gone, none new", gone[n // 2 :]


def main() -> None:
  """Encodes both files once and prints a line for each night."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--encoder", required=True)
  parser.add_argument("--texts", type=Path, required=True)
  parser.add_argument("--other-texts", type=Path, required=True)
  parser.add_argument("--documents", type=int, default=10_000)
  parser.add_argument("--components", type=int)
  args = parser.parse_args()
  n = args.documents
  texts, others = read_texts(args.texts, 2 * n), read_texts(args.other_texts, n)
  every = np.concatenate([texts, others])
  vectors, digests = encode(args.encoder, every), digest_array(every)
  old = Whitening.fit(Moments.from_vectors(vectors[:n]), args.components)
  print(f"{'':36}  mean  covariance  neighbours   (K = {old.n_components}, {n:,} documents)")
  for what, rows in nights(n, len(texts) - n, len(others)):
    sample = rows[np.argsort(digests[rows])[:SAMPLE_TEXTS]]
    drift = Drift.of(old, Moments.from_vectors(vectors[rows]), vectors[sample])
    print(f"{what:36} {drift.mean:5.3f} {drift.covariance:11.3f} {drift.neighbours:11.1%}", flush=True)


if __name__ == "__main__":
  main()
