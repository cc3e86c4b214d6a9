"""What stands in for Google's servers in tests: staged files and submitted jobs are kept; all else is Beam's own.

And the pipeline of a job that was submitted, run here.
"""

import contextlib
import copy
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

FLAGS = (
  "--project=a-project",
  "--region=europe-west1",
  "--temp_location=gs://bucket/temp",
  "--sdk_container_image=europe-docker.pkg.dev/a-project/sorbus/worker:0.1.0",
  "--max_num_workers=5",
  "--no_auth",  # nobody to ask for credentials
)


@dataclass
class DataflowService:
  """What was sent: Beam's Job objects, and staged files by name."""

  jobs: list[Any] = field(default_factory=list)
  staged: dict[str, bytes] = field(default_factory=dict)

  def stage(self, client: Any, folder: str, name: str, stream: Any, **_: Any) -> None:
    """Takes a file."""
    with contextlib.ExitStack() as stack:
      file = stack.enter_context(open(stream, "rb")) if isinstance(stream, str) else stream  # noqa: PTH123
      self.staged[name] = file.read()

  def submit(self, client: Any, job: Any) -> Any:
    """Takes a job, and gives it an id."""
    from google.cloud import dataflow

    self.jobs.append(job)
    return dataflow.Job(id="2024-02-29_made-up")


@contextlib.contextmanager
def dataflow_service() -> Iterator[DataflowService]:
  """Takes the place of Google's servers while the block runs."""
  needed = "needs the Google packages of requirements-dev.txt, which are not installed"
  client = pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient", reason=needed, exc_type=ImportError)
  from apache_beam.options.pipeline_options import GoogleCloudOptions

  service = DataflowService()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(client.DataflowApplicationClient, "stage_file_with_retry", _bound(service.stage))
    patch.setattr(client.DataflowApplicationClient, "submit_job_description", _bound(service.submit))
    patch.setattr(GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled", lambda *_: None)  # it would ask a bucket
    yield service


def _bound(method: Any) -> Any:
  return lambda self, *args, **kwargs: method(self, *args, **kwargs)


def run_here(pipeline: Any) -> Counter[str]:
  """Runs a pipeline that was made for Dataflow, its image replaced by this process.

  Returns:
    Bytes that went into each shuffle, by the step, and into each PCollection that was kept for a side input.
  """
  from apache_beam.options.pipeline_options import PipelineOptions
  from apache_beam.portability import python_urns
  from apache_beam.portability.api import beam_runner_api_pb2
  from apache_beam.runners.portability.fn_api_runner import FnApiRunner, execution

  pipeline = copy.deepcopy(pipeline)
  for name in pipeline.components.environments:
    pipeline.components.environments[name].CopyFrom(beam_runner_api_pb2.Environment(urn=python_urns.EMBEDDED_PYTHON))
  moved: Counter[str] = Counter()
  get_buffer = execution.BundleContextManager.get_buffer

  def get_counting_buffer(self: Any, buffer_id: bytes, transform: str) -> Any:
    buffer = get_buffer(self, buffer_id, transform)
    if "append" not in vars(buffer):  # not one of ours yet
      kind, name = execution.split_buffer_id(buffer_id)
      components = self.execution_context.pipeline_components
      step = (components.transforms if kind == "group" else components.pcollections)[name].unique_name
      buffer.append = functools.partial(append, f"{kind} {step}", buffer.append)
    return buffer

  def append(step: str, really: Any, data: bytes) -> None:
    moved[step] += len(data)
    really(data)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(execution.BundleContextManager, "get_buffer", get_counting_buffer)
    FnApiRunner().run_via_runner_api(pipeline, PipelineOptions()).wait_until_finish()
  return moved
