"""Beam's metrics of a local run, read with Beam's own query and held to the manifest, which is made without them."""

import json
import re
from collections import Counter

import apache_beam as beam
import pytest

from pipeline.dataset import Dataset
from pipeline.embed_plan import start_run
from pipeline.engines import choose_engine
from pipeline.graph import EncodeWave, FinishRun, KeepRecords
from pipeline.options import EmbedOptions
from pipeline.planning import plan_run
from tests.conftest import REPOSITORY
from tests.fake_encoder import FailingEncoder
from tests.integration.run_files import made_up_texts
from tests.run_parts import make_plan, make_report
from transforms.input_types import ReadOptions
from transforms.metrics import COUNTERS, DISTRIBUTIONS
from transforms.progress_file import read_progress
from transforms.records import from_json_lines

TEXTS = made_up_texts(300)
STABLE = {  # a monitor goes by them: what stands here stays
  *("read/rows-count", "read/input-bytes", "read/documents-count", "read/rejected-count", "read/slice-msec"),
  *("store/texts-count", "store/known-count", "encode/texts-count", "encode/tokens-count", "encode/rejected-count"),
  *("encode/batch-rows", "encode/batch-msec", "encode/bucket-msec"),
  *("write/rows-count", "write/rejected-count", "write/shard-msec"),
}


class Metered:
  """Runs the two graphs of a run as `embed` does, and adds up what Beam counted over all of its pipelines."""

  def __init__(self, folder, encoder):
    self.folder, self.encoder = folder, encoder
    self.counts, self.distributions = Counter(), {}

  def run(self):
    """Returns the manifest."""
    options = EmbedOptions(
      inputs=(f"{self.folder}/in.jsonl",),
      encoder="fake",
      dataset=f"{self.folder}/ds",
      read=ReadOptions(id_column="id"),
      n_components=4,
      whitening="fit",
      waves=2,
      buckets=4,
      threads=2,
      max_rejected=1.0,
      again=True,
    )
    engine = choose_engine(threads=2)
    plan = plan_run(options, self.encoder.spec, 0, engine)
    start_run(plan, options, lambda line: None)
    records = []
    for wave in plan.waves:
      path = f"{plan.run.folder}/records/{wave.number}.jsonl"
      with beam.Pipeline(options=engine.beam_options) as p:
        found = p | EncodeWave(plan.run, wave, plan.slices, self.encoder.loaders())
        _ = found | KeepRecords(plan.run, path)
      self.add(p.result)
      records += from_json_lines(plan.run.storage.read(path))
    with beam.Pipeline(options=engine.beam_options) as p:
      _ = p | beam.Create(records, reshuffle=False) | FinishRun(plan.publish, plan.fit)
    self.add(p.result)
    return Dataset(plan.run.storage).manifest(plan.run.run_id)

  def add(self, result):
    found = result.metrics().query()
    for metric in found["counters"]:
      self.counts[_name(metric)] += metric.committed
    for metric in found["distributions"]:
      self.distributions.setdefault(_name(metric), []).append(metric.committed)


def _name(metric):
  return f"{metric.key.metric.namespace}/{metric.key.metric.name}"


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
  """Two nights over 300 texts, an equal one, an empty one, one that cannot be encoded, and one of an id used before."""
  folder, encoder = tmp_path_factory.mktemp("metered"), FailingEncoder(TEXTS)
  texts = [*TEXTS, TEXTS[0], "", "red", "black"]
  ids = [*range(303), 300]
  documents = [{"id": str(i), "text": text} for i, text in zip(ids, texts, strict=True)]
  (folder / "in.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
  nights = [Metered(folder, encoder), Metered(folder, encoder)]
  return [(night.run()["counts"], night) for night in nights]


def rejected(night):
  return sum(night.counts[f"{step}/rejected-count"] for step in ("read", "encode", "write"))


def test_counters_of_a_first_night_are_those_of_its_manifest(nights):
  counts, night = nights[0]
  assert counts["rejected"] == {"duplicate id": 1, "encoder failed": 1, "no tokens": 1} and rejected(night) == 3
  assert night.counts["read/documents-count"] + night.counts["read/rejected-count"] == counts["read"] == 304
  assert night.counts["write/rows-count"] == counts["written"] == 301
  assert night.counts["encode/texts-count"] == counts["encoded"] == 301
  assert night.counts["encode/tokens-count"] == counts["encoded_tokens"]
  assert (night.counts["store/texts-count"], night.counts["store/known-count"]) == (302, 0)  # `red` is one of them
  assert night.counts["read/rows-count"] == 2 * 304  # each wave reads everything
  assert night.counts["read/input-bytes"] == 2 * (night.folder / "in.jsonl").stat().st_size


def test_a_second_night_knows_all_but_what_could_not_be_encoded(nights):
  counts, night = nights[1]
  assert night.counts["store/known-count"] == counts["reused"] == 301
  assert night.counts["encode/texts-count"] == counts["encoded"] == 0
  assert night.counts["write/rows-count"] == counts["written"] == 301 and rejected(night) == 3


def test_distributions_count_what_they_measure(nights):
  counts, night = nights[0]
  number = {name: sum(d.count for d in found) for name, found in night.distributions.items()}
  assert sum(d.sum for d in night.distributions["encode/batch-rows"]) == counts["encoded"]
  assert number["encode/batch-msec"] == number["encode/batch-rows"] > 2
  assert (number["read/slice-msec"], number["encode/bucket-msec"], number["write/shard-msec"]) == (2, 4, 4)


def test_the_names_are_stable_and_all_come_out_of_a_run(nights):
  named = {*COUNTERS.values(), *DISTRIBUTIONS.values()}
  assert named == STABLE == nights[0][1].counts.keys() | nights[0][1].distributions.keys()
  assert all(re.fullmatch(r"[a-z]+/[a-z]+-(count|bytes|rows|msec)", name) for name in named)


def test_the_page_for_operators_has_every_name():
  page = (REPOSITORY / "docs/schedule.md").read_text(encoding="utf-8")
  assert not [name for name in STABLE if f"`{name}`" not in page]


def test_outside_of_a_pipeline_the_progress_file_alone_hears_it(tmp_path):
  plan = make_plan(tmp_path)
  make_report(plan).add(rows_read=3, documents_kept=2)
  make_report(plan).observe(batch_rows=3)
  assert read_progress(plan.storage, plan.folder) == {"rows_read": 3, "documents_kept": 2}
  with pytest.raises(KeyError):
    make_report(plan).add(rows_red=1)
