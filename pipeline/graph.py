"""The Beam graph of a run, in two parts: a wave of buckets through the encoder, and the finish over all of them.

On a cluster both are one graph; locally each wave is a pipeline of its own and leaves its records in a file, since the
local runner holds a shuffle in memory.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.pvalue import AsList, AsSingleton

from pipeline.fit_whitening import FitWhitening, WhiteningDecision
from pipeline.publish import finish_run
from pipeline.publish_plan import PublishPlan
from transforms.combine_moments import MomentsCombineFn
from transforms.count_written import CountWritten
from transforms.encode_documents import EncodeDocuments
from transforms.encoder import Encoder
from transforms.find_changes import FindChanges
from transforms.input_files import Slice
from transforms.measure_ranges import MeasureRanges
from transforms.moments import Moments
from transforms.read_documents import RECORDS, ReadDocuments, Wave
from transforms.read_raw_blocks import ReadRawBlocks
from transforms.records import BucketRecord, Record, to_json_lines
from transforms.run_plan import RunPlan
from transforms.settle_ids import SettleIds
from transforms.tokenizer import Tokenizer
from transforms.vector_types import INT8
from transforms.whitening import Whitening
from transforms.write_vectors import BY_FILE, NoWhitening, WriteVectors


@dataclass(frozen=True)
class Loaders:
  """What a worker loads once: injected, so that tests and benchmarks bring an encoder of their own."""

  tokenizer: Callable[[], Tokenizer]
  encoder: Callable[[], Encoder]


@dataclass
class EncodeWave(beam.PTransform):
  """Slices → slice and bucket records of the wave's buckets."""

  plan: RunPlan
  wave: Wave
  slices: Sequence[Slice]
  loaders: Loaders

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
    slices = root | "Start" >> beam.Impulse() | "Slices" >> beam.ParDo(_PlannedSlices(self.plan, self.slices))  # Slice
    read = slices | "ReadDocuments" >> ReadDocuments(self.plan, self.wave, self.loaders.tokenizer)
    buckets = read.blocks | "EncodeDocuments" >> EncodeDocuments(self.plan, self.loaders.encoder)  # BucketRecord
    return (buckets, read[RECORDS]) | "Records" >> beam.Flatten()  # BucketRecord | SliceRecord


class _PlannedSlices(beam.DoFn):
  """Anything → the slices, where the job runs: `Create` would put all of them into the graph."""

  def __init__(self, plan: RunPlan, slices: Sequence[Slice]):
    super().__init__()
    self._plan, self._slices = plan, slices

  def process(self, _: bytes) -> Iterator[Slice]:
    if not self._plan.is_finished():  # then an engine tries it again, and the slices may have been tidied away
      yield from self._slices


@dataclass
class FinishRun(beam.PTransform):
  """Slice and bucket records → a published run: ids settled, whitening fitted, vectors, changes, manifest written."""

  plan: PublishPlan
  fit: FitWhitening

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, records: beam.PCollection) -> beam.PCollection:
    run = self.plan.run
    buckets = records | "Buckets" >> beam.Filter(_is_bucket).with_output_types(BucketRecord)
    settled = buckets | "SettleIds" >> SettleIds(run)  # SettledBucket
    blocks = settled | "ReadRawBlocks" >> ReadRawBlocks(run)  # VectorBlock [≤ 4096, H]
    moments = blocks | "CombineMoments" >> beam.CombineGlobally(MomentsCombineFn(run.store.hidden_size))  # Moments
    lowest = AsList(settled) if self.fit.has_drift else ()  # for its sample of texts
    decision = moments | "FitWhitening" >> beam.Map(self.fit, run, lowest)  # WhiteningDecision
    if run.vector_type == INT8:
      decision = decision | "Calibrate" >> _Calibrate(run, settled)
    whitening = decision | "Whitening" >> beam.Map(_whitening_of)  # Whitening | NoWhitening
    written = settled | "WriteVectors" >> WriteVectors(run, whitening)
    counted = written[BY_FILE] | "CountWritten" >> CountWritten(len(run.files))  # WrittenRecord
    changes = written.shards | "FindChanges" >> FindChanges(run, self.plan.base_run, whitening)
    everything = (
      (records, written.shards, counted, changes)
      | "AllRecords" >> beam.Flatten()  # Record
      | "ToOne" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())  # [Record]
    )
    return everything | "Publish" >> beam.Map(_publish, self.plan, AsSingleton(moments), AsSingleton(decision))


@dataclass
class _Calibrate(beam.PTransform):
  """WhiteningDecision → the same with the ranges of the run's int8 vectors, measured where it has none yet."""

  plan: RunPlan
  settled: beam.PCollection

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, decision: beam.PCollection) -> beam.PCollection:
    whitening = decision | "Whitening" >> beam.Map(_whitening_of)  # Whitening | NoWhitening
    ranges = self.settled | "MeasureRanges" >> MeasureRanges(self.plan, whitening)  # float32 [K]
    return decision | "WithRanges" >> beam.Map(WhiteningDecision.with_ranges, AsSingleton(ranges))


def _whitening_of(decision: WhiteningDecision) -> Whitening | NoWhitening:
  return decision.whitening


@dataclass
class EmbedCorpus(beam.PTransform):
  """Slices → a published run, as one graph of one wave: what a cluster runs."""

  plan: RunPlan
  wave: Wave
  slices: Sequence[Slice]
  loaders: Loaders
  publish: PublishPlan
  fit: FitWhitening

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
    records = root | "EncodeWave" >> EncodeWave(self.plan, self.wave, self.slices, self.loaders)
    # An engine fuses what is not shuffled: without it a failure in reading raw files would encode the bucket again.
    return records | "Checkpoint" >> beam.Reshuffle() | "FinishRun" >> FinishRun(self.publish, self.fit)


def _is_bucket(record: Record) -> bool:
  return isinstance(record, BucketRecord)


def _publish(records: list[Record], plan: PublishPlan, moments: Moments, decision: WhiteningDecision) -> None:
  finish_run(plan, records, moments, decision.whitening, decision=decision)


@dataclass
class KeepRecords(beam.PTransform):
  """Records of a wave → one file of JSON lines at `path`; of several attempts the first counts, each is complete."""

  plan: RunPlan
  path: str

  def __post_init__(self) -> None:
    super().__init__()

  def expand(self, records: beam.PCollection) -> beam.PCollection:
    return (
      records
      | "ToOne" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())  # [Record]
      | "Write" >> beam.Map(_keep_records, self.plan, self.path)
    )


def _keep_records(records: list[Record], plan: RunPlan, path: str) -> None:
  with contextlib.suppress(FileExistsError):
    plan.storage.create(path, to_json_lines(records))
