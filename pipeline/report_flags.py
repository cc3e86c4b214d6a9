"""The flags of `sorbus report`, that of commands which write one by themselves, and what the command does."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from transforms.errors import UsageError


def add_report(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "report",
    help="one HTML file about a run: what it did, and what its vectors are like",
    description="Write one HTML file about a finished run, which needs nothing else and opens from a mail: counts,\n"
    "speed, token lengths, what was rejected, the spectrum, cosines before and after whitening, what is other than in\n"
    "the run before. `sorbus embed` and `sorbus rewhiten` write it by themselves (unless --no-report).\n\n"
    "It is in the dataset as runs/RUN/report.html, and takes the place of the one that is there. It has ids and names\n"
    "of files in it, but no text of a document. With --with-texts it is called report-with-texts.html.",
    epilog="Examples:\n"
    "  sorbus report vectors\n"
    "  sorbus report vectors --run 20240229T020000Z1a2b3c --out report.html\n"
    "  sorbus report s3://bucket/vectors --with-texts --out texts.html",
  )
  p.add_argument("dataset", metavar="DATASET")
  p.add_argument("--run", dest="run_id", metavar="ID", help="default: the published run; `sorbus show` lists them")
  p.add_argument("--out", metavar="FILE", help="write it here, rather than into the dataset")
  p.add_argument(
    "--with-texts",
    action="store_true",
    help="show texts: of rejected documents, and from kept columns a map of documents and the nearest of a few",
  )
  p.add_argument("--json", action="store_true", help="print run_id, path, bytes and replaced as JSON")
  p.set_defaults(run=run_report)
  return p


def add_no_report(command: Any) -> None:
  command.add_argument(
    "--no-report", action="store_true", help="write no report.html beside the run; `sorbus report` makes it later"
  )


def run_report(args: Any) -> int:
  """Writes a report, and says where it is."""
  from pipeline.dataset import Dataset
  from pipeline.report import report_path, write_report

  dataset = Dataset.open(args.dataset)
  run_id = args.run_id
  if run_id is None:
    published = dataset.published()
    if published is None:
      raise UsageError(f"{args.dataset}: nothing is published yet; name a run with --run, `sorbus show` lists them")
    run_id = published.run_id
  report = write_report(dataset, run_id, args.out, with_texts=args.with_texts)
  if args.json:
    print(json.dumps(asdict(report), indent=2, sort_keys=True))
  else:
    where = args.out or f"{args.dataset}/{report_path(run_id, args.with_texts)}"  # as it was given, for copying
    print(f"report: {where}{' (in place of the one before)' if report.replaced else ''}")
  return 0
