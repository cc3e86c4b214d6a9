"""What `sorbus gc` says of a plan and of what came of it."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.collect_garbage import Collected, GarbagePlan
from pipeline.raw_garbage import RawPlan
from pipeline.show_garbage import damaged_files, describe_garbage, final_line, show_plan
from tests.made_nights import FINGERPRINT, H
from transforms.raw_store import RawStore
from transforms.raw_waste import RawFile
from transforms.storage import Storage

EMPTY = GarbagePlan(published=None, kept=(), removed=(), unfinished=(), hidden=(), run_bytes=0, encoders={}, raw=())
RAW = RawPlan(
  store=RawStore(Storage("/x"), FINGERPRINT, H),
  bits=1,
  documents=(),
  rewrite=(RawFile("0-r1-a", 5000, 100, 40, None), RawFile("all-r2-b", 1000, 10, 0, "g")),
  marked=("1-r3-c",),
  marked_bytes=7,
  damaged={"x": "x: damaged"},
)
FULL = GarbagePlan(
  published="r9",
  kept=("r8", "r9"),
  removed=("r1", "r2", "r3", "r4"),
  unfinished=("r5",),
  hidden=("runs/.tmp-1",),
  run_bytes=1000,
  encoders={"cd" * 32: 500},
  raw=(RAW,),
)
ONLY_RUNS = replace(FULL, hidden=(), encoders={}, raw=())
DONE = Collected(written=1, removed=1, rows_dropped=40, bytes_freed=123_456, damaged={"y": "y: damaged"})


def printed(plan):
  console = Console(file=io.StringIO(), width=200)
  show_plan(plan, console)
  return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_the_table_says_what_goes_and_what_stays():
  assert printed(FULL) == [
    "what number",
    "runs kept 2 r9 is published",
    "runs removed 4 r1, r2, r3 and 1 more",
    "unfinished runs removed 1 r5",
    "half-written files removed 1",
    "encoders without a run removed 1 cdcdcdcdcdcd",
    "raw files rewritten 2 6.0 kB, merged where small",
    "rows of these dropped 40 no kept run has the text, or another file has",
    "damaged raw files removed 1 with their marks",
  ]
  assert printed(EMPTY) == ["what number", "runs kept 0 none is published"]


def test_sums():
  assert FULL.bytes_freed == 1000 + 500 + 7 + 2000
  assert FULL.bytes_read == 5000 + 2 * 1000  # the coarse file once for each of its ranges


@pytest.mark.parametrize(
  ("plan", "done", "line"),
  [
    (FULL, None, "would free about 3.5 kB; nothing was changed"),
    (FULL, DONE, "freed 123.5 kB: 5 runs removed, 1 raw file became 1, 40 rows dropped"),
    (EMPTY, None, "would free nothing: every run and file is still needed"),
    (ONLY_RUNS, Collected(bytes_freed=1000), "freed 1.0 kB: 5 runs removed"),
    (EMPTY, Collected(), "freed nothing: every run and file is still needed"),
    (EMPTY, Collected(removed=2, rows_dropped=1), "freed 0 bytes: 0 runs removed, 2 raw files removed, 1 row dropped"),
  ],
)
def test_the_final_line(plan, done, line):
  assert final_line(plan, done) == line


def test_json():
  assert damaged_files(FULL, None) == {"x": "x: damaged"}
  assert describe_garbage(FULL, DONE) == {
    "status": "done",
    "published": "r9",
    "runs": {"kept": ["r8", "r9"], "removed": ["r1", "r2", "r3", "r4"], "unfinished": ["r5"]},
    "half_written_files": 1,
    "encoders_removed": ["cd" * 32],
    "raw": {
      "rewritten": 2,
      "written": 1,
      "rows_dropped": 40,
      "damaged": {"x": "x: damaged", "y": "y: damaged"},
    },
    "bytes_freed": 123_456,
  }
  planned = describe_garbage(FULL, None)
  assert (planned["status"], planned["bytes_freed"], planned["raw"]["written"]) == ("planned", 3507, None)
