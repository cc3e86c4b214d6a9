"""The parts of a run, small and made by hand, for tests of one step at a time."""

import json
import pickle
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.testing.test_pipeline import TestPipeline

from tests.fake_encoder import FakeEncoder
from transforms.digests import bucket_of, digest_array
from transforms.encode_documents import BucketEncoder
from transforms.input_files import InputFile, ReadOptions, list_files
from transforms.metrics import StepReport
from transforms.progress_file import ProgressFile
from transforms.raw_store import RawStore
from transforms.read_documents import token_table
from transforms.records import BucketRecord
from transforms.rows import Row
from transforms.run_plan import RunPlan
from transforms.storage import Storage
from transforms.vector_table import to_ipc

WORDS = ("red", "green", "blue", "white", "black", "small", "large", "old", "new", "house", "tree", "town")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *"0123456789", *(f"##{digit}" for digit in range(10)))
H = 4
NO_COLUMNS = pa.schema([])
A_FILE_FOR_EACH_TEXT: dict[str, Any] = {"token_budget": 1, "flush_seconds": 0.0}  # fields of a plan
FILES = tuple(InputFile(f"/in/{name}", name, 1000, "", "text", None, 1000) for name in ("a.txt", "b.txt", "c.txt"))


def make_encoder(hidden_size: int = H, labels: Sequence[str] = ()) -> FakeEncoder:
  """Returns a fake encoder that knows WORDS and digits, with a head if there are labels."""
  return FakeEncoder(VOCABULARY, hidden_size, max_seq_length=16, labels=labels)


def make_plan(folder: Path, *, run_id: str = "r1", bits: int = 0, **fields: Any) -> RunPlan:
  """Returns the plan of a run in the dataset at `folder`; `fields` replace what it would hold."""
  labels = fields["predictions"].labels if "predictions" in fields else ()
  fingerprint = make_encoder(labels=labels).spec.fingerprint
  store = RawStore(Storage.at(str(folder)), fingerprint, fields.pop("hidden_size", H), len(labels))
  values = {"files": FILES, "options": ReadOptions(), "kept": NO_COLUMNS, "store": store} | fields
  return RunPlan(run_id=run_id, bits=bits, **values)


def plan_files(folder: Path, contents: Mapping[str, bytes], *, options: ReadOptions | None = None, **fields: Any):
  """Writes input files beside the dataset and returns the plan of a run over them."""
  (folder / "in").mkdir()
  for name, data in contents.items():
    (folder / "in" / name).write_bytes(data)
  options = options or ReadOptions()
  return make_plan(folder / "ds", files=tuple(list_files([f"{folder}/in/*"], options)), options=options, **fields)


def make_report(plan: RunPlan) -> StepReport:
  """Returns a report whose progress file no other test shares."""
  return StepReport(ProgressFile(plan.storage, plan.folder))


def block_of(plan: RunPlan, rows: Sequence[Row], file: int = 0) -> bytes:
  """Returns rows as a token block."""
  tokens = make_encoder().load_tokenizer().tokenise([row.text for row in rows])
  return to_ipc(token_table(rows, digest_array(row.text for row in rows), tokens, file, plan.kept))


def encode_rows(plan: RunPlan, rows: Sequence[Row], bucket: int = 0, file: int = 0) -> BucketRecord:
  """Encodes rows of one bucket with the fake encoder."""
  encoder = BucketEncoder(
    plan, make_encoder(labels=plan.predictions.labels).load(), make_report(plan), clock=lambda: 0.0
  )
  return encoder.encode(bucket, [block_of(plan, rows, file)])


def encode_by_bucket(plan: RunPlan, rows: Sequence[Row], file: int = 0) -> list[BucketRecord]:
  """Encodes rows, each in the bucket of its text."""
  buckets = bucket_of(digest_array(row.text for row in rows), plan.bits)
  return [
    encode_rows(plan, [row for row, b in zip(rows, buckets, strict=True) if b == bucket], int(bucket), file)
    for bucket in np.unique(buckets)
  ]


def read_rejects(plan: RunPlan) -> list[dict[str, Any]]:
  """Returns every rejected document that lies in the run's folder, in the order of the files' names."""
  folder = f"{plan.folder}/rejected"
  return [
    json.loads(line)
    for name in plan.storage.names(folder)
    for line in plan.storage.read(f"{folder}/{name}").splitlines()
  ]


def local_pipeline() -> beam.Pipeline:
  """Returns a pipeline on the engine that runs locally; the default one may be another, or download one."""
  return TestPipeline(runner="FnApiRunner")


def run_on_beam(folder: Path, elements: Sequence[Any], transform: beam.PTransform) -> list[Any]:
  """Returns what a transform makes of some elements, in no order; by way of files, since Beam copies functions."""
  folder.mkdir()
  with local_pipeline() as p:
    _ = p | beam.Create(elements, reshuffle=False) | transform | "Keep" >> beam.Map(_keep, str(folder))
  return [pickle.loads(path.read_bytes()) for path in folder.iterdir()]


def _keep(element: Any, folder: str) -> None:
  Path(folder, uuid.uuid4().hex).write_bytes(pickle.dumps(element))
