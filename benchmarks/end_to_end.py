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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import MINILM_FOLDER, REPOSITORY, freeze, run_sorbus
from benchmarks.contenders import Contender, compare, remove
from benchmarks.measure import RESULTS, machine, timed, write_results
from benchmarks.models import CHINESE_VOCABULARY, write_bert_base
from benchmarks.own_embed import choices
from benchmarks.rival import Rival, RivalError
from benchmarks.texts import CORPORA, draw, read_corpus, write_shards

NAME = "end_to_end"
MINILM, BERT_BASE = "minilm", "bert-base"
ENGINES = [("tensorflow", "float32"), ("tensorflow", "bfloat16"), ("openvino", "float32"), ("openvino", "bfloat16")]
BACKENDS = [("torch", "float32"), ("torch", "bfloat16"), ("onnx", "float32"), *ENGINES[2:]]
# Documents of a round, so that it takes ten seconds or so on two cores.
SIZES = {
  MINILM: {"sentences": 10_000, "paragraphs": 2_000, "titles": 5_000, "chapters": 150},
  BERT_BASE: {"sentences": 1_500, "paragraphs": 250, "titles": 1_000, "chapters": 40},
}
SAMPLE = 4


def whole_command(name: str, encoder: Path, texts: Path, options: Mapping[str, str]) -> float:
  """Returns the seconds that our command takes as a person runs it, once: Python's start, imports and loading too."""
  out = encoder.parent / "whole"
  asked = {"input": texts, "id-column": "id", "encoder": encoder, "dataset": out, **options}
  flags = [word for flag, value in asked.items() for word in (f"--{flag}", value)]
  seconds = timed(lambda: run_sorbus("embed", *flags))
  remove(out)
  print(f"    {name:34} {seconds:7.2f} s, the whole command", flush=True)
  return round(seconds, 2)


def start_all(model: Path, encoder: Path, args: argparse.Namespace, stack: contextlib.ExitStack) -> list[Contender]:
  """Starts everyone who can take part."""
  ours = [sys.executable, "-m", "benchmarks.own_embed", encoder, "--whitening", args.whitening]
  peers = [args.peers, REPOSITORY / "benchmarks/peer_encode.py", model]
  asked = [(f"sorbus {a} {b}", b, True, [*ours, "--engine", a, "--precision", b]) for a, b in ENGINES]
  asked += [(f"peer {a} {b}", b, False, [*peers, "--backend", a, "--precision", b]) for a, b in BACKENDS]
  found = []
  for name, precision, is_ours, words in asked:
    if worker := start(name, words, encoder.parent, stack):
      options = choices(name.split()[1], precision) if is_ours else {}
      found.append(Contender(name, worker, precision, is_ours, options, worker.told["versions"]))
  return found


def start_limits(encoder: Path, stack: contextlib.ExitStack) -> dict[str, Rival]:
  """Starts what multiplies matrices, by precision."""
  words = [sys.executable, "-m", "benchmarks.multiply", encoder, "--precision"]
  started = {p: start(f"products {p}", [*words, p], encoder.parent, stack) for p in ("float32", "bfloat16")}
  return {precision: worker for precision, worker in started.items() if worker}


def start(name: str, words: Sequence[str | Path], logs: Path, stack: contextlib.ExitStack) -> Rival | None:
  """Starts a process that is ended with the stack; one that cannot take part is named, with the reason."""
  try:
    return stack.enter_context(Rival(words, logs / f"{name.replace(' ', '-')}.log"))
  except RivalError as error:
    return _skip(f"{name}: {error}")


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
    contenders = start_all(model, encoder, args, stack)
    limits = start_limits(encoder, stack)
    versions = {name: version for each in contenders for name, version in each.versions.items()}
    for corpus in args.corpora:
      if (found := read_corpus(corpus, args.data)) is None:
        _skip(f"{corpus}: they lie in the data that --data names")
        continue
      texts = draw(found, args.documents or SIZES[name][corpus])
      print(f"{name}, {corpus}: {len(texts):,} documents", flush=True)
      folder = write_shards(scratch / name / corpus, texts)
      sample = write_shards(scratch / name / f"{corpus}-sample", texts[::SAMPLE])
      seen = compare(contenders, limits, folder, sample, encoder.parent, args.rounds)
      for row in (row for row in seen["contenders"] if row["ours"]):
        options = next(each.options for each in contenders if each.name == row["name"])
        row["command_seconds"] = whole_command(row["name"], encoder, folder, {"whitening": args.whitening, **options})
      yield {"model": name, "corpus": corpus, "whitening": args.whitening, "versions": versions, **seen}


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
