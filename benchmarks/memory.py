"""Peak memory of `embed` against the size of the corpus, with an encoder that costs nothing.

  python -m benchmarks.memory [--texts FILE] [--join 3] [--sizes-mb 100 1600] [--budgets-mb 1000]

Texts are the paragraphs of FILE (a document a line) or of Python's own documentation, so many joined to a document, and
varied so that all are distinct. Each size runs under each budget in a process of its own, the first also with the
allocators as they come; the peak is the kernel's figure for it. Results go to benchmarks/results/.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import write_results

HIDDEN_SIZE, COMPONENTS = 384, 256
SHARDS = 8


def paragraphs(texts: Path | None) -> list[str]:
  """Returns the paragraphs to vary."""
  if texts is not None:
    return [line for line in texts.read_text().split("\n") if line]
  from pydoc_data.topics import topics

  found = (" ".join(part.split()) for topic in topics.values() for part in topic.split("\n\n"))
  return [part for part in found if len(part) > 40]


def varied(source: list[str]) -> Iterator[str]:
  """Yields the paragraphs again and again, each time with another beginning, so that no text comes twice."""
  for i in itertools.count():
    for j, text in enumerate(source):
      yield f"{i} {j} {text}"


def joined(source: list[str], n: int) -> list[str]:
  """Returns documents of `n` paragraphs each."""
  return [" ".join(source[i : i + n]) for i in range(0, len(source), n)]


def write_corpus(folder: Path, size: int, source: list[str]) -> int:
  """Writes about `size` bytes as JSONL shards and returns the number of documents."""
  folder.mkdir()
  texts, documents = varied(source), 0
  for shard in range(SHARDS):
    with (folder / f"part-{shard:02d}.jsonl").open("w") as file:
      while file.tell() < size // SHARDS:
        file.write(json.dumps({"id": f"document-{documents:09d}", "text": next(texts)}, ensure_ascii=False) + "\n")
        documents += 1
  return documents


def run_one(folder: Path, budget: int, source: list[str], bounded: bool) -> None:
  """Embeds a corpus in this process and prints what it took."""
  import pipeline.embed
  from pipeline.options import EmbedOptions
  from tests.fake_encoder import FakeEncoder, make_vocabulary
  from transforms.input_files import ReadOptions

  fake = FakeEncoder(make_vocabulary(source[:2000]), HIDDEN_SIZE)
  options = EmbedOptions(
    inputs=(str(folder / "corpus"),),
    encoder="fake",
    dataset=str(folder / "dataset"),
    read=ReadOptions(id_column="id"),  # so that ids are settled, the one shuffle that waves do not cut
    whitening="fit",
    n_components=COMPONENTS,
    memory_budget=budget,
  )
  if not bounded:  # the peer: allocators as they come
    pipeline.embed.bound_allocators = pipeline.embed.release_memory = lambda: None
  started = time.monotonic()
  outcome = pipeline.embed.embed(options, fake.loaders(), fake.spec, encoder_bytes=0)
  assert outcome.status == "published", outcome.manifest["verdicts"]
  waves = len(json.loads((folder / "dataset/runs" / outcome.manifest["run_id"] / "plan.json").read_text())["waves"])
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  seconds = time.monotonic() - started
  print(json.dumps({"peak_mb": round(peak / 1e6), "seconds": round(seconds, 1), "waves": waves}))


def measure(size_mb: int, budget_mb: int, texts: Path | None, join: int, bounded: bool) -> dict[str, object]:
  """Runs one size in a process of its own and returns its figures."""
  with tempfile.TemporaryDirectory(prefix="sorbus-memory-") as name:
    documents = write_corpus(Path(name) / "corpus", size_mb * 1_000_000, joined(paragraphs(texts), join))
    command = [sys.executable, "-m", "benchmarks.memory", "--run-one", name, "--budgets-mb", str(budget_mb)]
    command += ["--texts", str(texts)] if texts else []
    command += [] if bounded else ["--default-allocators"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
  figures = json.loads(done.stdout.splitlines()[-1])
  return {"text_mb": size_mb, "documents": documents, "budget_mb": budget_mb, "bounded_allocators": bounded, **figures}


def main() -> None:
  """Measures each size, prints a line for it, and keeps the results."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--texts", type=Path)
  parser.add_argument("--join", type=int, default=3, help="paragraphs of a document")
  parser.add_argument("--sizes-mb", type=int, nargs="+", default=[100, 1600])
  parser.add_argument("--budgets-mb", type=int, nargs="+", default=[1000], help="a larger one makes fewer waves")
  parser.add_argument("--default-allocators", action="store_true", help=argparse.SUPPRESS)
  parser.add_argument("--run-one", type=Path, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.run_one:
    run_one(args.run_one, args.budgets_mb[0] * 1_000_000, paragraphs(args.texts), not args.default_allocators)
    return
  texts = args.texts.absolute() if args.texts else None
  bounded_jobs = [(size, budget, True) for size in args.sizes_mb for budget in args.budgets_mb]
  results = []
  for size, budget, bounded in [(args.sizes_mb[0], args.budgets_mb[0], False), *bounded_jobs]:
    results.append(measure(size, budget, texts, args.join, bounded))
    print(json.dumps(results[-1]), flush=True)
  write_results("memory", {"hidden_size": HIDDEN_SIZE, "n_components": COMPONENTS, "runs": results})
  over = [run for run in results if run["bounded_allocators"] and run["peak_mb"] > run["budget_mb"]]
  sys.exit(f"over the budget: {over}" if over else 0)


if __name__ == "__main__":
  main()
