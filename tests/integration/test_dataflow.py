"""A Dataflow job, made in full without an account: what is sent, and that what was sent runs to a published dataset.

Google's servers alone are stood in for: the input, the encoder and the dataset are on an S3 server.
"""

import json
import runpy
import uuid

import fsspec
import pytest
from google.protobuf import json_format

from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.lock import DatasetLock
from tests.conftest import REPOSITORY
from tests.dataflow_service import FLAGS, dataflow_service, run_here
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, write_shards
from tests.object_store import BUCKET, SECRET
from transforms.errors import UsageError
from transforms.input_files import ReadOptions
from transforms.storage import Storage

TEXTS = made_up_texts(300)
HIDDEN_SIZE = 768
VECTORS_BYTES = len(TEXTS) * HIDDEN_SIZE * 4
MOMENTS_BYTES = HIDDEN_SIZE * (HIDDEN_SIZE + 1) * 8
IMAGE = "europe-docker.pkg.dev/a-project/sorbus/worker:0.1.0"
RUN = {"runner": "DataflowRunner", "read": ReadOptions(id_column="id")}
# Each is bytes over the network for each document, and a decision: what crosses is said in docs/architecture.md.
SHUFFLES = {
  "EncodeWave/ReadDocuments/Spread/ReshufflePerKey/GroupByKey",
  "EncodeWave/EncodeDocuments/GatherBuckets",
  "Checkpoint/ReshufflePerKey/GroupByKey",
  "FinishRun/SettleIds/GatherIds",
  "FinishRun/SettleIds/JoinLosers/CoGroupByKeyImpl/GroupByKey",
  "FinishRun/ReadRawBlocks/GatherGroups",
  "FinishRun/CombineMoments/CombinePerKey/Group",
  "FinishRun/CountWritten/Sum/CombinePerKey/CombinePerKey(PreCombineFn)/Group",
  "FinishRun/CountWritten/Sum/CombinePerKey/CombinePerKey(PostCombineFn)/Group",
  "FinishRun/FindChanges/Meet",
  "FinishRun/FindChanges/GatherIds",
  "FinishRun/ToOne/CombinePerKey/Group",
}


@pytest.fixture(scope="module")
def place(proxy, tmp_path_factory):
  """A prefix on the object store, with the input under `input`."""
  place = f"s3://{BUCKET}/{uuid.uuid4().hex}"
  folder = write_shards(tmp_path_factory.mktemp("dataflow") / "input", TEXTS, 4)
  fsspec.filesystem("s3").put(f"{folder}/", f"{place}/input/", recursive=True)
  return place


@pytest.fixture
def service():
  """Google's servers."""
  with dataflow_service() as service:
    yield service


@pytest.fixture(scope="module")
def sent(place):
  """What a detached run with a user's own experiment sends."""
  encoder, flags = FakeEncoder(make_vocabulary(TEXTS), HIDDEN_SIZE), (*FLAGS, "--experiments=theirs")
  with dataflow_service() as service:
    outcome = embed_fake(
      encoder, f"{place}/dataset", f"{place}/input", detach=True, buckets=2, n_components=8, beam_options=flags, **RUN
    )
  assert outcome.status == "submitted"
  return service


def test_what_dataflow_is_told(sent):
  (job,) = sent.jobs
  environment = json_format.MessageToDict(job.proto._pb)["environment"]
  (pool,) = environment["workerPools"]
  assert pool["workerHarnessContainerImage"] == IMAGE
  assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE]
  assert {"no_use_multiple_sdk_containers", "theirs"} <= set(environment["experiments"])
  assert "use_multiple_sdk_containers" not in environment["experiments"]
  assert (pool["numThreadsPerWorker"], pool["machineType"], pool["diskSizeGb"]) == (8, "n2-standard-8", 50)
  assert pool["autoscalingSettings"]["maxNumWorkers"] == 5


def test_what_is_staged(sent):
  """No pickled main session, no package: the image has all."""
  assert set(sent.staged) == {"pipeline.pb", "submission_environment_dependencies.txt"}
  (job,) = sent.jobs
  assert len(job.json()) < 50_000  # Dataflow takes 20 MB, and once took 10
  assert len(sent.staged["pipeline.pb"]) < 500_000
  assert sent.staged["pipeline.pb"] == job.proto_pipeline.SerializeToString()
  assert SECRET not in job.json() and SECRET.encode() not in b"".join(sent.staged.values())
  steps = [step for step in job.proto_pipeline.components.transforms.values() if not step.subtransforms]
  assert 50 < len(steps) < 100


def test_what_was_sent_runs_and_no_vector_is_shuffled(sent, place):
  (job,) = sent.jobs
  assert DatasetLock(Storage.at(f"{place}/dataset")).holder() is not None  # the job's
  moved = run_here(job.proto_pipeline)
  shuffled = {name.removeprefix("group EmbedCorpus/"): size for name, size in moved.items() if name.startswith("group")}
  assert shuffled.keys() == SHUFFLES
  # One accumulator a bundle that reads vectors; here that was one.
  assert 1 <= shuffled.pop("FinishRun/CombineMoments/CombinePerKey/Group") / MOMENTS_BYTES < 1.01
  assert sum(shuffled.values()) < VECTORS_BYTES / 2  # of which digests of ids, in 256 small blocks, are most
  dataset = Dataset.open(f"{place}/dataset")
  manifest = dataset.manifest(dataset.published().run_id)
  assert (manifest["counts"]["written"], manifest["counts"]["rejected"]) == (300, {})
  assert DatasetLock(dataset.storage).holder() is None


def test_a_dry_run_sends_nothing_and_leaves_nothing(service, place, tiny_encoder, capsys):
  fsspec.filesystem("s3").put(f"{tiny_encoder}/", f"{place}/encoder/", recursive=True)
  where = ["--input", f"{place}/input", "--encoder", f"{place}/encoder", "--dataset", f"{place}/dry", "--detach"]
  command = ["embed", *where, "--id-column", "id", "--runner", "DataflowRunner"]
  assert main([*command, "--", *FLAGS, "--dry_run=True"]) == 0
  assert capsys.readouterr().out == "dry run: the job could be made; nothing was sent, and no run is left\n"
  assert not service.jobs and not service.staged
  dataset = Dataset.open(f"{place}/dry")
  assert not dataset.run_folders() and DatasetLock(dataset.storage).holder() is None
  # The same as a launch of the template.
  embed_arguments = runpy.run_path(str(REPOSITORY / "deploy/dataflow/launch.py"))["embed_arguments"]
  places = [f"--{name}={place}/{name}" for name in ("input", "encoder")]
  given = [*places, f"--dataset={place}/dry", "--json=true", "--runner=DataflowRunner", "--dry_run=True", *FLAGS]
  assert main(embed_arguments(given)) == 0
  assert json.loads(capsys.readouterr().out)["status"] == "dry run"


def test_a_launch_of_the_template_leaves_the_job_to_google(service, place):
  """Its launcher asks for the job as a file, and starts that."""
  encoder, flags = FakeEncoder(make_vocabulary(TEXTS), 16), (*FLAGS, "--template_location=gs://bucket/temp/job_object")
  outcome = embed_fake(encoder, f"{place}/launched", f"{place}/input", detach=True, beam_options=flags, **RUN)
  assert outcome.status == "submitted" and not service.jobs
  assert json.loads(service.staged["job_object"])["environment"]["workerPools"][0]["diskSizeGb"] == 50


@pytest.mark.parametrize("flag", ["dataset", "input"])
def test_a_path_of_this_machine_is_refused_before_anything_is_made(service, place, tmp_path, flag):
  places = {"dataset": f"{place}/refused", "input": f"{place}/input"} | {flag: str(tmp_path / "x")}
  encoder = FakeEncoder(make_vocabulary(TEXTS), 16)
  with pytest.raises(UsageError, match=rf"^--{flag} {tmp_path}/x: is on this machine, and Dataflow's workers are not;"):
    embed_fake(encoder, places["dataset"], places["input"], beam_options=FLAGS, **RUN)
  assert not service.jobs and not list(tmp_path.iterdir())
