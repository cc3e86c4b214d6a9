"""The flags of `sorbus evaluate`: whose vectors, against what, under which whitening."""

import argparse
from typing import Any

from pipeline.evaluate_command import run_evaluate
from pipeline.flags import _components as components
from pipeline.flags import _positive as positive
from pipeline.freeze_flags import add_files, add_tokenising


def add_evaluate(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "evaluate",
    help="is an encoder good, and does whitening help: against scored pairs, or by isotropy",
    description="Say how good an encoder's vectors are, raw and whitened:\n"
    "  with --pairs, Spearman's and Pearson's correlation of cosines with the scores of people;\n"
    "    of labels 0 and 1 also the area under the ROC curve and the best thresholds,\n"
    "  with --corpus, without any scores: how evenly vectors fill their space, and how many of ten nearest\n"
    "    neighbours whitening keeps,\n"
    "and a verdict in a sentence. With --sweep, which layers, pooling and number of components agree best.\n"
    "docs/evaluating.md says what each number means.",
    epilog="Examples:\n"
    "  sorbus evaluate encoder --pairs stsb-en-dev.csv\n"
    "  sorbus evaluate encoder minilm --pairs questions.tsv --columns question1 question2 is_duplicate\n"
    "  sorbus evaluate encoder --pairs stsb-en-dev.csv --fit-on vectors\n"
    "  sorbus evaluate encoder --corpus 'articles/*.jsonl'\n"
    "  sorbus evaluate uncased_L-12_H-768_A-12 --pairs stsb-en-dev.csv --sweep --csv sweep.csv --plot sweep.svg",
  )
  p.add_argument(
    "encoders",
    metavar="ENCODER",
    nargs="+",
    help="what `sorbus freeze` wrote; several give a row each; for --sweep a checkpoint",
  )
  _add_texts(p.add_argument_group("what they are held to"))
  _add_whitening(p.add_argument_group("whitening"))
  _add_sweep(p.add_argument_group("every layer and pooling at once", _SWEEP_HELP))
  p.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="as for embed")
  p.add_argument("--json", action="store_true", help="print a JSON object, with every number that there is")
  p.set_defaults(run=run_evaluate)
  return p


def _add_texts(g: Any) -> None:
  g.add_argument(
    "--pairs",
    metavar="FILE",
    help="CSV, TSV or JSONL with two texts and a score a line, as STS-B is published; also .gz .bz2 .zst",
  )
  g.add_argument(
    "--columns",
    nargs=3,
    metavar=("FIRST", "SECOND", "SCORE"),
    help="of the pairs: names, or numbers where there is no header; default: a file's three columns; of more "
    "without header the first two and the last; else sentence1 sentence2 score",
  )
  g.add_argument("--format", choices=("csv", "tsv", "jsonl"), help="of the pairs; default: by the file's name")
  g.add_argument(
    "--corpus", nargs="+", metavar="GLOB", help="texts without scores: files, folders or globs, as for embed"
  )
  g.add_argument("--text-column", nargs="+", metavar="NAME", default=["text"], help="of the corpus; default: text")
  g.add_argument("--no-header", action="store_true", help="of the corpus: as for embed")
  g.add_argument(
    "--sample",
    type=positive,
    metavar="N",
    help="only so many pairs, or distinct texts; always the same ones; default: all pairs, 3,000 texts of a corpus",
  )


def _add_whitening(g: Any) -> None:
  g.add_argument(
    "--whitening",
    metavar="fit|none|FILE",
    default="fit",
    help="fit: on the texts that are evaluated, whose scores play no part; none: raw vectors only; or a file, as for "
    "embed; default: fit",
  )
  g.add_argument(
    "--fit-on",
    metavar="DATASET",
    help="fit on the raw vectors of a dataset's published run instead, as `sorbus rewhiten` would; it has to be of "
    "this encoder. A query is whitened so, or a text that the corpus has not seen",
  )
  g.add_argument(
    "--n-components",
    type=components,
    metavar="K",
    help="how many to keep, or a share of the variance such as 0.95; default: 256, or the encoder's width less one",
  )


_SWEEP_HELP = (
  "With --sweep ENCODER is a checkpoint, as freeze takes it: an encoder's graph gives one vector. Each layer, first\n"
  "and last averaged, the last two, the last four; mean, cls, max and pooler; raw, and whitened to several numbers\n"
  "of components (or to --n-components); all from one pass over the texts."
)


def _add_sweep(g: Any) -> None:
  g.add_argument("--sweep", action="store_true", help="compare them; needs --pairs")
  g.add_argument("--csv", metavar="FILE", help="every combination; the table has the best 20")
  g.add_argument("--plot", metavar="FILE", help="a picture, .svg or .png")
  add_files(g)
  add_tokenising(g)
