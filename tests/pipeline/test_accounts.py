import pytest

from pipeline.accounts import count_by_input, count_changes, describe_changes, find_unaccounted
from pipeline.publish_plan import PublishPlan
from tests.run_parts import FILES, H, make_plan
from transforms.base_run import BaseRun
from transforms.records import BucketRecord, ChangesRecord, ComparedRecord, Records, SliceRecord, WrittenRecord
from transforms.storage import StoredFile
from transforms.whitening import Whitening
from transforms.write_vectors import NoWhitening

FILE = StoredFile("runs/r1/x", 1, 1, "f" * 64)
WHITENING = Whitening.none(H)
COUNTS = {"read": 10, "written": 8, "rejected": {"null": 1, "no tokens": 1}, "new": 5, "changed": 1, "unchanged": 2}
INPUTS = [("a", {"read": 7, "written": 5, "rejected": 2}), ("b", {"read": 3, "written": 3, "rejected": 0})]


def read(file, wave, documents, rejected, begin=0):
  return SliceRecord(file, begin, wave, documents, {"null": rejected} if rejected else {}, (), None, 0.0)


def test_slices_and_waves_of_one_file_add_up_and_late_rejects_go_to_their_file():
  bucket = BucketRecord(0, FILE, (), 0, 0, 0, 0, 0, 0, {"encoder failed": 3}, (), 0.0, {"a.txt": 2, "c.txt": 1})
  records = Records.of(
    [
      *(read(0, 0, 5, 2), read(0, 0, 4, 1, begin=64), read(0, 1, 6, 0), read(2, 1, 3, 0)),
      *(bucket, WrittenRecord((13, 0, 2))),
    ]
  )
  assert count_by_input(FILES, records) == [
    {"read": 18, "written": 13, "rejected": 5},
    {"read": 0, "written": 0, "rejected": 0},
    {"read": 3, "written": 2, "rejected": 1},
  ]
  assert count_by_input(FILES, Records()) == [{"read": 0, "written": 0, "rejected": 0}] * 3


def test_changes_are_counted_over_parts_and_ranges():
  records = [ChangesRecord(0, FILE, 1, 2, 3), ChangesRecord(1, FILE, 10, 20, 30)]
  records += [ComparedRecord(0, 100, None), ComparedRecord(1, 200, None)]
  assert count_changes(Records.of(records)) == {"new": 11, "changed": 22, "unchanged": 300, "gone": 33}
  assert count_changes(Records()) == {"new": 0, "changed": 0, "unchanged": 0, "gone": 0}


@pytest.mark.parametrize(
  ("base", "problem", "found", "expected"),
  [
    (None, None, [None], {"against": None, "problem": None}),
    ("r0", None, [None, None], {"against": "r0", "problem": None}),
    ("r0", None, [None, "x: gone", "y: gone"], {"against": "r0", "problem": "x: gone"}),
    (None, "manifest damaged", [None], {"against": None, "problem": "manifest damaged"}),
  ],
)
def test_against_what_and_with_which_problem(tmp_path, base, problem, found, expected):
  run = BaseRun(base, "e", "w", ()) if base else None
  plan = PublishPlan(
    run=make_plan(tmp_path),
    base=1,
    base_run=run,
    base_problem=problem,
    max_rejected=0,
    started="",
    options={},
    encoder={},
    whitening="fit",
  )
  records = Records.of([ComparedRecord(i, 0, why) for i, why in enumerate(found)])
  assert describe_changes(plan, records, WHITENING) == expected
  assert describe_changes(plan, records, NoWhitening("too few")) is None


@pytest.mark.parametrize(
  ("counts", "first", "wrong"),
  [
    ({}, {}, None),
    ({"read": 11}, {}, "11 read are not 8 written + 2 rejected"),
    ({"rejected": {}}, {}, "10 read are not 8 written + 0 rejected"),
    ({"new": 4}, {}, "8 written are not 4 new + 1 changed + 2 unchanged"),
    ({}, {"read": 8}, "a: 8 read are not 5 written + 2 rejected"),
    ({}, {"read": 8, "written": 6}, "11 read over all files are not 10"),
    ({}, {"written": 4, "rejected": 3}, "7 written over all files are not 8"),
  ],
)
def test_each_sum_that_does_not_come_out_is_said(counts, first, wrong):
  inputs = [("a", INPUTS[0][1] | first), INPUTS[1]]
  assert find_unaccounted(COUNTS | counts, inputs) == wrong
