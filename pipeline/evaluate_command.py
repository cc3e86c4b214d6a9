"""What `sorbus evaluate` does with its flags. Like `commands.py`, it imports what it needs when it runs."""

import json
from typing import Any

from transforms.errors import UsageError

# Of a corpus: all are compared with all, so time grows with the square; memory does not.
SAMPLE_TEXTS = 3000
# Which files a checkpoint has, and how texts are tokenised for it, in the words of FreezeOptions.
_OF_CHECKPOINTS = (
  *("bert_config", "vocab", "activation", "max_seq_length"),
  *("lowercase", "strip_accents", "tokenize_chinese_chars"),
)


def run_evaluate(args: Any) -> int:
  """Says how good encoders are, as a table or as JSON."""
  if (args.pairs is None) == (args.corpus is None):
    raise UsageError("give either --pairs FILE, with scores, or --corpus GLOB, without (`sorbus evaluate --help`)")
  _refuse_idle(args)
  return _sweep(args) if args.sweep else _evaluate(args)


def _evaluate(args: Any) -> int:
  from rich.console import Console

  from pipeline.show_evaluation import show_evaluation

  found = _on_corpus(args) if args.pairs is None else _on_pairs(args)
  if args.json:
    print(json.dumps(found, indent=2))
  else:
    show_evaluation(found, Console())
  return 0


def _sweep(args: Any) -> int:
  from rich.console import Console

  from pipeline.model.freeze import FreezeOptions
  from pipeline.progress import say
  from pipeline.show_sweep import check_targets, show_sweep, write_csv
  from pipeline.sweep import run_sweep

  check_targets(args.csv, args.plot)
  options = FreezeOptions(**{name: getattr(args, name) for name in _OF_CHECKPOINTS})
  found = run_sweep(args.encoders[0], _read_pairs(args), options, args.n_components, say)
  if args.csv:
    write_csv(found, args.csv)
  if args.plot:
    from pipeline.plot_sweep import plot_sweep

    plot_sweep(found, args.plot)
  if args.json:
    print(json.dumps(found, indent=2))
  else:
    show_sweep(found, Console())
  return 0


def _refuse_idle(args: Any) -> None:
  """Raises UsageError for an option that says nothing about what is done."""
  _refuse(
    args,
    "--pairs" if args.pairs is None else "--corpus",
    ("columns", "format") if args.pairs is None else ("no_header",),
  )
  if not args.sweep:
    _refuse(args, "--sweep", ("csv", "plot", *_OF_CHECKPOINTS))
    return
  if args.pairs is None or len(args.encoders) > 1:
    raise UsageError("--sweep: takes one checkpoint and --pairs FILE; give these")
  if args.fit_on or args.whitening != "fit" or args.precision != "float32" or isinstance(args.n_components, float):
    raise UsageError(
      "--sweep: every combination has a whitening of its own, fitted on the pairs, in float32; leave --whitening, "
      "--fit-on and --precision out, and give --n-components as a whole number"
    )


def _refuse(args: Any, where: str, names: tuple[str, ...]) -> None:
  for name in names:
    if getattr(args, name) not in (None, False):
      raise UsageError(f"--{name.replace('_', '-')} is for {where}; leave it out")


def _on_pairs(args: Any) -> dict[str, Any]:
  from pipeline.evaluate import evaluate_pairs
  from pipeline.progress import say

  return evaluate_pairs(args.encoders, _read_pairs(args), _whitening_options(args), say)


def _read_pairs(args: Any) -> Any:
  import numpy as np

  from transforms.pairs import read_pairs

  pairs = read_pairs(args.pairs, args.columns, args.format)
  if args.sample is None or args.sample >= len(pairs):
    return pairs
  return pairs.select(np.sort(np.random.default_rng(0).permutation(len(pairs))[: args.sample]))


def _on_corpus(args: Any) -> dict[str, Any]:
  from pipeline.evaluate import evaluate_corpus
  from pipeline.progress import say
  from transforms.corpus_sample import sample_texts
  from transforms.input_types import ReadOptions

  options = _whitening_options(args)  # first: a mistake should not wait for the corpus to be read
  read = ReadOptions(text_columns=tuple(args.text_column), header=not args.no_header)
  return evaluate_corpus(args.encoders, sample_texts(args.corpus, read, args.sample or SAMPLE_TEXTS), options, say)


def _whitening_options(args: Any) -> Any:
  from pipeline.evaluate import WhiteningOptions

  names = ("whitening", "fit_on", "n_components", "precision")
  return WhiteningOptions(**{name: getattr(args, name) for name in names})
