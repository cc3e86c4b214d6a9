"""Say what an evaluation found, for people: a table, what it is of, and a verdict an encoder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.show_model import readout_words
from transforms.errors import printable

# Components up to which the share of the variance is told.
_AT = (1, 10, 100)


def show_evaluation(found: Mapping[str, Any], console: Console) -> None:
  """Prints what `evaluate_pairs` or `evaluate_corpus` returned."""
  console.print(_pairs_table(found) if found["kind"] == "pairs" else _corpus_table(found))
  for line in _notes(found):
    console.print(Text(printable(line)), soft_wrap=True)


def _pairs_table(found: Mapping[str, Any]) -> Table:
  names = ["Spearman", *(["AUC", "accuracy", "F1"] if found["binary"] else ["Pearson"])]  # of labels the JSON has it
  table = _table(*names, "")
  rows = [(encoder, kind) for encoder in found["encoders"] for kind in ("raw", "whitened") if encoder[kind]]
  best = max((encoder[kind]["spearman"] or -1.0 for encoder, kind in rows), default=None)
  for encoder, kind in rows:
    scores = encoder[kind]
    is_best = scores["spearman"] == best and len(rows) > 1
    cells = (*_named(encoder, kind), *_scores(scores, found["binary"]), "*" if is_best else "")
    table.add_row(*cells, style="bold" if is_best else "")
  return table


def _scores(scores: Mapping[str, Any], binary: bool) -> Iterator[str]:
  yield number(scores["spearman"])
  if not binary:
    yield number(scores["pearson"])
    return
  yield number(scores["auc"])
  for name in ("accuracy", "f1"):
    yield f"{scores[name]['value']:.3f} at {scores[name]['at']:.2f}"


def _corpus_table(found: Mapping[str, Any]) -> Table:
  table = _table("mean cosine", "eff. rank", "rank", "condition", "recall@10")
  for encoder in found["encoders"]:
    for kind in ("raw", "whitened"):
      if values := encoder[kind]:
        table.add_row(*_named(encoder, kind), *_isotropy(values))
  return table


def _isotropy(values: Mapping[str, Any]) -> Iterator[str]:
  yield number(values["mean_cosine"])
  yield f"{values['effective_rank']:.1f}" if values["effective_rank"] else "-"
  yield str(values["rank"])
  yield f"{values['condition_number']:,.0f}" if values["condition_number"] else "-"
  yield number(values.get("recall_at_10"))


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
  for encoder in found["encoders"]:
    yield f"{encoder['encoder']}: {readout_words(encoder)}, {encoder['precision']}"
    texts = f"{encoder['texts']:,} distinct texts"
    if found["kind"] == "pairs":
      yield f"{encoder['pairs']:,} pairs of {found['pairs']}, {texts}{left_out(encoder)}"
    else:
      yield f"{texts}{left_out(encoder)}; {_spectrum(encoder['raw']['spectrum'])}"
    if whitened := encoder["whitened"]:
      yield _whitening(whitened)
    yield encoder["verdict"]


def left_out(counts: Mapping[str, Any]) -> str:
  """Returns what was left out, or cut off, as the end of a sentence; nothing if nothing was."""
  without = f"; {counts['left_out']:,} left out, as a text has no token" if counts["left_out"] else ""
  return f"{without}; {counts['truncated']:,} texts truncated" if counts["truncated"] else without


def _whitening(whitened: Mapping[str, Any]) -> str:
  kept = whitened["kept_variance"]
  share = f"; its {whitened['n_components']} components keep {kept:.1%} of the variance" if kept is not None else ""
  source = f"fitted on {whitened['fitted_on']}" if whitened["fitted_on"] else f"of {whitened['loaded_from']}"
  return f"whitening {source}{share}"


def _spectrum(spectrum: Sequence[float]) -> str:
  shares = [f"{sum(spectrum[:n]) / (sum(spectrum) or 1):.1%} in {n}" for n in _AT if n < len(spectrum)]
  return f"variance of raw vectors in the first components: {', '.join(shares)}"


def _named(encoder: Mapping[str, Any], kind: str) -> tuple[Text, str, str]:
  name = PurePosixPath(encoder["encoder"]).name  # the whole path stands below
  return Text(printable(name)), kind, str(encoder[kind]["n_components"])


def number(value: float | None) -> str:
  """Returns a correlation or share as people read it; what could not be told is a dash."""
  return "-" if value is None else f"{value:.4f}"


def _table(*numbers: str) -> Table:
  right = [Column(name, justify="right", no_wrap=True) for name in ("K", *numbers)]
  return Table(Column("encoder", overflow="fold"), Column("", no_wrap=True), *right, box=None)
