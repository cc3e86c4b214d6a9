"""The flags of the commands that work on datasets, and what their values may be."""

import argparse
from typing import Any

from pipeline.commands import run_embed, run_publish, run_search, run_show, run_verify

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def add_embed(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "embed",
    help="encode and whiten a corpus into a dataset",
    description="Read sharded text, encode each distinct text once, whiten, and publish the vectors as Parquet.\n"
    "Killed or failed? Run it again: what was encoded is kept.",
    epilog="Examples:\n"
    "  sorbus embed --input 'news/*.txt.gz' --encoder encoder --dataset vectors\n"
    "  sorbus embed --input 'docs/*.jsonl' --text-column title body --id-column id --keep-columns title \\\n"
    "      --encoder encoder --dataset vectors --n-components 0.95\n"
    "  sorbus embed --input 's3://bucket/*.parquet' --encoder encoder --dataset vectors -- --job_name=tonight\n\n"
    "What stands behind '--' goes to Beam.",
  )
  _add_input(p.add_argument_group("input"))
  _add_output(p.add_argument_group("output"))
  _add_work(p.add_argument_group("work"))
  p.set_defaults(run=run_embed)
  return p


def _add_input(g: Any) -> None:
  g.add_argument(
    "--input",
    nargs="+",
    required=True,
    metavar="GLOB",
    help="files, folders or globs; any fsspec URL; .gz .bz2 .zst too",
  )
  g.add_argument("--format", choices=("text", "jsonl", "csv", "tsv", "parquet"), help="default: by each file's name")
  g.add_argument(
    "--text-column",
    nargs="+",
    default=["text"],
    metavar="NAME",
    help="several are joined by a line break; default: text",
  )
  g.add_argument("--id-column", metavar="NAME", help="ids stay text (007); default: file#byte-offset, or file#row")
  g.add_argument("--keep-columns", nargs="+", default=[], metavar="NAME", help="columns to carry to the output")
  g.add_argument(
    "--no-header", action="store_true", help="CSV and TSV without a header: the columns are called 1, 2, 3 …"
  )
  g.add_argument("--encoding", default="utf-8", help="of text, JSONL, CSV and TSV; default: utf-8")
  g.add_argument("--limit", type=_positive, metavar="N", help="only the first N documents")
  g.add_argument(
    "--max-rejected",
    type=_share,
    default=0.01,
    metavar="SHARE",
    help="do not publish if more is rejected; default: 1%%",
  )
  g.add_argument(
    "--max-shrink",
    type=_share,
    default=0.5,
    metavar="SHARE",
    help="do not publish if more of the published run's documents are gone; default: 50%%",
  )
  g.add_argument(
    "--allow-bad-files", action="store_true", help="count files that vanish, change or are damaged, and go on"
  )


def _add_output(g: Any) -> None:
  g.add_argument("--encoder", required=True, metavar="ENCODER_DIR", help="what `sorbus freeze` wrote")
  g.add_argument("--dataset", required=True, metavar="DATASET", help="folder or s3://BUCKET/PREFIX; made if not there")
  g.add_argument(
    "--whitening",
    metavar="fit|none|PATH",
    help="fit on this corpus; none; or a file: a run's whitening-*.npz, or an .npz with the blog's kernel and bias. "
    "Default: fit; none for a sentence-transformers encoder, which was trained for cosine as it is",
  )
  g.add_argument(
    "--n-components",
    type=_components,
    metavar="K",
    help="how many to keep, or a share of the variance such as 0.95; default: 256, or the encoder's width less one",
  )
  g.add_argument(
    "--threshold",
    type=_share,
    metavar="P",
    help="with a sigmoid head: labels whose probability is above P, such as 0.3 or 30%%, stand in the column `labels`; "
    "another P encodes nothing again; default: 0.5",
  )


def _add_work(g: Any) -> None:
  g.add_argument("--threads", type=_positive, metavar="N", help="default: all cores")
  g.add_argument(
    "--memory-budget",
    type=_bytes,
    metavar="SIZE",
    help="such as 4GB: a larger corpus is taken in waves; default: half of the machine's",
  )
  g.add_argument("--token-budget", type=_positive, metavar="N", help="rows × longest text of a batch; default: 2048")
  g.add_argument("--flush-seconds", type=float, metavar="S", help="of encoding that a crash may cost; default: 60")
  g.add_argument("--buckets", type=_positive, metavar="N", help="a power of two; default: by the input's size")
  g.add_argument("--again", action="store_true", help="run although nothing has changed since the published run")
  g.add_argument("--wait", action="store_true", help="for another job on the dataset, rather than to be refused")
  g.add_argument("--waves", type=_positive, metavar="N", help="default: by the memory budget")
  g.add_argument("--json", action="store_true", help="print status and manifest as JSON")


def add_show(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "show",
    help="what is in a dataset, a checkpoint, an encoder folder or a graph",
    description="Say what PATH is:\n"
    "  a dataset: its runs, and what one of them did\n"
    "  a checkpoint: layers, sizes, variables used, unused and missing, casing, what it can be frozen to\n"
    "  an encoder folder: what vector it gives; its files are checked and its self-test is run\n"
    "  a frozen graph (GRAPH.pb): its inputs, what could be its output, why it could not be frozen as it is\n\n"
    "What is broken is described as far as possible, with what is wrong as problems, and the exit code is still 0; it\n"
    "is 2 where there is nothing to describe.",
    epilog="Examples:\n"
    "  sorbus show vectors\n"
    "  sorbus show output --bert-config chinese_L-12_H-768_A-12/bert_config.json \\\n"
    "      --vocab chinese_L-12_H-768_A-12/vocab.txt --sample articles.txt.gz",
  )
  p.add_argument("path", metavar="PATH", help="folder, checkpoint prefix or GRAPH.pb")
  p.add_argument("--run", dest="run_id", metavar="ID", help="of a dataset; default: the published run")
  p.add_argument(
    "--sample",
    metavar="FILE",
    help="a text a line, or JSONL, CSV, TSV or Parquet with a column `text`: how many tokens of its first 5,000 texts "
    "are unknown, how many texts truncated; for a checkpoint under the other casing too, to see which is right",
  )
  p.add_argument("--text-column", metavar="NAME", help="of the sample's texts; default: text")
  p.add_argument("--no-header", action="store_true", help="of the sample: as for embed")
  p.add_argument("--bert-config", metavar="FILE", help="as for freeze")
  p.add_argument("--vocab", metavar="FILE", help="as for freeze")
  p.add_argument("--json", action="store_true", help="print a JSON object; `kind` says of what")
  p.set_defaults(run=run_show)
  return p


def add_search(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser("search", help="the documents nearest to a text")
  p.add_argument("dataset", metavar="DATASET")
  p.add_argument("text", metavar="TEXT")
  p.add_argument("-k", type=_positive, default=10, metavar="K", help="how many; default: 10")
  p.add_argument("--encoder", metavar="ENCODER_DIR", help="default: where it was when the dataset was made")
  p.add_argument("--json", action="store_true")
  p.set_defaults(run=run_search)
  return p


def add_verify(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "verify",
    help="re-read every file of a run and hold it to its manifest",
    description="Re-read every file of a run: its bytes and sha256, the raw vectors that it was made from, rows,\n"
    "that ids are unique and vectors of length 1, and all counts. Nothing is changed. The exit code is 1 if anything\n"
    "is not as the manifest says.",
  )
  p.add_argument("dataset", metavar="DATASET")
  p.add_argument("--run", dest="run_id", metavar="ID", help="default: the published run")
  p.add_argument("--json", action="store_true")
  p.set_defaults(run=run_verify)
  return p


def add_publish(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "publish",
    help="publish a run that is there already, such as an older one",
    description="Publish a finished run under a new number, once `sorbus verify` passes on it. Nothing is copied, and\n"
    "readers who have opened another run keep that. Publishing an older run is a rollback.",
  )
  p.add_argument("dataset", metavar="DATASET")
  p.add_argument("run_id", metavar="RUN", help="`sorbus show DATASET` lists them")
  p.add_argument("--anyway", action="store_true", help="also a run that a gate has held back")
  p.set_defaults(run=run_publish)
  return p


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
  return value


def _share(text: str) -> float:
  value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
  if not 0 <= value <= 1:
    raise argparse.ArgumentTypeError(f"{text} is no share; choose 0 to 1, or 0% to 100%")
  return value


def _components(text: str) -> int | float:
  return float(text) if "." in text else int(text)


def _bytes(text: str) -> int:
  upper = text.strip().upper()
  unit = next((unit for unit in sorted(_UNITS, key=len, reverse=True) if upper.endswith(unit)), "")
  try:
    return int(float(upper.removesuffix(unit)) * _UNITS.get(unit, 1))
  except (ValueError, OverflowError):
    raise argparse.ArgumentTypeError(f"{text!r} is no size; write it like 4GB or 512MB") from None


# argparse names a failed conversion after the function.
_positive.__name__, _components.__name__, _share.__name__ = "whole number", "number of components", "share"
