import re
import stat

import pytest

from pipeline.health import STATUSES, health_of, health_of_failure
from pipeline.metrics_file import MetricsFile
from pipeline.outcome import Outcome
from tests.conftest import REPOSITORY
from tests.manifests import manifest
from transforms.errors import InputFileError, RunHeldError, StoreError, UsageError

parser = pytest.importorskip(
  "prometheus_client.parser", reason="needs prometheus_client, Prometheus' own reader (requirements-dev.txt)"
)
DRIFT = {"against": "r0", "mean": 0.5, "covariance": 1e-7, "neighbours": 0.25, "sample": 9, "reason": None}


def published(dataset="/data/vectors"):
  return health_of(dataset, Outcome("published", manifest() | {"drift": DRIFT}), 12.5)


def failed(dataset="/data/vectors"):
  return health_of_failure(dataset, InputFileError("gone"), 3.0)


@pytest.fixture
def file(tmp_path):
  return MetricsFile.at(str(tmp_path / "sorbus.prom"))


def read(file):
  """{(name, labels but the dataset…): value}, and the datasets named."""
  values, datasets = {}, set()
  for family in parser.text_string_to_metric_families(file.path.read_text()):
    assert family.documentation and family.type == "gauge", family
    for sample in family.samples:
      labels = dict(sample.labels)
      datasets.add(labels.pop("dataset"))
      values[(sample.name, *labels.values())] = sample.value
  return values, datasets


def test_a_published_run_as_prometheus_reads_it(file):
  file.write(published(), 1000.25)
  values, datasets = read(file)
  assert datasets == {"/data/vectors"}
  assert {key: value for key, value in values.items() if key[0] != "sorbus_run_status"} == {
    ("sorbus_last_run_timestamp_seconds",): 1000.25,
    ("sorbus_last_success_timestamp_seconds",): 1000.25,
    ("sorbus_exit_code",): 0,
    ("sorbus_run_seconds",): 12.5,
    ("sorbus_documents_read",): 12345,
    ("sorbus_documents_written",): 12000,
    ("sorbus_documents_rejected",): 345,
    ("sorbus_documents_new",): 700,
    ("sorbus_documents_changed",): 300,
    ("sorbus_documents_gone",): 200,
    ("sorbus_texts_encoded",): 1000,
    ("sorbus_texts_reused",): 10000,
    ("sorbus_drift_mean",): 0.5,
    ("sorbus_drift_covariance",): 1e-7,
    ("sorbus_drift_neighbours_ratio",): 0.25,
  }


@pytest.mark.parametrize("health", [published(), failed()], ids=["published", "failed"])
def test_every_status_has_its_series_and_one_of_them_is_1(file, health):
  file.write(health, 1.0)
  values, _ = read(file)
  assert {status: values["sorbus_run_status", status] for status in STATUSES} == {
    status: float(status == health.status) for status in STATUSES
  }


def test_the_last_success_outlives_failures_of_its_dataset(file):
  file.write(failed(), 1.0)
  assert ("sorbus_last_success_timestamp_seconds",) not in read(file)[0]
  file.write(published(), 2.0)
  file.write(failed(), 3.0)
  file.write(health_of_failure("/data/vectors", RunHeldError("held"), 0.1), 4.0)
  values, _ = read(file)
  assert values["sorbus_last_success_timestamp_seconds",] == 2 and values["sorbus_last_run_timestamp_seconds",] == 4
  assert ("sorbus_documents_read",) not in values  # what a job does not know is not said to be 0
  file.write(failed("/data/others"), 5.0)
  assert ("sorbus_last_success_timestamp_seconds",) not in read(file)[0]


@pytest.mark.parametrize(
  "before", [b"", b"\xff\x00", b'sorbus_last_success_timestamp_seconds{dataset="/data/vectors"} x']
)
def test_a_file_that_is_not_ours_is_replaced(file, before):
  file.path.write_bytes(before)
  file.write(failed(), 3.0)
  assert read(file)[0]["sorbus_last_run_timestamp_seconds",] == 3


def test_a_label_is_escaped_and_found_again(file):
  strange = 'C:\\vectors "new"\n(2) {a=b}'
  file.write(published(strange), 2.0)
  file.write(failed(strange), 3.0)
  values, datasets = read(file)
  assert datasets == {strange} and values["sorbus_last_success_timestamp_seconds",] == 2


def test_a_path_that_is_no_text_is_a_label_all_the_same(file):
  file.write(published("/data/\udcff"), 2.0)  # as Python has a name that is not UTF-8
  file.write(failed("/data/\udcff"), 3.0)
  values, datasets = read(file)
  assert datasets == {"/data/?"} and values["sorbus_last_success_timestamp_seconds",] == 2


def test_it_is_whole_at_any_moment_and_everybody_may_read_it(file, monkeypatch):
  file.write(published(), 2.0)
  before = file.path.read_text()
  assert stat.S_IMODE(file.path.stat().st_mode) & 0o044 == 0o044  # the collector is another user

  def full(descriptor):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr("transforms.local_storage._sync", full)
  with pytest.raises(StoreError, match="No space left"):
    file.write(failed(), 3.0)
  assert file.path.read_text() == before and list(file.path.parent.iterdir()) == [file.path]


@pytest.mark.parametrize("path", ["{tmp}/nowhere/a.prom", "{tmp}", "s3://bucket/a.prom"])
def test_what_cannot_be_a_file_is_refused_before_the_night(tmp_path, path):
  with pytest.raises(UsageError, match=r"^--metrics-file .*: is not a file in a folder of this machine"):
    MetricsFile.at(path.format(tmp=tmp_path))


def test_the_page_for_operators_has_every_name(file):
  file.write(published(), 2.0)
  page = (REPOSITORY / "docs/schedule.md").read_text(encoding="utf-8")
  names = {key[0] for key in read(file)[0]}
  assert not [name for name in names if f"`{name}`" not in page]
  assert names >= set(re.findall(r"\bsorbus_[a-z_]+", page))
