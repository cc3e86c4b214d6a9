"""Say what a sweep found: a table of the best for people, and every line as CSV."""

import csv
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.show_evaluation import left_out, number
from transforms.errors import UsageError, printable

_TOP = 20
_PLOTS = (".svg", ".png")


def check_targets(csv_path: str | None, plot_path: str | None) -> None:
  """Raises UsageError for a file that cannot be written, or drawn, before a sweep takes its time."""
  for option, path in (("--csv", csv_path), ("--plot", plot_path)):
    if path is not None and not Path(path).parent.is_dir():
      raise UsageError(f"{option} {path}: there is no folder {Path(path).parent}; make it, or give another")
  if plot_path is not None and Path(plot_path).suffix not in _PLOTS:
    raise UsageError(f"--plot {plot_path}: its ending says what is drawn; give one of {', '.join(_PLOTS)}")


def show_sweep(found: Mapping[str, Any], console: Console) -> None:
  """Prints the best lines of what `run_sweep` returned, and how to get the very best."""
  lines = found["lines"]
  scores = ("AUC",) if found["binary"] else ("Pearson",)
  right = [Column(name, justify="right") for name in ("K", "Spearman", *scores)]
  table = Table("layers", "pooling", *right, "", box=None)
  for i, line in enumerate(lines[:_TOP]):
    score = number(line["auc" if found["binary"] else "pearson"])
    cells = (layers(line), line["pooling"], _components(line), number(line["spearman"]), score, "" if i else "best")
    table.add_row(*cells, style="" if i else "bold")
  console.print(table)
  for text in _notes(found):
    console.print(Text(printable(text)), soft_wrap=True)


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
  lines, seconds = found["lines"], found["seconds"]
  if len(lines) > _TOP:
    yield f"the best {_TOP} of {len(lines)} combinations; --csv FILE has them all"
  yield f"{found['pairs']:,} pairs of {found['file']}, {found['texts']:,} distinct texts{left_out(found)}"
  yield "K: components of a whitening fitted on these texts; none: raw vectors"
  yield f"one pass over the texts {seconds['encode']:.1f} s, scoring {seconds['score']:.1f} s"
  best = lines[0]
  whitening = "--whitening none" if best["n_components"] is None else f"--n-components {best['n_components']}"
  yield f"the best: {freeze_command(found, best)}; then embed with {whitening}"


def freeze_command(found: Mapping[str, Any], line: Mapping[str, Any]) -> str:
  """Returns the command that freezes what a line is of, as the sweep read the checkpoint."""
  numbers = "" if line["pooling"] == "pooler" else f" --layers {layers(line)}"
  return f"sorbus freeze {shlex.quote(found['checkpoint'])} ENCODER_DIR --pooling {line['pooling']}{numbers}" + "".join(
    f" {_flag(name, value)}" for name, value in found["options"].items()
  )


def _flag(name: str, value: Any) -> str:
  flag = name.replace("_", "-")
  return f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag} {shlex.quote(str(value))}"


def layers(line: Mapping[str, Any]) -> str:
  """Returns a line's layers as `sorbus freeze --layers` takes them."""
  return " ".join(map(str, line["layers"]))


def _components(line: Mapping[str, Any]) -> str:
  return "none" if line["n_components"] is None else str(line["n_components"])


def write_csv(found: Mapping[str, Any], path: str) -> None:
  """Writes every line, the best first."""
  names = ["layers", "pooling", "n_components", "spearman", "pearson"]
  names += ["auc", "accuracy", "accuracy_at", "f1", "f1_at"] if found["binary"] else []
  with Path(path).open("w", encoding="utf-8", newline="") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for line in found["lines"]:
      flat = line | {"layers": layers(line), "n_components": _components(line)}
      for name in ("accuracy", "f1") if found["binary"] else ():
        flat |= {name: line[name]["value"], f"{name}_at": line[name]["at"]}
      writer.writerow([flat[name] for name in names])
