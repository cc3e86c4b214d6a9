"""The flags of `sorbus estimate`, which are those of embed and two more, and what the command does with them."""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from pipeline.commands import embed_options
from pipeline.flags import add_embed_flags
from transforms.errors import UsageError

# Of fewer documents no whitening of the usual width can be fitted.
LEAST_SAMPLE = 1000
# Stands for the dataset where none is named: nothing of that name is there, as before a first run.
_NEW_DATASET = "a new dataset"


def add_estimate(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "estimate",
    help="what embedding a corpus will take: time, memory, bytes",
    description="Say what `sorbus embed` with the same flags will take. A sample from everywhere in the input is read\n"
    "and tokenised, the encoder is timed on batches such as the run will make, and everything but encoding is tried\n"
    "out on the sample, in a folder that goes away. Nothing is changed. That takes a minute at most, and the machine\n"
    "should have nothing else to do meanwhile.\n\n"
    "Write `estimate` in place of `embed`, and leave out what you do not know yet: all but --input and --encoder.\n"
    "With a --dataset that is there, what it has encoded already is taken off. For a new one each precision is timed\n"
    "that this processor is fast in, unless --precision names one. What is for a run alone, such as --wait or\n"
    "--max-rejected, changes nothing here.",
    epilog="Examples:\n"
    "  sorbus estimate --input 'news/*.txt.gz' --encoder encoder\n"
    "  sorbus estimate --input 'docs/*.jsonl' --text-column title body --encoder encoder --dataset vectors --json",
  )
  g = p.add_argument_group("estimate")
  g.add_argument("--sample", type=int, default=20_000, metavar="N", help="documents to read; default: 20000")
  g.add_argument(
    "--seconds", type=float, default=20.0, metavar="S", help="of timing the encoder, all precisions; default: 20"
  )
  add_embed_flags(p)
  p.set_defaults(run=run_estimate, beam_options=())
  return p


def run_estimate(args: Any) -> int:
  """Says what a run will take."""
  started = time.perf_counter()  # imports are part of what a run takes
  if args.sample < LEAST_SAMPLE:
    raise UsageError(f"--sample {args.sample}: too few to say anything of a corpus; choose {LEAST_SAMPLE} or more")
  if not args.seconds > 0:
    raise UsageError(f"--seconds {args.seconds:g}: no time to measure anything in; choose 1 or more")
  if args.replay is not None:
    raise UsageError("--replay: an estimate is of an input that is named; give --input in place of it")
  given = {"dataset": args.dataset or _NEW_DATASET, "precision": args.precision or "float32"}
  options = embed_options(SimpleNamespace(**vars(args) | given))
  from pipeline.estimate import estimate
  from pipeline.progress import say
  from pipeline.show_estimate import describe_estimate, show_estimate

  with _steps() as step:
    found = estimate(
      options,
      sample=args.sample,
      seconds=args.seconds,
      every_precision=args.precision is None,
      report=not args.no_report,
      started=started,
      say=say,
      step=step,
    )
  if args.json:
    print(json.dumps(describe_estimate(found), indent=2, sort_keys=True))
  else:
    show_estimate(found, Console())
  return 0


@contextmanager
def _steps() -> Iterator[Callable[[str], object]]:
  """Shows what is done now, on a terminal."""
  console = Console(stderr=True)
  if not console.is_terminal:
    yield lambda what: None
    return
  with console.status("starting") as status:
    yield status.update
