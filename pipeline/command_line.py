"""The command line: the one module that parses flags. Each command turns them into a frozen configuration and calls."""

import argparse
import difflib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pipeline import __version__
from pipeline.commands import run_embed, run_freeze, run_publish, run_search, run_show, run_verify
from transforms.errors import SorbusError, UsageError, printable

INTERRUPTED = 130
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


class _Parser(argparse.ArgumentParser):
  """Refuses in one line that names what was mistyped and what was probably meant; never abbreviates."""

  def __init__(self, *args: Any, **kwargs: Any):
    kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
    kwargs["allow_abbrev"] = False
    super().__init__(*args, **kwargs)

  def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
    """Parses, and refuses what is left over with the closest option that there is."""
    if self._subparsers is None:  # first: argparse would rather say that --input is missing than that --inptu is wrong
      self._refuse([arg for arg in _before_dashes(args) if arg.startswith("--") and not self._knows(arg)])
    found, unknown = super().parse_known_args(args, namespace)
    self._refuse(unknown)
    return found, []

  def _knows(self, arg: str) -> bool:
    return arg.partition("=")[0] in self._option_string_actions

  def _refuse(self, unknown: Sequence[str]) -> None:
    if unknown:
      close = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, n=1)
      self.error(f"{unknown[0]}: no such option or argument" + (f"; did you mean {close[0]}?" if close else ""))

  def error(self, message: str) -> NoReturn:
    """Raises UsageError instead of printing the whole usage."""
    raise UsageError(f"{message} (`{self.prog} --help` explains)")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command and returns its exit code (see `sorbus --help`)."""
  argv = list(sys.argv[1:] if argv is None else argv)
  try:
    signal.signal(signal.SIGTERM, _interrupt)
    # What stands behind '--' goes to Beam; for other commands it says, as everywhere, that no option follows.
    ours = _before_dashes(argv) if argv[:1] == ["embed"] else argv
    args = make_parser().parse_args(ours)
    args.beam_options = tuple(argv[len(ours) + 1 :])
    _quiet_libraries(args.verbose)
    command: Callable[[argparse.Namespace], int] = args.run
    return command(args)
  except SorbusError as error:
    print(f"sorbus: error: {printable(str(error))}", file=sys.stderr)
    if "-v" in argv or "--verbose" in argv:
      traceback.print_exc()
    return error.exit_code
  except BrokenPipeError:  # `sorbus search … | head`
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    return 0
  except KeyboardInterrupt:
    print("sorbus: interrupted; nothing is left half-done, and what was encoded is kept: run again", file=sys.stderr)
    sys.stderr.flush()
    os._exit(INTERRUPTED)  # Beam's threads would go on to the end of their bundles


def _interrupt(*_: Any) -> None:
  raise KeyboardInterrupt


def _before_dashes(argv: Sequence[str]) -> Sequence[str]:
  return argv[: argv.index("--")] if "--" in argv else argv


def _quiet_libraries(verbose: bool) -> None:
  """Keeps engines' tracebacks for --verbose: a failure of ours is told in one line."""
  level = logging.INFO if verbose else logging.CRITICAL
  logging.basicConfig(level=level, stream=sys.stderr)
  logging.getLogger("apache_beam").setLevel(level)
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if verbose else "3")


def make_parser() -> argparse.ArgumentParser:
  """Returns the parser of all commands."""
  parser = _Parser(
    prog="sorbus",
    description="Turn a text corpus into whitened BERT vectors.\n\n"
    "  sorbus freeze CHECKPOINT ENCODER_DIR        make an encoder of a BERT checkpoint\n"
    "  sorbus embed --input GLOB --encoder ENCODER_DIR --dataset DATASET\n"
    "  sorbus show DATASET                         what is in it, what the last run did; or of a checkpoint,\n"
    "                                              an encoder folder or a graph: what it is\n"
    '  sorbus search DATASET "a text"              the documents nearest to a text\n'
    "  sorbus verify DATASET                       re-read every file of a run\n"
    "  sorbus publish DATASET RUN                  publish a run that is there: roll back to an older one",
    epilog="Exit codes: 0 done, 1 failed or held back by a gate, 2 bad usage or input, 75 another run came first.",
  )
  parser.add_argument("--version", action="version", version=f"sorbus {__version__}")
  commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
  for add in (_add_freeze, _add_embed, _add_show, _add_search, _add_verify, _add_publish):
    command = add(commands)
    command.add_argument("-v", "--verbose", action="store_true", help="show the engines' logs and tracebacks")
  return parser


def _add_freeze(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "freeze",
    help="make an encoder of a BERT checkpoint or graph",
    description="Make an encoder folder (frozen graph, vocabulary, settings, self-test) of a BERT checkpoint:\n"
    "  a Google TF1 checkpoint (a folder, or a prefix such as output/model.ckpt-1200), fine-tuned or not,\n"
    "  a Hugging Face folder (config.json, model.safetensors, vocab.txt or tokenizer.json),\n"
    "  a sentence-transformers folder (modules.json says pooling and length),\n"
    "  a graph frozen elsewhere (GRAPH.pb, variables as constants), with the --vocab of its weights.\n\n"
    "Which vector? Blog posts that speak of 'the cls vector' often mean the pooler's: the vector of [CLS] after a\n"
    "dense layer with tanh, the graph's node bert/pooler/dense/Tanh. `--pooling cls` is [CLS] before that layer.",
    epilog="Examples:\n"
    "  sorbus freeze uncased_L-12_H-768_A-12 encoder --pooling mean --layers 1 12\n"
    "  sorbus freeze output/model.ckpt-1200 encoder --bert-config chinese_L-12_H-768_A-12/bert_config.json \\\n"
    "      --vocab chinese_L-12_H-768_A-12/vocab.txt\n"
    "  sorbus freeze frozen.pb encoder --vocab vocab.txt\n"
    "  sorbus freeze frozen.pb encoder --vocab vocab.txt --output bert/encoder/Reshape_13 --pooling mean\n"
    "  sorbus freeze CHECKPOINT encoder --saved-model serving/1 --whitening vectors",
  )
  p.add_argument("checkpoint", metavar="CHECKPOINT", help="folder or checkpoint prefix; or a frozen graph, GRAPH.pb")
  p.add_argument("encoder_dir", metavar="ENCODER_DIR", help="folder to write")
  p.add_argument("--bert-config", metavar="FILE", help="bert_config.json, where it is not beside the checkpoint")
  p.add_argument("--vocab", metavar="FILE", help="vocab.txt, where it is not beside the checkpoint; a graph needs it")
  p.add_argument(
    "--pooling",
    choices=("pooler", "cls", "mean", "max", "mean-max", "last"),
    help="how a text's tokens become one vector: mean-max is both, one after the other, and twice as wide; last is the "
    "last token, [SEP]; default: what the folder states; else pooler if the checkpoint has a classifier's "
    "output_weights and none of the next three options is given; else mean",
  )
  p.add_argument(
    "--layers",
    type=_layer,
    nargs="+",
    metavar="LAYER",
    help="hidden layers to pool: 0 is the embedding output, i the i-th block, -1 the last; first-last is 1 and the "
    "last; default: what the folder states, or -2. What lies above the highest is left out: a lower one is faster",
  )
  p.add_argument(
    "--combine",
    choices=("average", "sum", "concat", "fused"),
    help="how several layers become one: concat puts them one after the other, from the lowest up; fused is the mix of "
    "all blocks that the checkpoint has learned (variables layer_logit0, layer_logit1 …); default: average",
  )
  p.add_argument(
    "--exclude-special-tokens",
    action="store_true",
    help="do not count the [CLS] and [SEP] around a text in --pooling mean, max or mean-max; padding never counts",
  )
  p.add_argument(
    "--head",
    choices=("softmax", "sigmoid"),
    help="also predict, with the classifier on whole texts that the checkpoint was fine-tuned with (output_weights and "
    "output_bias, or classifier.*): softmax if a text has one label of several, so that the probabilities add up to 1; "
    "sigmoid if each label holds or not by itself, so that a text may have several or none. The checkpoint does not "
    "say which it was trained with, and both give numbers: look into the training script. Not for labels of tokens "
    "(named entities)",
  )
  p.add_argument(
    "--labels",
    metavar="FILE",
    help='names of the head\'s labels: a label a line, a JSON list, {"label": 0, ...} or {"0": "label", ...}; '
    "default: the folder's id2label, else 0, 1, 2 ...",
  )
  p.add_argument(
    "--max-seq-length", type=int, metavar="T", help="tokens with [CLS] and [SEP]; default: the folder's, or 256"
  )
  p.add_argument(
    "--activation",
    choices=("gelu_tanh", "gelu_erf", "relu", "tanh"),
    help="the one that the weights were trained with; Google's code has gelu_tanh, keras-bert gelu_erf",
  )
  p.add_argument(
    "--lowercase",
    action=argparse.BooleanOptionalAction,
    help="lower-case texts; default: by the vocabulary or the folder",
  )
  p.add_argument("--strip-accents", action=argparse.BooleanOptionalAction, help="drop accents; default: as --lowercase")
  p.add_argument(
    "--tokenize-chinese-chars",
    action=argparse.BooleanOptionalAction,
    help="each ideograph a word of its own; default: yes",
  )
  p.add_argument("--overwrite", action="store_true", help="replace another encoder in ENCODER_DIR")
  _add_graph_ends(p.add_argument_group("a graph frozen elsewhere", _GRAPH_HELP))
  _add_serving(p.add_argument_group("for serving"))
  p.set_defaults(run=run_freeze)
  return p


_GRAPH_HELP = (
  "What is not given is found: inputs by their names (input_ids, input_mask, segment_ids and what other tools call\n"
  "them), the output as bert/pooler/dense/Tanh or the only end of the graph; what cannot be told is listed. An output\n"
  "[B, T, H] takes --pooling, by default mean; an output [B, H] is the vector. --layers, --combine, --activation,\n"
  "--bert-config, --head and --labels are for checkpoints: a graph has that in it."
)


def _add_graph_ends(g: Any) -> None:
  g.add_argument("--output", metavar="NODE", help="the vectors, [B, H], or a vector a token, [B, T, H]")
  g.add_argument("--input-ids", metavar="NAME", help="placeholder of the token ids")
  g.add_argument("--input-mask", metavar="NAME", help="placeholder of the mask, 1 on tokens and 0 on padding")
  g.add_argument("--token-type-ids", metavar="NAME", help="placeholder of the token types, which are fed 0")


def _add_serving(g: Any) -> None:
  g.add_argument(
    "--saved-model",
    metavar="OUT",
    help="also write a SavedModel for TensorFlow Serving, which wants a number as its folder's name: serving/1. Its "
    "signature serving_default takes input_ids and input_mask (int32 [B, T]: 1 on tokens, 0 on padding) and gives "
    "vector (float32 [B, W]), and probabilities (float32 [B, labels]) where there is a head. A client tokenises with "
    "OUT/assets.extra. It is loaded again and compared with the encoder before it appears; --overwrite replaces one",
  )
  g.add_argument(
    "--whitening",
    metavar="RUN",
    help="with --saved-model: vector is the published one, whitened, reduced and of length 1, so that a query service "
    "needs nothing else. RUN is DATASET/runs/ID, DATASET for its published run, or a whitening-*.npz; it has to be of "
    "this encoder. Default: vector is the encoder's raw one",
  )


def _add_embed(commands: Any) -> argparse.ArgumentParser:
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
  g.add_argument("--dataset", required=True, metavar="DATASET", help="folder; made if it is not there")
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


def _add_show(commands: Any) -> argparse.ArgumentParser:
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


def _add_search(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser("search", help="the documents nearest to a text")
  p.add_argument("dataset", metavar="DATASET")
  p.add_argument("text", metavar="TEXT")
  p.add_argument("-k", type=_positive, default=10, metavar="K", help="how many; default: 10")
  p.add_argument("--encoder", metavar="ENCODER_DIR", help="default: where it was when the dataset was made")
  p.add_argument("--json", action="store_true")
  p.set_defaults(run=run_search)
  return p


def _add_verify(commands: Any) -> argparse.ArgumentParser:
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


def _add_publish(commands: Any) -> argparse.ArgumentParser:
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


def _layer(text: str) -> int | str:
  try:
    return text if text == "first-last" else int(text)
  except ValueError:
    raise argparse.ArgumentTypeError(
      f"{text!r} is no layer; write several as --layers 1 2, behind CHECKPOINT and ENCODER_DIR"
    ) from None


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
