import pytest

import benchmarks.tables
from benchmarks.tables import PAGE, TABLES, drawn, spread, table


def test_the_page_has_the_tables_of_the_results():
  page = PAGE.read_text(encoding="utf-8")
  assert drawn(page) == page, "python -m benchmarks.tables"


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_a_place_for_each(name):
  assert PAGE.read_text(encoding="utf-8").count(f"<!-- {name} -->") == 1


def test_a_result_replaces_what_stood_there_and_nothing_else(tmp_path, monkeypatch):
  monkeypatch.setattr(benchmarks.tables, "RESULTS", tmp_path)
  (tmp_path / "memory.json").write_text(
    '{"runs": [{"bounded_allocators": true, "text_mb": 50, "documents": 1000, "budget_mb": 900, "peak_mb": 800,'
    ' "waves": 2, "seconds": 1.5}, {"bounded_allocators": false}]}'
  )
  page = "a\n\n<!-- memory -->\nold | old\n<!-- /memory -->\n\nb <!-- night -->\n<!-- /night -->"
  head = "| text, MB | documents | budget, MB | peak, MB | waves | seconds |\n| --- | --- | --- | --- | --- | --- |"
  rows = "| 50 | 1,000 | 900 | 800 | 2 | 1.5 |"
  nothing = "<!-- night -->\n\nNot measured yet.\n\n<!-- /night -->"
  expected = f"a\n\n<!-- memory -->\n\n{head}\n{rows}\n\n<!-- /memory -->\n\nb {nothing}"
  assert drawn(page) == expected and drawn(expected) == expected


def test_a_comparison_has_a_row_for_each_and_a_ratio_for_each_pair():
  seconds = {"median": 2.0, "low": 1.0, "high": 3.0}
  ours = {"name": "ours", "seconds": seconds, "documents_per_second": 5.0, "tokens_per_second": 1234}
  ours |= {"share_of_limit": 0.876, "batch_size": None, "write_seconds": None, "command_seconds": 9.0}
  run = {"model": "m", "corpus": "c", "documents": 10, "tokens": 2468, "rounds": 3, "contenders": [ours]}
  run |= {"products_gflops": {"float32": 170.4}}
  run |= {"ratios": [{"ours": "ours", "peer": peer, "median": 1.5, "low": 1.0, "high": 2.0} for peer in ("p", "q")]}
  run["ratios"].append({"ours": "also ours", "peer": "q", "median": 3.0, "low": 3.0, "high": 3.0})
  title, contenders, ratios = benchmarks.tables.one_comparison(run)
  assert title == "**m, c**: 10 documents of 247 tokens, 3 rounds; products 170 GFLOP/s float32"
  assert contenders.splitlines()[2] == "| ours | 2.0 (1.0 to 3.0) | 5 | 1,234 | 88% | | | 9.0 | |"
  assert ratios.splitlines()[0] == "| | p | q |"
  assert ratios.splitlines()[2:] == [
    "| ours | 1.50 (1.00 to 2.00) | 1.50 (1.00 to 2.00) |",
    "| also ours | | 3.00 (3.00 to 3.00) |",
  ]


def test_tables_and_spreads():
  assert table(["a", "b"], [["1", ""], ["", ""]]) == "| a | b |\n| --- | --- |\n| 1 | |\n| | |"
  assert spread({"median": 1.25, "low": 1, "high": 2}, ".1f") == "1.2 (1.0 to 2.0)"


def test_an_estimate_is_held_against_its_run_round_by_round():
  rounds = [
    {"seconds": [20, 40], "documents": [90, 100], "tokens": [100, 100]},
    {"seconds": [30, 30], "documents": [100, 100], "tokens": [110, 100]},
    {"seconds": [44, 40], "documents": [110, 100], "tokens": [130, 100]},
  ]
  cells = benchmarks.tables.estimate_cells({"corpus": "c", "precision": "float32", "rounds": rounds})
  assert cells[:3] == ["c", "float32", "3"]
  assert cells[3:] == ["30.0 (20.0 to 44.0)", "40.0 (30.0 to 40.0)", "1.00 (0.50 to 1.10)", "1.00", "1.10"]
