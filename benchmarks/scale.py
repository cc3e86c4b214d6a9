"""Everything but encoding, on as many documents as a disk holds: rate of each stage, peak memory, bytes on disk.

  python -m benchmarks.scale [--documents 10000000] [--ids column|position] [--folder DIR] [--budget-mb 8000]

Made-up short texts (corpus.py) go through read, bucket, tokenise, encode (a fake that costs a millisecond a batch),
settle ids, moments, reduce and Parquet, and through a second night, which encodes nothing. Each job is a process of its
own; peak memory is the kernel's figure for it. A stage's seconds are those its own code took, over all threads; its CPU
seconds lack those of the tokeniser's and BLAS's own threads, which the job's have.
Results go to benchmarks/results/; what was written goes away at the end.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.corpus import make_words, write_corpus
from benchmarks.measure import read_results, write_results

HIDDEN_SIZE, COMPONENTS = 128, 64
# What has to be free for a document: its line, raw vector, reduced vector, twice the documents and vectors files.
DISK_BYTES_PER_DOCUMENT = 2500


class Stopwatch:
  """Seconds spent in the own code of each stage, summed over threads."""

  def __init__(self) -> None:
    self.seconds: Counter[str] = Counter()
    self.cpu_seconds: Counter[str] = Counter()
    self._lock = threading.Lock()

  def watch(self, owner: Any, method: str, stage: str) -> None:
    """Times a method; of one that yields, only the time until each next value, not what is done with it."""
    timed = getattr(owner, method)

    def function(*args: Any, **kwargs: Any) -> Any:
      value = self._timed(stage, lambda: timed(*args, **kwargs))
      return self._each(stage, value) if isinstance(value, Iterator) else value

    setattr(owner, method, function)

  def _each(self, stage: str, values: Iterator[Any]) -> Iterator[Any]:
    end = object()
    while (value := self._timed(stage, lambda: next(values, end))) is not end:
      yield value

  def _timed(self, stage: str, call: Callable[[], Any]) -> Any:
    started, cpu = time.monotonic(), time.thread_time()
    try:
      return call()
    finally:
      with self._lock:
        self.seconds[stage] += time.monotonic() - started
        self.cpu_seconds[stage] += time.thread_time() - cpu


def watch_stages() -> Stopwatch:
  """Times the steps of the graph in this process."""
  from pipeline import publish
  from tests.fake_encoder import FakeEncoder
  from transforms import combine_moments, encode_documents, find_changes, read_documents, settle_ids
  from transforms.read_raw_blocks import _ReadRawBlocks
  from transforms.wordpiece import Wordpiece
  from transforms.write_vectors import _WriteShard

  stopwatch = Stopwatch()
  for owner, method, stage in (
    (read_documents._ReadSlice, "process", "read, bucket, tokenise"),
    (Wordpiece, "tokenise", "of these, tokenise"),
    (encode_documents._EncodeBucket, "process", "encode"),
    (FakeEncoder, "encode", "of these, the fake encoder"),
    (settle_ids._IdBlocks, "process", "settle ids: read"),
    (settle_ids, "find_losers", "settle ids: find"),
    (_ReadRawBlocks, "process", "read raw blocks"),
    (combine_moments.MomentsCombineFn, "add_input", "moments"),
    (_WriteShard, "process", "reduce and write"),
    (find_changes._CompareRange, "process", "find changes: compare"),
    (find_changes._WriteChanges, "process", "find changes: write"),
    (publish, "make_manifest", "manifest"),
  ):
    stopwatch.watch(owner, method, stage)
  return stopwatch


def run_one(folder: Path, ids: str, budget: int) -> None:
  """Embeds the corpus in this process and prints what it took."""
  from pipeline.embed import embed
  from pipeline.graph import FinishRun
  from pipeline.options import EmbedOptions
  from tests.fake_encoder import FakeEncoder, make_vocabulary
  from transforms.input_files import ReadOptions

  vocabulary = make_vocabulary(make_words()[:5000])
  fake = FakeEncoder(vocabulary, HIDDEN_SIZE, max_seq_length=64)
  is_first = not (folder / "dataset").exists()
  options = EmbedOptions(
    inputs=(str(folder / "corpus"),),
    encoder="fake",
    dataset=str(folder / "dataset"),
    read=ReadOptions(id_column="id" if ids == "column" else None),
    whitening="fit" if is_first else None,
    n_components=COMPONENTS if is_first else None,
    memory_budget=budget,
    again=True,
  )
  stopwatch, before_finish = watch_stages(), []
  expand = FinishRun.expand

  def noted(self: FinishRun, records: Any) -> Any:
    before_finish.append((time.monotonic(), peak_mb()))
    return expand(self, records)

  FinishRun.expand = noted  # type: ignore[method-assign]
  started = time.monotonic()
  outcome = embed(options, fake.loaders(), fake.spec, encoder_bytes=0)
  seconds = time.monotonic() - started
  assert outcome.status == "published", outcome.manifest["verdicts"]
  (finish_started, peak_of_waves), manifest = before_finish[0], outcome.manifest
  run = folder / "dataset" / "runs" / manifest["run_id"]
  files = [file for file in sorted(run.iterdir()) if megabytes(file)]
  figures = {
    "documents": manifest["counts"]["read"],
    "written": manifest["counts"]["written"],
    "encoded": manifest["counts"]["encoded"],
    "unchanged": manifest["counts"]["unchanged"],
    "buckets": manifest["buckets"],
    "waves": len(json.loads((run / "plan.json").read_text())["waves"]),
    "seconds": round(seconds, 1),
    "seconds_of_waves": round(finish_started - started, 1),
    "peak_mb_of_waves": peak_of_waves,
    "peak_mb": peak_mb(),
    "cpu_seconds": round(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), 1),
    "stage_seconds": {stage: round(s, 1) for stage, s in stopwatch.seconds.items()},
    "stage_cpu_seconds": {stage: round(s, 1) for stage, s in stopwatch.cpu_seconds.items()},
    "megabytes": {"raw": megabytes(folder / "dataset/raw")} | {f.name.partition("-")[0]: megabytes(f) for f in files},
  }
  print(json.dumps(figures))


def peak_mb() -> int:
  """Returns the most memory that this process, and any child of it, has held so far, in MB."""
  kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  return round(sum(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024 / 1e6)


def megabytes(path: Path) -> float:
  """Returns what a file, or all files of a folder, take on disk."""
  files = path.rglob("*") if path.is_dir() else [path]
  return round(sum(file.stat().st_size for file in files if file.is_file()) / 1e6, 1)


def measure(folder: Path, documents: int, ids: str, budget_mb: int) -> list[dict[str, Any]]:
  """Writes a corpus and embeds it twice, each time in a process of its own; returns the figures of both nights."""
  started = time.monotonic()
  text_bytes = write_corpus(folder / "corpus", documents)
  seconds = time.monotonic() - started
  print(f"{documents:,} documents of {text_bytes / documents:.0f} bytes written in {seconds:.0f} s", flush=True)
  nights = []
  for night in (1, 2):
    command = [sys.executable, "-m", "benchmarks.scale", "--run-one", str(folder), "--ids", ids]
    command += ["--budget-mb", str(budget_mb)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    figures = json.loads(done.stdout.splitlines()[-1])
    asked = {"night": night, "ids": ids, "text_mb": round(text_bytes / 1e6, 1), "budget_mb": budget_mb}
    nights.append(asked | figures)
    print(json.dumps(nights[-1], indent=2), flush=True)
  return nights


def keep(runs: list[dict[str, Any]]) -> None:
  """Adds runs to the results, in place of those of the same size and kind."""
  old = read_results("scale").get("runs", [])
  new = {(run["documents"], run["ids"], run["night"]): run for run in [*old, *runs]}
  shape = {"hidden_size": HIDDEN_SIZE, "n_components": COMPONENTS}
  write_results("scale", {**shape, "runs": [new[key] for key in sorted(new)]})


def main() -> None:
  """Measures one size and keeps the results."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--documents", type=int, default=10_000_000)
  parser.add_argument("--ids", choices=["column", "position"], default="column")
  parser.add_argument("--folder", type=Path, help="where to write; it has to have the room")
  parser.add_argument("--budget-mb", type=int, default=8000)
  parser.add_argument("--paper", action="store_true", help="print the table of docs/scaling.md, and measure nothing")
  parser.add_argument("--run-one", type=Path, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.paper:
    from benchmarks.paper import table  # it imports Beam, which takes seconds

    print(table(), end="")
    return
  if args.run_one:
    run_one(args.run_one, args.ids, args.budget_mb * 1_000_000)
    return
  with tempfile.TemporaryDirectory(prefix="sorbus-scale-", dir=args.folder) as name:
    free, needed = shutil.disk_usage(name).free, args.documents * DISK_BYTES_PER_DOCUMENT
    if free < needed:
      sys.exit(f"{name}: {free / 1e9:,.0f} GB free, {needed / 1e9:,.0f} GB needed; choose another --folder")
    keep(measure(Path(name), args.documents, args.ids, args.budget_mb))


if __name__ == "__main__":
  main()
