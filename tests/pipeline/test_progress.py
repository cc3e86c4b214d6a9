import io
from collections import Counter

import pytest
from rich.console import Console

from pipeline.progress import expected, progress_line, say
from tests.run_parts import make_plan

STAGES = ("reading", "encoding", "writing")


def totals(text_bytes=1000, n_waves=1, **counts):
  return [expected(Counter(counts), stage, text_bytes, n_waves) for stage in STAGES]


def test_nothing_is_known_before_anything_is_read():
  assert totals() == totals(rows_read=5) == totals(text_bytes=0) == [None, None, None]


@pytest.mark.parametrize(
  ("n_waves", "counts", "expected_totals"),
  [
    # A quarter is read: four times what came of it.
    (1, {"bytes_read": 250, "rows_read": 50, "documents_kept": 40}, [200, 160, 160]),
    # All is read; half of the texts seen so far were known.
    (
      1,
      {"bytes_read": 1000, "rows_read": 200, "documents_kept": 190, "texts_seen": 10, "texts_known": 5},
      [200, 95, 190],
    ),
    # Two waves read everything twice, and each keeps its half.
    (2, {"bytes_read": 1000, "rows_read": 200, "documents_kept": 100}, [400, 200, 200]),
    (2, {"bytes_read": 2000, "rows_read": 400, "documents_kept": 200}, [400, 200, 200]),
    # The sizes of compressed files are estimates, and a bundle may run twice: never less than what is done.
    (1, {"bytes_read": 3000, "rows_read": 200, "documents_kept": 200}, [200, 200, 200]),
  ],
)
def test_expected_totals(n_waves, counts, expected_totals):
  assert totals(n_waves=n_waves, **counts) == pytest.approx(expected_totals)


def test_quiet_where_nobody_watches(tmp_path):
  console = Console(file=io.StringIO(), force_terminal=False)
  with progress_line(make_plan(tmp_path), 1000, 1, console):
    pass
  assert console.file.getvalue() == ""


def test_a_line_for_each_stage_on_a_terminal_even_if_the_run_fails(tmp_path):
  console = Console(file=io.StringIO(), force_terminal=True, width=200)
  with pytest.raises(KeyError), progress_line(make_plan(tmp_path), 1000, 1, console):
    raise KeyError
  for unit in ("documents", "texts", "rows"):  # a document may be several rows
    assert f"0 {unit}, " in console.file.getvalue()


def test_what_is_said_goes_to_stderr(capsys):
  say("a line")
  assert capsys.readouterr() == ("", "a line\n")
