"""What the last step of a run is told: all of it decided before the run starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.base_run import BaseRun
from transforms.run_plan import RunPlan


@dataclass(frozen=True)
class MeasuredSelfTest:
  """What the encoder's self-test found at the start of a run: the largest error of a vector, and what is allowed.

  Attributes:
    error, allowed: absolute in float32, 1 - cosine in bfloat16.
    precision: the encoder's.
  """

  error: float
  allowed: float
  precision: str = "float32"


@dataclass(frozen=True, kw_only=True)
class PublishPlan:
  """What the last step needs to know: the run, the gates, and what is recorded as it is.

  Attributes:
    run: the run as planned.
    base: number of the published run when this one was planned, 0 for none.
    max_rejected: share of the documents read that may be rejected, 0 to 1.
    max_shrink: share of the published run's rows that may be gone, 0 to 1.
    base_rows: of the published run, 0 for none.
    compares_documents: whether `base_rows` are its documents, as just one of both runs makes a row of each chunk.
    max_broken: share of the documents read that the encoder may fail on, 0 to 1.
    replay: the run whose rejected documents are to be accounted for, None for a night as ever.
    self_test: None where the encoder has none, or none has been run yet.
    base_run: the published run, to find what changed; None if there is none or it cannot be read.
    base_problem: why it cannot be read.
    started: ISO time, UTC.
    options: the job's options, for the manifest.
    encoder: URL and fingerprint, for the manifest.
    whitening: how the whitening was asked for, for the manifest.
    n_slices: how many slice records there have to be, one for each slice and wave; None for a run that reads no input.
    frees_lock: number of the dataset's lock that the last step gives back, since nobody waits for a detached run.
    made_from: the run whose raw vectors it was made from, None for the input.
  """

  run: RunPlan
  base: int
  max_rejected: float
  max_shrink: float = 1.0
  base_rows: int = 0
  compares_documents: bool = False
  max_broken: float = 0.001
  replay: str | None = None
  self_test: MeasuredSelfTest | None = None
  base_run: BaseRun | None = None
  base_problem: str | None = None
  started: str
  options: Mapping[str, Any]
  encoder: Mapping[str, Any]
  whitening: str
  made_from: str | None = None
  n_slices: int | None = None
  frees_lock: int | None = None
