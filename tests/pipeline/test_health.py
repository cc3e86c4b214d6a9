import pytest

from pipeline.health import STATUSES, health_of, health_of_failure
from pipeline.outcome import Outcome
from tests.manifests import manifest
from tests.run_parts import make_plan, make_report
from transforms.errors import EncoderError, InputFileError, RunHeldError, UsageError

COUNTS = {
  **{"read": 12345, "written": 12000, "rejected": 345, "encoded": 1000, "reused": 10000},
  **{"new": 700, "changed": 300, "gone": 200},
}


def test_the_line_is_stable():
  line = health_of("/data/vectors", Outcome("published", manifest()), 12.34).line()
  assert line == (
    "sorbus embed status=published run=r1 read=12345 written=12000 rejected=345 encoded=1000 reused=10000 new=700 "
    "changed=300 gone=200 seconds=12.3 exit=0 dataset=/data/vectors"
  )


def test_what_is_not_known_is_a_dash_and_the_line_stays_one():
  line = health_of_failure('/data/two words\n"', EncoderError("no encoder"), 0.04).line()
  assert line == (
    "sorbus embed status=refused run=- read=- written=- rejected=- encoded=- reused=- new=- changed=- gone=- "
    r'seconds=0.0 exit=2 dataset="/data/two words\n\""'
  )


@pytest.mark.parametrize(
  ("status", "code"),
  [("published", 0), ("unchanged", 0), ("held back", 1), ("overtaken", 75), ("submitted", 0), ("dry run", 0)],
)
def test_an_outcome_keeps_its_status_and_exit_code(status, code):
  health = health_of("ds", Outcome(status, manifest()), 1.0)
  assert (health.status, health.exit_code) == (status.replace(" ", "-"), code) and health.status in STATUSES
  assert health.is_success == (status in ("published", "unchanged"))


@pytest.mark.parametrize(
  ("error", "status", "code"),
  [
    (RunHeldError("held"), "busy", 75),
    (EncoderError("none"), "refused", 2),
    (InputFileError("a.gz is damaged"), "failed", 1),
    (OSError(5, "Input/output error"), "failed", 1),
    (ZeroDivisionError(), "failed", 1),
    (KeyboardInterrupt(), "interrupted", 130),
  ],
)
def test_an_error_has_the_exit_code_that_the_command_line_gives_it(error, status, code):
  health = health_of_failure("ds", error, 1.0)
  assert (health.status, health.exit_code, health.is_success) == (status, code, False) and status in STATUSES


def test_unchanged_counts_what_running_it_all_the_same_would():
  counts = health_of("ds", Outcome("unchanged", manifest()), 1.0).counts
  assert counts == COUNTS | {"encoded": 0, "reused": 11000, "new": 0, "changed": 0, "gone": 0}


def test_where_no_whitening_could_be_fitted_nothing_is_known_of_what_was_written():
  value = manifest() | {"whitening": {"refused": "too few"}}
  counts = health_of("ds", Outcome("held back", value), 1.0).counts
  assert counts == {name: COUNTS[name] for name in ("read", "rejected", "encoded", "reused")}


def test_a_run_that_was_submitted_has_its_id_alone():
  health = health_of("ds", Outcome("submitted", {"run_id": "r9"}), 1.0)
  assert (health.run_id, health.counts, health.drift) == ("r9", {}, {})


def test_drift_is_what_was_measured():
  drift = {"against": "r0", "mean": 0.5, "covariance": 0.25, "neighbours": None, "sample": 9, "reason": "few"}
  assert health_of("ds", Outcome("published", manifest() | {"drift": drift}), 1.0).drift == {
    "mean": 0.5,
    "covariance": 0.25,
  }
  assert health_of("ds", Outcome("published", manifest() | {"drift": None}), 1.0).drift == {}


def test_of_a_run_that_failed_its_progress_tells_how_far_it_came(tmp_path):
  plan = make_plan(tmp_path, run_id="r7")
  make_report(plan).add(documents_kept=90, rejected_reading=10, texts_known=20, texts_encoded=30)
  make_report(plan).add(rows_written=40, rejected_writing=1)
  health = health_of_failure("ds", InputFileError("gone"), 1.0, plan)
  assert health.run_id == "r7"
  assert health.counts == {"read": 100, "written": 40, "rejected": 11, "encoded": 30, "reused": 20}


def test_no_secret_of_a_url_is_told():
  """A job that is refused for one, before it is recorded anywhere, has its line too."""
  health = health_of_failure("s3://key:hunter2@bucket/vectors?token=hunter2", UsageError("no"), 0.0)
  assert "hunter2" not in health.line() and "bucket/vectors" in health.line()
