"""The gates on what the encoder did; those on documents and rows are in test_publish.py, in a run."""

import pyarrow as pa
import pytest

from pipeline.gates import judge
from pipeline.publish_plan import MeasuredSelfTest, PublishPlan
from tests.run_parts import make_plan
from transforms.long_texts import LongTexts
from transforms.records import Records, SliceRecord
from transforms.text_chunks import CHUNK_COLUMNS
from transforms.write_vectors import NoWhitening


def verdicts(folder, read=1000, rejected=None, **fields):
  values = {"base": 0, "max_rejected": 1.0, "started": "", "options": {}, "encoder": {}, "whitening": "fit"}
  plan = PublishPlan(run=make_plan(folder), **values | fields)
  counts = {"read": read, "rejected": rejected or {}, "written": read - sum((rejected or {}).values())}
  return judge(plan, counts, Records.of([]), NoWhitening("none"))


@pytest.mark.parametrize(
  ("read", "rejected", "max_broken", "passed"),
  [
    (10_000, {}, 0.0, True),
    (10_000, {"encoder failed": 1}, 0.0, False),
    (10_000, {"encoder failed": 5, "vector not finite": 3, "zero vector": 2}, 0.001, True),
    (10_000, {"encoder failed": 5, "vector not finite": 3, "zero vector": 3}, 0.001, False),
    (60, {"encoder failed": 1}, 0.001, True),  # one text is no broken encoder
    (60, {"encoder failed": 1, "zero vector": 1}, 0.001, False),
    (100, {"vector not finite": 7}, 0.07, True),
    (100, {"null": 50, "no tokens": 50}, 0.0, True),  # what the texts are to blame for
  ],
)
def test_documents_that_the_encoder_failed_on(tmp_path, read, rejected, max_broken, passed):
  assert verdicts(tmp_path, read, rejected, max_broken=max_broken)["vectors"]["passed"] is passed


def test_the_finding_says_how_many_of_what_and_what_to_do(tmp_path):
  found = verdicts(tmp_path, 200, {"null": 9, "vector not finite": 3, "zero vector": 1})["vectors"]["finding"]
  assert found == (
    "4 of 200 documents without a usable vector (2.00%, 3 vector not finite, 1 zero vector), 0.10% or one document "
    "allowed; this is the encoder's doing rather than the texts': `sorbus show` of its folder tests it; mend it and "
    "embed again with --replay r1, or raise --max-broken"
  )
  assert verdicts(tmp_path, 200, max_broken=0.0)["vectors"]["finding"] == (
    "0 of 200 documents without a usable vector (0.00%), none allowed"
  )


def test_findings_write_numbers_as_the_tables_do(tmp_path):
  found = verdicts(tmp_path, 20_000, {"null": 1234})
  assert found["rejected"]["finding"].startswith("1,234 of 20,000 documents rejected (6.17%), ")
  assert found["documents"]["finding"] == "20,000 documents read"


@pytest.mark.parametrize(("error", "passed"), [(0.0, True), (1e-4, True), (1.1e-4, False), (float("nan"), False)])
def test_the_self_test(tmp_path, error, passed):
  verdict = verdicts(tmp_path, self_test=MeasuredSelfTest(error, 1e-4))["self-test"]
  assert verdict["passed"] is passed
  start = f"the encoder's self-test is off by {error:.3g}, 0.0001 allowed"
  assert verdict["finding"].startswith(start) and (verdict["finding"] == start) is passed


def test_no_remedy_for_bfloat16_is_to_do_without_it(tmp_path):
  finding = verdicts(tmp_path, self_test=MeasuredSelfTest(2e-4, 1e-4, "bfloat16"))["self-test"]["finding"]
  assert "try --precision float32" in finding and "ONEDNN" not in finding


def test_an_encoder_without_a_self_test_has_no_verdict_on_it(tmp_path):
  assert "self-test" not in verdicts(tmp_path)


@pytest.mark.parametrize(
  ("rejected", "allowed", "passed", "finding"),
  [
    ({"no tokens": 15}, 0.01, False, "15 of 300 documents and 0 of 4,265 chunks rejected (5.00%), 1.00% allowed"),
    ({"no tokens": 15}, 0.05, True, "15 of 300 documents and 0 of 4,265 chunks rejected (5.00%), 5.00% allowed"),
    ({"duplicate id": 42}, 0.01, True, "0 of 300 documents and 42 of 4,280 chunks rejected (0.98%), 1.00% allowed"),
    (
      {"null": 150, "zero vector": 2065},
      0.5,
      False,
      "150 of 300 documents and 2,065 of 4,130 chunks rejected (75.00%)",
    ),
  ],
)
def test_a_rejected_document_is_one_of_documents_and_not_of_chunks(tmp_path, rejected, allowed, passed, finding):
  chunks = {"long_texts": LongTexts("chunks", 62, 62), "kept": pa.schema(CHUNK_COLUMNS)}
  plan = PublishPlan(
    run=make_plan(tmp_path, **chunks), base=0, max_rejected=allowed, started="", options={}, encoder={}, whitening="fit"
  )
  counts = {"read": 4280, "rejected": rejected, "written": 4280 - sum(rejected.values())}
  records = Records.of([SliceRecord(0, 0, 0, 4280, {}, (), None, 0.0, long=20, chunks=4000)])
  found = judge(plan, counts, records, NoWhitening("none"))
  assert found["rejected"]["passed"] is passed and found["rejected"]["finding"].startswith(finding)
  assert found["documents"]["finding"] == "300 documents read"
