"""Draws the tables of benchmarks/README.md from the results in benchmarks/results.

  python -m benchmarks.tables

Each stands between `<!-- NAME -->` and `<!-- /NAME -->` and is replaced; a test holds that the page says what the
results say.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, Timing

PAGE = Path(__file__).parent / "README.md"


def end_to_end(results: Mapping[str, Any]) -> str:
  """Returns a table for each model and corpus: who took what, and how many times as fast as each peer we were."""
  return "\n\n".join([machine_line(results), *(part for run in results["runs"] for part in one_comparison(run))])


def one_comparison(run: Mapping[str, Any]) -> list[str]:
  """Returns the title, the table and the ratios of one model on one corpus."""
  mean = run["tokens"] / run["documents"]
  title = f"**{run['model']}, {run['corpus']}**: {run['documents']:,} documents of {mean:.0f} tokens, "
  title += f"{run['rounds']} rounds"
  if run["products_gflops"]:
    title += "; products " + ", ".join(f"{rate:.0f} GFLOP/s {name}" for name, rate in run["products_gflops"].items())
  header = [
    "",
    "seconds",
    "documents/s",
    "tokens/s",
    "of the limit",
    "batch",
    "Parquet write",
    "whole command",
    "cosine",
  ]
  parts = [title, table(header, map(contender_cells, run["contenders"]))]
  if run["ratios"]:
    parts.append(table(["", *dict.fromkeys(pair["peer"] for pair in run["ratios"])], ratio_rows(run["ratios"])))
  return parts


def contender_cells(row: Mapping[str, Any]) -> list[str]:
  """Returns the cells of one contender."""
  cells = [row["name"], spread(row["seconds"], ".1f"), f"{row['documents_per_second']:,.0f}"]
  cells += [f"{row['tokens_per_second']:,}", optional(row, "share_of_limit", ".0%"), optional(row, "batch_size", "d")]
  cells += [optional(row, "write_seconds", ".2f"), optional(row, "command_seconds", ".1f")]
  return [*cells, optional(row, "lowest_cosine", ".5f")]


def ratio_rows(pairs: Sequence[Mapping[str, Any]]) -> Iterable[list[str]]:
  """Yields a row for each of ours, a cell for each peer."""
  peers = dict.fromkeys(pair["peer"] for pair in pairs)
  for ours in dict.fromkeys(pair["ours"] for pair in pairs):
    found = {pair["peer"]: spread(pair, ".2f") for pair in pairs if pair["ours"] == ours}
    yield [ours, *(found.get(peer, "") for peer in peers)]


def encoder(results: Mapping[str, Any]) -> str:
  """Returns what frozen encoders take of the limit, in each precision."""
  rows = [
    encoder_cells(precision, max(results[precision]["products_gflops"].values()), row)
    for precision in ("float32", "bfloat16")
    for row in results.get(precision, {}).get("encoders", [])
  ]
  header = ["encoder", "corpus", "precision", "callers", "tokens/s", "padding", "products, GFLOP/s", "of the limit"]
  return f"{machine_line(results)}\n\n{table(header, rows)}"


def encoder_cells(precision: str, limit: float, row: Mapping[str, Any]) -> list[str]:
  """Returns the cells of one encoder on one corpus."""
  rate = f"{row['tokens_per_second']:,} ({row['lowest']:,} to {row['highest']:,})"
  cells = [row["encoder"], row["corpus"], precision, str(row["callers"]), rate, f"{row['padding']:.1%}"]
  return [*cells, f"{limit:.0f}", f"{row['share_of_limit']:.0%}"]


def operations(results: Mapping[str, Any]) -> str:
  """Returns what part of a batch's time each kind of operation takes, in each precision."""
  by_precision = results["shares"]
  kinds = next(iter(by_precision.values()))
  rows = [[kind, *(f"{of_kind[kind]:.0%}" for of_kind in by_precision.values())] for kind in kinds]
  return f"{machine_line(results)}\n\n{table(['', *by_precision], rows)}"


def stages(results: Mapping[str, Any]) -> str:
  """Returns what part of a run's time each stage takes."""
  rows = [[stage, f"{share:.1%}"] for stage, share in results["share"].items()]
  header = [f"{results['read']:,} documents, {results['seconds']:.1f} s", "share"]
  return f"{machine_line(results)}\n\n{table(header, rows)}"


def whitening(results: Mapping[str, Any]) -> str:
  """Returns what each way of whitening takes."""
  rows = [
    [name, f"{row['vectors']:,}", spread(row["seconds"], ".2f"), f"{row['of_these_fit']:.2f}", f"{row['memory_mb']:,}"]
    for name, row in results["rivals"].items()
  ]
  return f"{machine_line(results)}\n\n{table(['', 'vectors', 'seconds', 'of these fit', 'memory, MB'], rows)}"


def start_up(results: Mapping[str, Any]) -> str:
  """Returns what each start takes, and its imports alone."""
  rows = [[row["name"], spread(row["seconds"], ".2f"), spread(row["imports"], ".2f")] for row in results["rows"]]
  rows.insert(0, ["Python itself", spread(results["python_itself"], ".2f"), ""])
  return f"{machine_line(results)}\n\n{table(['', 'seconds', 'of it imports'], rows)}"


def estimate(results: Mapping[str, Any]) -> str:
  """Returns what `sorbus estimate` said of each corpus, what the run took, and how far apart they were."""
  header = [
    "corpus",
    "precision",
    "rounds",
    "estimate, seconds",
    "run, seconds",
    "estimate / run",
    "documents",
    "tokens",
  ]
  return f"{machine_line(results)}\n\n{table(header, map(estimate_cells, results['runs']))}"


def estimate_cells(run: Mapping[str, Any]) -> list[str]:
  """Returns the cells of one corpus; of documents and tokens the ratios alone."""
  rounds = run["rounds"]
  sides = [asdict(Timing.of([each["seconds"][side] for each in rounds])) for side in (0, 1)]
  ratios = {
    what: asdict(Timing.of([each[what][0] / each[what][1] for each in rounds]))
    for what in ("seconds", "documents", "tokens")
  }
  cells = [run["corpus"], run["precision"], str(len(rounds)), *(spread(side, ".1f") for side in sides)]
  return [
    *cells,
    spread(ratios["seconds"], ".2f"),
    *(f"{ratios[what]['median']:.2f}" for what in ("documents", "tokens")),
  ]


def sweep(results: Mapping[str, Any]) -> str:
  """Returns what a sweep takes of each checkpoint, beside one pass over the same texts."""
  rows = [
    [
      name,
      f"{row['texts']:,}",
      str(row["lines"]),
      *(spread(row[what], ".2f") for what in ("pass", "sweep", "of_these_scores", "ratio")),
    ]
    for name, row in results["checkpoints"].items()
  ]
  header = ["checkpoint", "texts", "lines", "pass, seconds", "sweep, seconds", "of it scoring", "sweep / pass"]
  return f"{machine_line(results)}\n\n{table(header, rows)}"


def night(results: Mapping[str, Any]) -> str:
  """Returns what a night takes, and its share of a full run."""
  row = [f"{results['documents']:,}", f"{results['full_run_seconds']:.1f}", spread(results["night_seconds"], ".2f")]
  row.append(f"{results['share_of_a_full_run']:.1%}")
  header = ["documents", "full run, seconds", "a night with 1 % changed", "share"]
  return f"{machine_line(results)}\n\n{table(header, [row])}"


def memory(results: Mapping[str, Any]) -> str:
  """Returns the peak of each size."""
  header = ["text, MB", "documents", "budget, MB", "peak, MB", "waves", "seconds"]
  names = ("text_mb", "documents", "budget_mb", "peak_mb", "waves", "seconds")
  runs = [run for run in results["runs"] if run["bounded_allocators"]]
  return table(header, [[f"{run[name]:,}" for name in names] for run in runs])


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
  "end_to_end": end_to_end,
  "encoder": encoder,
  "operations": operations,
  "stages": stages,
  "whitening": whitening,
  "start_up": start_up,
  "estimate": estimate,
  "sweep": sweep,
  "night": night,
  "memory": memory,
}


def machine_line(results: Mapping[str, Any]) -> str:
  """Returns on what machine they were seen."""
  seen = results["machine"]
  extra = f", {' '.join(seen['bfloat16'])}" if seen["bfloat16"] else ""
  return f"{seen['cores']} cores of {seen['processor']}{extra}, {seen['memory_gb']} GB, Python {seen['python']}."


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Returns a Markdown table."""
  lines = [header, ["---"] * len(header), *rows]
  return "\n".join(f"|{''.join(f' {cell} |' if cell else ' |' for cell in line)}" for line in lines)


def spread(timing: Mapping[str, float], form: str) -> str:
  """Returns the median, and what was the lowest and the highest."""
  return f"{timing['median']:{form}} ({timing['low']:{form}} to {timing['high']:{form}})"


def optional(row: Mapping[str, Any], name: str, form: str) -> str:
  """Returns a figure, or nothing where it was not measured."""
  return "" if row.get(name) is None else f"{row[name]:{form}}"


def drawn(page: str) -> str:
  """Returns the page with all its tables as the results have them."""
  for name, draw in TABLES.items():
    path = RESULTS / f"{name}.json"
    content = draw(json.loads(path.read_text())) if path.exists() else "Not measured yet."
    between = f"<!-- {name} -->\n\n{content}\n\n<!-- /{name} -->"
    page = re.sub(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _, between=between: between, page, flags=re.DOTALL)
  return page


def main() -> None:
  """Rewrites the page."""
  PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
  main()
