"""`sorbus embed` from files to published Parquet against sentence-transformers' `encode` alone: same texts and weights.

  python -m benchmarks.end_to_end [--data FOLDER] [--models minilm bert-base] [--corpora sentences paragraphs …]

Every rival is a process of its own that has imported everything and loaded its model; they work by turns, one at a
time, each on all cores. A peer is timed from a list of strings to an array, we from files to a published run. A peer
that cannot start is named and left out. Results go to benchmarks/results/end_to_end.json; those of other models and
corpora on the same machine stay there.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import MINILM_FOLDER, REPOSITORY, freeze, run_sorbus
from benchmarks.contenders import Contender, compare, remove
from benchmarks.measure import RESULTS, machine, timed, write_results
from benchmarks.models import CHINESE_VOCABULARY, write_bert_base
from benchmarks.rival import Rival, left_out
from benchmarks.texts import CORPORA, draw, read_corpus, sample, write_shards
from transforms.encoder_spec import PRECISIONS

NAME = "end_to_end"
MINILM, BERT_BASE = "minilm", "bert-base"
BACKENDS = [
  ("torch", "float32"),
  ("torch", "bfloat16"),
  ("onnx", "float32"),
  ("openvino", "float32"),
  ("openvino", "bfloat16"),
]
# Documents of a round, so that what a run costs whatever its size is little of it: up to a minute on two cores.
SIZES = {
  MINILM: {"sentences": 12_000, "paragraphs": 4_000, "titles": 8_000, "chapters": 500},
  BERT_BASE: {"sentences": 1_500, "paragraphs": 300, "titles": 1_000, "chapters": 60},
}
# One text in so many warms up.
SAMPLE = 8


def whole_command(encoder: Path, texts: Path, whitening: str, precision: str) -> float:
  """Returns the seconds that our command takes as a person runs it, once: Python's start, imports and loading too."""
  out = encoder.parent / "whole"
  words = ["embed", "--input", texts, "--id-column", "id", "--encoder", encoder, "--dataset", out]
  seconds = timed(lambda: run_sorbus(*words, "--whitening", whitening, "--precision", precision))
  remove(out)
  print(f"    {f'the whole command, {precision}':34} {seconds:7.2f} s", flush=True)
  return round(seconds, 2)


def start_all(
  model: Path, encoder: Path, args: argparse.Namespace, stack: contextlib.ExitStack
) -> tuple[list[Contender], dict[str, Rival]]:
  """Starts everyone who can take part; returns them, and what multiplies matrices in each precision."""
  own, multiply = ([sys.executable, "-m", f"benchmarks.{name}", encoder] for name in ("own_embed", "multiply"))
  peer = [args.peers, REPOSITORY / "benchmarks/peer_encode.py", model]
  own += ["--whitening", args.whitening]
  asked = {f"sorbus {b}": [*own, "--precision", b] for b in PRECISIONS}
  asked |= {f"peer {a} {b}": [*peer, "--backend", a, "--precision", b] for a, b in BACKENDS}
  asked |= {f"products {b}": [*multiply, "--precision", b] for b in PRECISIONS}
  if args.only:
    asked = {name: words for name, words in asked.items() if name.startswith(tuple(args.only))}
  ready = dict(start(asked, encoder.parent, stack))
  contenders = [
    Contender(name, worker, name.split()[-1], name.startswith("sorbus"), versions)
    for name, (worker, versions) in ready.items()
    if not name.startswith("products")
  ]
  limits = {name.split()[1]: worker for name, (worker, _) in ready.items() if name.startswith("products")}
  return contenders, limits


def start(
  asked: Mapping[str, Sequence[str | Path]], logs: Path, stack: contextlib.ExitStack
) -> Iterator[tuple[str, tuple[Rival, dict[str, str]]]]:
  """Yields processes that are ready, with the versions of what they are made of; who cannot take part is named.

  They load side by side, and are ended with the stack.
  """
  started: dict[str, Rival] = {}
  for name, words in asked.items():
    with left_out(name):
      started[name] = stack.enter_context(Rival(words, logs / f"{name.replace(' ', '-')}.log"))
  since = time.perf_counter()
  for name, rival in started.items():
    with left_out(name):
      yield name, (rival, rival.ready()["versions"])
      print(f"ready: {name}, {time.perf_counter() - since:.0f} s", flush=True)


def prepare(name: str, args: argparse.Namespace, scratch: Path) -> tuple[Path, Path] | None:
  """Returns a model's sentence-transformers folder and the encoder frozen of it; None, with a word, where it is not."""
  model = args.minilm
  if name == BERT_BASE:
    if args.data is None:
      return _skip(f"{name}: its vocabulary lies in the data that --data names")
    model = write_bert_base(scratch / name / "model", (args.data / CHINESE_VOCABULARY).read_bytes())
  (scratch / name).mkdir(exist_ok=True)
  return model, freeze(model, scratch / name)


def run_model(name: str, args: argparse.Namespace, scratch: Path) -> Iterator[dict[str, Any]]:
  """Yields what was seen of one model on each corpus."""
  if (prepared := prepare(name, args, scratch)) is None:
    return
  model, encoder = prepared
  with contextlib.ExitStack() as stack:
    contenders, limits = start_all(model, encoder, args, stack)
    for corpus in args.corpora:
      if (found := read_corpus(corpus, args.data)) is None:
        _skip(f"{corpus}: they lie in the data that --data names")
        continue
      texts = draw(found, args.documents or SIZES[name][corpus])
      print(f"{name}, {corpus}: {len(texts):,} documents", flush=True)
      folder = write_shards(scratch / name / corpus, texts)
      few = write_shards(scratch / name / f"{corpus}-sample", sample(texts, SAMPLE))
      seen = compare(contenders, limits, folder, few, encoder.parent, args.rounds)
      for row in seen["contenders"]:
        if row["name"].startswith("sorbus"):
          row["command_seconds"] = whole_command(encoder, folder, args.whitening, row["precision"])
      yield {"model": name, "corpus": corpus, "whitening": args.whitening, **seen}


def keep(run: Mapping[str, Any]) -> None:
  """Writes what was seen of one model on one corpus, beside what stands there of others on this machine."""
  path = RESULTS / f"{NAME}.json"
  before = json.loads(path.read_text()) if path.exists() else {}
  here = before.get("runs", []) if before.get("machine") == machine() else []
  others = [each for each in here if (each["model"], each["corpus"]) != (run["model"], run["corpus"])]
  write_results(NAME, {"runs": [*others, run]})


def _skip(why: str) -> None:
  print(f"left out: {why}", flush=True)


def parse() -> argparse.Namespace:
  """Returns the flags."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", type=Path, help="folder with the corpora; without it, Python's documentation")
  parser.add_argument("--models", nargs="+", choices=list(SIZES), default=[MINILM])
  parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=["sentences", "paragraphs"])
  parser.add_argument("--documents", type=int, help="of each corpus, rather than what takes some ten seconds a round")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--whitening", choices=["none", "fit"], default="none", help="none gives what the peers give")
  parser.add_argument("--minilm", type=Path, default=MINILM_FOLDER)
  parser.add_argument("--only", nargs="+", metavar="NAME", help="who takes part, by how their names begin: 'peer onnx'")
  parser.add_argument("--peers", type=Path, default=REPOSITORY / ".venv-peers/bin/python")
  return parser.parse_args()


def main() -> None:
  """Measures each model on each corpus, keeps the results, and prints the ratios."""
  args = parse()
  with tempfile.TemporaryDirectory(prefix="sorbus-end-to-end-") as scratch:
    for name in args.models:
      for run in run_model(name, args, Path(scratch)):
        keep(run)
        for pair in run["ratios"]:
          print(
            f"  {pair['ours']:28} / {pair['peer']:20} {pair['median']:.2f} ({pair['low']:.2f} to {pair['high']:.2f})"
          )


if __name__ == "__main__":
  main()
