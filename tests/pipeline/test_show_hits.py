import io
import json

from rich.console import Console

from pipeline.search import Hit
from pipeline.show_hits import hits_to_json, show_hits

HITS = [
  Hit(0.98765, "a#0", {"title": "[red]two\nlines\x1b[31m", "n": None}),
  Hit(0.5, "b", {"title": "x" * 400, "n": 1}),
]


def test_a_table_has_one_line_a_hit_and_nothing_that_a_terminal_obeys():
  console = Console(file=io.StringIO(), width=1000)
  show_hits(HITS, console)
  lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
  assert lines == ["score doc_id title n", r"0.9877 a#0 [red]two lines\x1b[31m", f"0.5000 b {'x' * 299}… 1"]


def test_labels_are_shown_where_the_encoder_has_some():
  console = Console(file=io.StringIO(), width=1000)
  hits = [Hit(1.0, "a", {}, ("joy", "pride")), Hit(0.5, "b", {}, ())]
  show_hits(hits, console)
  lines = [line.split() for line in console.file.getvalue().splitlines()]
  assert lines == [["score", "doc_id", "labels"], ["1.0000", "a", "joy,", "pride"], ["0.5000", "b"]]
  assert [hit["labels"] for hit in json.loads(hits_to_json(hits))] == [["joy", "pride"], []]


def test_no_hits_are_a_table_without_rows():
  console = Console(file=io.StringIO())
  show_hits([], console)
  assert console.file.getvalue().split() == ["score", "doc_id"]


def test_json_has_no_nan():
  hit = Hit(1.0, "白", {"a": float("nan"), "b": {"c": float("inf")}, "d": 2.5})
  text = hits_to_json([hit])
  assert json.loads(text) == [{"doc_id": "白", "score": 1.0, "kept": {"a": None, "b": {"c": None}, "d": 2.5}}]
  assert "白" in text
