"""What a night costs where 1 % of the documents changed, against a full run over the same corpus.

  python -m benchmarks.night [--data FOLDER] [--minilm FOLDER] [--documents 10000] [--nights 3]

Texts are novel paragraphs of FOLDER, or those of Python's own documentation. Both runs are timed as end_to_end.py times
us, in a process that has the encoder loaded; the whitening is fitted in the full run and reused in the nights. Results
go to benchmarks/results/night.json.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.command import MINILM_FOLDER, freeze
from benchmarks.measure import Timing, write_results
from benchmarks.own_embed import embed_texts
from benchmarks.texts import draw, read_corpus, write_shards

SHARE = 0.01


def changed_each_night(texts: Sequence[str], nights: int, share: float = SHARE) -> Iterator[list[str]]:
  """Yields the corpus of each night: a share of the texts is edited, another one each time."""
  corpus, n = list(texts), max(round(len(texts) * share), 1)
  for night in range(nights):
    for row in range(night, len(corpus), len(corpus) // n)[:n]:
      corpus[row] = f"{corpus[row]} Edited on night {night + 1}."
    yield list(corpus)


def measure(encoder: Path, texts: Sequence[str], nights: int, scratch: Path) -> tuple[float, list[float], list[int]]:
  """Returns the seconds of a full run, those of each night after it, and how many texts each night encoded."""
  seconds, encoded = [], []
  warm_up = {"texts": str(write_shards(scratch / "warm-up", texts[:64])), "out": str(scratch / "warm-up-dataset")}
  embed_texts(warm_up, str(encoder))
  for night, corpus in enumerate([list(texts), *changed_each_night(texts, nights)]):
    request = {"texts": str(write_shards(scratch / f"night-{night}", corpus)), "out": str(scratch / "dataset")}
    answer = embed_texts(request, str(encoder), whitening="reuse" if night else "fit")
    seconds.append(answer["seconds"])
    encoded.append(answer["encoded"])
    print(f"{f'night {night}' if night else 'full run':10} {seconds[-1]:8.2f} s, {encoded[-1]:,} encoded", flush=True)
  return seconds[0], seconds[1:], encoded[1:]


def main() -> None:
  """Runs a full run and some nights, prints what they took, and keeps the results."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", type=Path, help="folder with the corpora; without it, Python's documentation")
  parser.add_argument("--minilm", type=Path, default=MINILM_FOLDER)
  parser.add_argument("--documents", type=int, default=10_000)
  parser.add_argument("--nights", type=int, default=3)
  args = parser.parse_args()
  texts = draw(read_corpus("paragraphs", args.data) or (), args.documents)
  with tempfile.TemporaryDirectory(prefix="sorbus-night-") as name:
    full, nights, encoded = measure(freeze(args.minilm, Path(name)), texts, args.nights, Path(name))
  night = Timing.of(nights)
  results = {"documents": len(texts), "encoded": encoded, "full_run_seconds": full, "night_seconds": asdict(night)}
  write_results("night", {**results, "share_of_a_full_run": round(night.median / full, 4)})
  print(f"a night takes {night.median / full:.1%} of a full run")


if __name__ == "__main__":
  main()
