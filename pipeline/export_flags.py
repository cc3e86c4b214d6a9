"""The flags of `sorbus export`, and what it prints."""

import argparse
import json
from dataclasses import asdict
from typing import Any


def add_export(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "export",
    help="write a run's vectors as an .npy file or a FAISS index",
    description="Write the vectors of a run into a folder that another library opens:\n"
    "  npy     vectors.npy, a float32 matrix [N, K] that NumPy can memory-map\n"
    "  faiss   index.faiss, an IndexFlatIP; needs pip install 'sorbus[faiss]', and memory for the whole index\n"
    "and ids.parquet: row i has the doc_id of vector i, and all other columns. OUT is written whole or not at all.\n"
    "DuckDB, Polars, pandas and Hugging Face datasets read the run's own Parquet: see docs/handing-on.md.",
    epilog="Examples:\n"
    "  sorbus export vectors --to npy out\n"
    "  sorbus export vectors --to faiss out --overwrite --run 20240229T020000Z0123ab",
  )
  p.add_argument("dataset", metavar="DATASET")
  p.add_argument("out", metavar="OUT", help="local folder to write, new or empty")
  p.add_argument("--to", required=True, choices=("npy", "faiss"))
  p.add_argument("--run", dest="run_id", metavar="ID", help="default: the published run")
  p.add_argument("--overwrite", action="store_true", help="replace an export that is there")
  p.add_argument("--json", action="store_true", help="print run, folder, files, rows and components as JSON")
  p.set_defaults(run=run_export)
  return p


def run_export(args: Any) -> int:
  """Writes a run's vectors for another library, and says where."""
  from pipeline.dataset import Dataset
  from pipeline.export import check_export, export_rows
  from pipeline.progress import reading_bar
  from pipeline.published_rows import PublishedRows

  target = check_export(args.out, args.to, args.overwrite)
  rows = PublishedRows.of(Dataset.open(args.dataset), args.run_id)
  with reading_bar(f"exporting {rows.manifest['run_id']}", rows.bytes) as advance:
    export = export_rows(rows, target, args.to, advance)
  if args.json:
    print(json.dumps(asdict(export), indent=2, sort_keys=True))
  else:
    vectors = f"{export.rows:,} vectors of {export.n_components} components"
    print(f"exported: {args.out} has {vectors} of run {export.run_id}: {', '.join(export.files)}")
  return 0
