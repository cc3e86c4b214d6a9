"""The flags of the commands that work on datasets, and what their values may be."""

import argparse
from typing import Any

from pipeline.commands import (
  run_diff,
  run_embed,
  run_gc,
  run_publish,
  run_rewhiten,
  run_search,
  run_show,
  run_verify,
  run_wait,
)
from pipeline.report_flags import add_no_report

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}


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
    "  sorbus embed --input 's3://bucket/*.parquet' --encoder encoder --dataset vectors -- --job_name=tonight\n"
    "  sorbus embed --input 's3://bucket/*.parquet' --encoder s3://bucket/encoder --dataset s3://bucket/vectors \\\n"
    "      --runner FlinkRunner -- --flink_master=flink:8081 --parallelism=8\n"
    "  sorbus embed --replay vectors/runs/20240229T020000Z1a2b3c\n\n"
    "What stands behind '--' goes to Beam.",
  )
  add_embed_flags(p)
  p.set_defaults(run=run_embed, beam_options=())
  return p


def add_embed_flags(p: argparse.ArgumentParser) -> None:
  """Adds the flags that say what is embedded, and how: `sorbus estimate` takes the same."""
  _add_input(p.add_argument_group("input"))
  _add_output(p.add_argument_group("output"))
  _add_work(p.add_argument_group("work"))


def _add_input(g: Any) -> None:
  g.add_argument(
    "--input",
    nargs="+",
    metavar="GLOB",
    help="files, folders or globs; any fsspec URL; .gz .bz2 .zst too; required but with --replay",
  )
  g.add_argument("--format", choices=("text", "jsonl", "csv", "tsv", "parquet"), help="default: by each file's name")
  g.add_argument(
    "--text-column",
    nargs="+",
    metavar="NAME",
    help="several are joined by a line break; default: text",
  )
  g.add_argument("--id-column", metavar="NAME", help="ids stay text (007); default: file#byte-offset, or file#row")
  g.add_argument("--keep-columns", nargs="+", metavar="NAME", help="columns to carry to the output")
  g.add_argument(
    "--no-header",
    action="store_true",
    default=None,
    help="CSV and TSV without a header: the columns are called 1, 2, 3 …",
  )
  g.add_argument("--encoding", help="of text, JSONL, CSV and TSV; default: utf-8")
  g.add_argument("--limit", type=_positive, metavar="N", help="only the first N documents")
  g.add_argument(
    "--long-texts",
    metavar="truncate|head-tail|windows|chunks",
    help="of a text with more tokens than fit the encoder take the first; the first quarter and the last three; "
    "overlapping windows, averaged to one vector; or make a row of each chunk, with its place in the text "
    "(docs/long-texts.md says when which). Default: truncate",
  )
  g.add_argument(
    "--stride",
    type=_positive,
    metavar="N",
    help="of windows and chunks: tokens from where one begins to where the next does; default: three quarters of a "
    "window, and for chunks a whole one, without overlap",
  )
  g.add_argument(
    "--max-rejected",
    type=_share,
    metavar="SHARE",
    help="do not publish if more is rejected; default: 1%%",
  )
  g.add_argument(
    "--max-shrink",
    type=_share,
    metavar="SHARE",
    help="do not publish if it has fewer documents than the published run by more than this; default: 50%%",
  )
  g.add_argument(
    "--max-broken",
    type=_share,
    metavar="SHARE",
    help="do not publish if the encoder fails on more, as its graph stops or gives NaN or zeros; one document is "
    "allowed unless this is 0; default: 0.1%%",
  )
  g.add_argument(
    "--max-self-test-error",
    type=float,
    metavar="X",
    help="do not publish if the encoder's self-test is off by more; default: its own tolerance, beyond which no job "
    "starts",
  )
  g.add_argument(
    "--allow-bad-files",
    action="store_true",
    default=None,
    help="count files that vanish, change or are damaged, and go on",
  )


def _add_output(g: Any) -> None:
  g.add_argument("--encoder", metavar="ENCODER_DIR", help="what `sorbus freeze` wrote")
  g.add_argument(
    "--precision",
    metavar="float32|bfloat16|auto",
    help="of the encoder's inner products; vectors are float32 in either. bfloat16 is about three times as fast on "
    "processors that have it, and keeps the cosines of sentences to about a thousandth; auto: the dataset's, or for a "
    "new one bfloat16 where this processor has it and the encoder's self-test stays at cosine 0.999. A dataset is of "
    "one precision, another is a migration (--new-encoder). Default: float32",
  )
  g.add_argument("--dataset", metavar="DATASET", help="folder, s3://BUCKET/PREFIX or gs://…; made if not there")
  g.add_argument(
    "--new-encoder",
    action="store_true",
    help="migrate a dataset to another encoder: everything is encoded anew, beside what there is; the old run stays "
    "published until the new one is whole, and `sorbus publish` of it is the way back",
  )
  g.add_argument(
    "--whitening",
    metavar="reuse|fit|none|PATH",
    help="reuse the published run's, so that vectors stay comparable; fit on this corpus; none; or a file: a run's "
    "whitening-*.npz, or an .npz with the blog's kernel and bias. Default: reuse; for the first run fit, or none for a "
    "sentence-transformers encoder, which was trained for cosine as it is",
  )
  g.add_argument(
    "--refit-above",
    type=_share,
    metavar="SHARE",
    help="fit anew, rather than reuse, once that would change more than this share of nearest neighbours, such as "
    "30%%; default: never, a warning is printed",
  )
  g.add_argument(
    "--n-components",
    type=_components,
    metavar="K",
    help="how many to keep, or a share of the variance such as 0.95; default: 256, or the encoder's width less one",
  )
  g.add_argument(
    "--vector-type",
    choices=("float32", "float16", "int8"),
    help="of the published vectors: float16 takes half of the space and int8 a quarter, each component in a range that "
    "is measured over the corpus once and then reused with the whitening; nothing is encoded again for another; "
    "default: the published run's, or float32",
  )
  g.add_argument(
    "--threshold",
    type=_share,
    metavar="P",
    help="with a sigmoid head: labels whose probability is above P, such as 0.3 or 30%%, stand in the column `labels`; "
    "another P encodes nothing again; default: 0.5",
  )


def _add_work(g: Any) -> None:
  g.add_argument(
    "--runner",
    metavar="NAME",
    help="FlinkRunner, DataflowRunner or PortableRunner; its options stand behind '--' (docs/clusters.md has a command "
    "for each); default: this machine",
  )
  g.add_argument(
    "--detach",
    action="store_true",
    help="submit to a cluster, print the run's id and leave: `sorbus wait` follows it",
  )
  g.add_argument("--threads", type=_positive, metavar="N", help="default: all cores, of a cluster's workers theirs")
  g.add_argument(
    "--memory-budget",
    type=_bytes,
    metavar="SIZE",
    help="such as 4GB: a larger corpus is taken in waves; default: half of the machine's",
  )
  g.add_argument("--token-budget", type=_positive, metavar="N", help="rows × longest text of a batch; default: 2048")
  g.add_argument("--flush-seconds", type=float, metavar="S", help="of encoding that a crash may cost; default: 60")
  g.add_argument("--buckets", type=_positive, metavar="N", help="a power of two; default: by the input's size")
  g.add_argument(
    "--replay",
    metavar="RUN",
    help="after what RUN rejected was mended: run its job once more, with its input, options and encoder where no flag "
    "says otherwise, and say what became of its rejected documents; an id with --dataset, or DATASET/runs/ID",
  )
  g.add_argument("--again", action="store_true", help="run although nothing has changed since the published run")
  g.add_argument("--wait", action="store_true", help="for another job on the dataset, rather than to be refused")
  g.add_argument("--waves", type=_positive, metavar="N", help="default: by the memory budget")
  g.add_argument(
    "--metrics-file",
    metavar="PATH",
    help="how the job ended, however it does, for Prometheus: a file that the textfile collector of a node exporter "
    "reads, one for each dataset",
  )
  add_no_report(g)
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
  p.add_argument(
    "--text-column",
    nargs="+",
    metavar="NAME",
    help="of the sample's texts; several are joined by a line break; default: text",
  )
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
  p.add_argument("--json", action="store_true")
  p.set_defaults(run=run_publish)
  return p


def add_wait(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "wait",
    help="follow a run that another process makes, and end as it does",
    description="Wait until a run is finished that was submitted elsewhere, or runs in another shell, and say what\n"
    "came of it as `sorbus embed` would, with its exit code: 0 published, 1 held back or dead, 75 another run\n"
    "came first, or it was not finished in time. Nothing is changed but that the run's report is written, if it has\n"
    "none: a wait that is broken off costs nothing.",
  )
  p.add_argument("dataset", metavar="DATASET")
  p.add_argument("run_id", metavar="RUN", nargs="?", help="default: the run that is made now")
  p.add_argument("--timeout", type=_seconds, metavar="TIME", help="such as 90s, 30m or 2h; default: no limit")
  add_no_report(p)
  p.add_argument("--json", action="store_true", help="print status and manifest as JSON")
  p.set_defaults(run=run_wait)
  return p


def add_gc(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "gc",
    help="remove old runs, and raw vectors that no kept run needs",
    description="Remove what no kept run needs: first say what, then do it. Kept are the published run and the newest\n"
    "finished ones, whole; what a killed run has encoded since, too. Raw vectors of texts that no kept run has go,\n"
    "small files are merged, and unchanged texts keep their vectors to the bit. Killed? Run it again.",
    epilog="Examples:\n"
    "  sorbus gc vectors --dry-run\n"
    "  sorbus embed --input 'news/*.jsonl' --encoder encoder --dataset vectors && sorbus gc vectors",
  )
  p.add_argument("dataset", metavar="DATASET")
  p.add_argument(
    "--keep-runs",
    type=_positive,
    default=7,
    metavar="N",
    help="of the newest finished runs, beside the published one, and as many that were held back; default: 7",
  )
  p.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
  p.add_argument("--wait", action="store_true", help="for another job on the dataset, rather than to be refused")
  p.add_argument("--json", action="store_true")
  p.set_defaults(run=run_gc)
  return p


def add_diff(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "diff",
    help="what differs between two runs",
    description="Compare two finished runs of a dataset: rows added, removed, changed (another text) and the same;\n"
    "the cosine of old and new vectors of one document; how far the mean and the spectrum of the raw vectors moved.\n"
    "Each is defined in docs/numerics.md. Nothing is changed.",
    epilog="Example:\n  sorbus diff vectors 20260101T020000Zaf31c2 published",
  )
  p.add_argument("dataset", metavar="DATASET")
  p.add_argument("old", metavar="OLD", help="a run: `sorbus show DATASET` lists them; or `published`")
  p.add_argument("new", metavar="NEW", help="the same")
  p.add_argument("--json", action="store_true")
  p.set_defaults(run=run_diff)
  return p


def add_rewhiten(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "rewhiten",
    help="whiten a run's raw vectors anew, encoding nothing",
    description="Make and publish a new run from the raw vectors of another: a whitening fitted on what is there now,\n"
    "another number of components, or none. Nothing is encoded, and neither input nor encoder is needed. The nights\n"
    "that follow reuse this whitening.",
    epilog="Examples:\n"
    "  sorbus rewhiten vectors                       fit anew, after a warning of drift\n"
    "  sorbus rewhiten vectors --n-components 128    fewer components\n"
    "  sorbus rewhiten vectors --whitening none --run 20240229T020000Z0123ab",
  )
  p.add_argument("dataset", metavar="DATASET")
  p.add_argument("--run", dest="run_id", metavar="ID", help="whose raw vectors; default: the published run's")
  p.add_argument("--whitening", metavar="fit|none|PATH", help="as for embed; default: fit")
  p.add_argument(
    "--n-components",
    type=_components,
    metavar="K",
    help="how many to keep, or a share of the variance such as 0.95; default: as many as that run",
  )
  p.add_argument("--vector-type", choices=("float32", "float16", "int8"), help="as for embed; default: that run's")
  p.add_argument("--max-rejected", type=_share, metavar="SHARE", help="as for embed; default: what that run had")
  p.add_argument("--max-shrink", type=_share, metavar="SHARE", help="as for embed; default: what that run had")
  p.add_argument("--threads", type=_positive, metavar="N", help="default: all cores")
  p.add_argument("--wait", action="store_true", help="for another job on the dataset, rather than to be refused")
  add_no_report(p)
  p.add_argument("--json", action="store_true", help="print status and manifest as JSON")
  p.set_defaults(run=run_rewhiten)
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


def _seconds(text: str) -> float:
  number, unit = (text[:-1], _TIMES[text[-1:]]) if text[-1:] in _TIMES else (text, 1)
  value = float(number) * unit
  if not 0 <= value < float("inf"):
    raise argparse.ArgumentTypeError(f"{text} is no time; write it like 90s, 30m or 2h")
  return value


def _bytes(text: str) -> int:
  upper = text.strip().upper()
  unit = next((unit for unit in sorted(_UNITS, key=len, reverse=True) if upper.endswith(unit)), "")
  try:
    return int(float(upper.removesuffix(unit)) * _UNITS.get(unit, 1))
  except (ValueError, OverflowError):
    raise argparse.ArgumentTypeError(f"{text!r} is no size; write it like 4GB or 512MB") from None


# argparse names a failed conversion after the function.
_positive.__name__, _components.__name__, _share.__name__ = "whole number", "number of components", "share"
_seconds.__name__ = "time"
