"""What an encoder's precision costs in accuracy and gives in speed. The tables stand in docs/numerics.md.

  python -m benchmarks.precision ENCODER_DIR --data FOLDER [--count 800] [--rounds 5] [--threads N]

It encodes the sentences of STS-B's English development set (sentence, sentence, score in
FOLDER/sts/stsb/stsb-en-dev.csv) and some paragraphs of novels (texts.py) in each precision. The reference is float32.
Spearman's rank correlation is of cosine and score, of raw vectors and whitened by a fit on the same sentences. Cosines
are of a text's vector with the reference's: raw, and both under the whitening that was fitted on the reference, which
makes small directions as loud as large ones. Last, sixty sentences alone against the same in batches: what share of
rows is equal to the bit, and how far the others are.
"""

import argparse
import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Timing, alternate, timed, write_results
from benchmarks.texts import read_corpus
from transforms.encoder import Encoder, load_encoder
from transforms.encoder_spec import PRECISIONS
from transforms.moments import Moments
from transforms.whitening import Whitening, normalise

REFERENCE = PRECISIONS[0]


def read_pairs(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
  """Returns the distinct sentences of a file of pairs, which two are a pair, [N, 2], and their scores [N]."""
  with path.open(encoding="utf-8", newline="") as file:
    rows = list(csv.reader(file))
  row_of = {text: i for i, text in enumerate(dict.fromkeys(text for row in rows for text in row[:2]))}
  pairs = np.array([[row_of[row[0]], row_of[row[1]]] for row in rows])
  return list(row_of), pairs, np.array([float(row[2]) for row in rows])


def spearman(x: np.ndarray, y: np.ndarray) -> float:
  """Returns the correlation of the ranks of [N] numbers each; equal ones share their mean rank."""
  return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
  _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - (counts - 1) / 2)[where]


def agreement(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
  """Returns the lowest and the mean cosine of rows, float32 [N, W] each."""
  cosines = (normalise(found)[0].astype(np.float64) * normalise(wanted)[0]).sum(axis=1)
  return {"lowest": float(cosines.min()), "mean": float(cosines.mean())}


def correlation(vectors: np.ndarray, pairs: np.ndarray, scores: np.ndarray) -> float:
  """Returns Spearman's correlation of cosines and scores."""
  unit, _ = normalise(vectors)
  return spearman((unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1), scores)


def judge(vectors: np.ndarray, reference: np.ndarray, pairs: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
  """Returns the figures of one precision, from raw vectors float32 [N, W]."""
  own, theirs = (Whitening.fit(Moments.from_vectors(each)) for each in (vectors, reference))
  return {
    "spearman": correlation(vectors, pairs, scores),
    "spearman_whitened": correlation(own.reduce(vectors), pairs, scores),
    "cosine": agreement(vectors, reference),
    "cosine_whitened": agreement(theirs.reduce(vectors), theirs.reduce(reference)),
  }


def beside_others(encoder: Encoder, texts: list[str]) -> dict[str, float]:
  """Returns how vectors of texts that are encoded alone differ from those of all in one batch and in several."""
  alone = np.vstack([encoder.encode_texts([text]) for text in texts])
  together = [encoder.encode_texts(texts, budget) for budget in (300, 2048)]
  together.append(encoder.encode_texts(texts[::-1])[::-1])
  return {
    "equal_rows": min(float((alone == other).all(axis=1).mean()) for other in together),
    "largest_difference": max(float(np.abs(alone - other).max()) for other in together),
    "lowest_cosine": min(agreement(alone, other)["lowest"] for other in together),
  }


def speeds(encoders: dict[str, Encoder], texts: list[str], rounds: int) -> dict[str, dict[str, float]]:
  """Returns tokens a second of each, by turns; the first pass apart, for kernels are made for each new shape."""
  tokens = int(next(iter(encoders.values())).tokenizer.tokenise(texts).lengths.sum())
  work: dict[str, Callable[[], float]] = {
    name: partial(timed, partial(encoder.encode_texts, texts)) for name, encoder in encoders.items()
  }
  first = {name: tokens / run() for name, run in work.items()}
  return {name: {"first": first[name], **_per_second(tokens, took)} for name, took in alternate(work, rounds).items()}


def _per_second(tokens: int, took: Timing) -> dict[str, float]:
  return {"median": tokens / took.median, "slowest": tokens / took.high, "fastest": tokens / took.low}


def table(found: dict[str, dict[str, Any]]) -> str:
  """Returns the figures as Markdown, a line for each precision."""
  lines = [
    "| precision | Spearman | whitened | lowest cosine (mean) | whitened | sentences, tokens/s | paragraphs |",
    "| --- | --- | --- | --- | --- | --- | --- |",
  ]
  for name, figures in found.items():
    cells = [name, *(f"{figures[key]:.4f}" for key in ("spearman", "spearman_whitened"))]
    cells += [f"{figures[key]['lowest']:.5f} ({figures[key]['mean']:.5f})" for key in ("cosine", "cosine_whitened")]
    for kind in ("sentences", "paragraphs"):
      rates = figures[f"{kind}_tokens_per_second"]
      cells.append(f"{rates['median']:,.0f} ({rates['slowest']:,.0f} to {rates['fastest']:,.0f})")
    lines.append(f"| {' | '.join(cells)} |")
  lines += [
    "",
    "| alone and in a batch | rows equal to the bit | largest difference | lowest cosine |",
    "| --- " * 4 + "|",
  ]
  for name, figures in found.items():
    alone = figures["alone"]
    lines.append(
      f"| {name} | {alone['equal_rows']:.0%} | {alone['largest_difference']:.1e} | {alone['lowest_cosine']:.5f} |"
    )
  return "\n".join(lines)


def main() -> None:
  """Prints the table of docs/numerics.md, and writes benchmarks/results/precision.json."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("encoder")
  parser.add_argument("--data", type=Path, required=True, help="folder with the corpora")
  parser.add_argument("--count", type=int, default=800, help="of paragraphs")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--threads", type=int)
  args = parser.parse_args()
  sentences, pairs, scores = read_pairs(args.data / "sts/stsb/stsb-en-dev.csv")
  paragraphs = (read_corpus("paragraphs", args.data) or [])[: args.count]
  encoders = {precision: load_encoder(args.encoder, args.threads, precision=precision) for precision in PRECISIONS}
  vectors = {name: encoder.encode_texts(sentences) for name, encoder in encoders.items()}
  rates = {
    kind: speeds(encoders, texts, args.rounds)
    for kind, texts in {"sentences": sentences, "paragraphs": paragraphs}.items()
  }
  found = {}
  for name, encoder in encoders.items():
    figures = judge(vectors[name], vectors[REFERENCE], pairs, scores)
    figures |= {"self_test_error": encoder.self_test_error, "alone": beside_others(encoder, sentences[:60])}
    figures |= {f"{kind}_tokens_per_second": of_kind[name] for kind, of_kind in rates.items()}
    found[name] = figures
  print(table(found))
  write_results("precision", {"encoder": Path(args.encoder).name, "precisions": found})


if __name__ == "__main__":
  main()
