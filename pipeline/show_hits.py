"""Say what a search found: a table for people, JSON for programs."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.search import Hit
from transforms.errors import printable


def hits_to_json(hits: Sequence[Hit]) -> str:
  """Returns what `sorbus search --json` prints."""
  values = [{name: value for name, value in asdict(hit).items() if (name, value) != ("labels", None)} for hit in hits]
  return json.dumps([_json_value(value) for value in values], indent=2, ensure_ascii=False, default=str)


def show_hits(hits: Sequence[Hit], console: Console) -> None:
  """Prints scores, ids, labels where there are some, and kept columns, the nearest first."""
  table = Table(
    "score",
    Column("doc_id", overflow="fold"),
    *(["labels"] if hits and hits[0].labels is not None else []),
    *(Column(_shown(name)) for name in (hits[0].kept if hits else ())),
    box=None,
  )
  for hit in hits:
    ours = [_shown(", ".join(hit.labels))] if hit.labels is not None else []
    table.add_row(f"{hit.score:.4f}", _shown(hit.doc_id), *ours, *(_shown(value) for value in hit.kept.values()))
  console.print(table)


def _shown(value: Any) -> Text:
  """Returns a value as one short line: no markup is read in it, and no control character reaches the terminal."""
  text = " ".join(str("" if value is None else value).split())
  text = text if len(text) <= 300 else f"{text[:299]}…"
  return Text(printable(text))


def _json_value(value: Any) -> Any:
  """Returns a value without NaN and infinity, which JSON has not: they become null."""
  if isinstance(value, dict):
    return {key: _json_value(item) for key, item in value.items()}
  return None if isinstance(value, float) and not math.isfinite(value) else value
