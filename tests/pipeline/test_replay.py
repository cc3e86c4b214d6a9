"""What a manifest that is replayed says of its job: it is input, and may have been edited."""

import pytest

from pipeline.dataset import Dataset, to_json
from pipeline.options import EmbedOptions
from pipeline.planning import describe
from pipeline.replay import _RECORDED, check_replay, find_replay
from tests.manifests import manifest
from transforms.errors import UsageError

ASKED = EmbedOptions(inputs=("/in/*",), encoder="enc", dataset="ds", long_texts="chunks", stride=99)
OPTIONS = describe(ASKED) | {"threshold": None}
REJECTED = [{"path": "runs/r1/rejected/a.jsonl", "rows": 1, "bytes": 2, "sha256": "f" * 64}]


@pytest.fixture
def dataset(tmp_path):
  found = Dataset.open_or_create(f"{tmp_path}/ds", {"fingerprint": "ab", "tokenizer": {}})
  found.storage.write("runs/r1/rejected/a.jsonl", b"{}")
  return found


def write(dataset, **changes):
  value = manifest(files={"rejected": REJECTED}, **changes)
  dataset.storage.write("runs/r1/manifest.json", to_json(value))
  return value


def test_every_option_that_is_recorded_is_replayed(dataset):
  assert {key for key, _ in _RECORDED.values()} - {"vector_type"} == OPTIONS.keys()  # float32 is not recorded
  write(dataset, options=OPTIONS | {"limit": 5, "header": False, "n_components": 0.9})
  found = find_replay("r1", dataset.storage.root)
  assert (found.run_id, found.flags["encoder"], found.flags["input"]) == ("r1", "/models/minilm", ["/in/*"])
  assert (found.flags["limit"], found.flags["no_header"], found.flags["n_components"]) == (5, True, 0.9)


@pytest.mark.parametrize("run", ["{}/runs/r1", "{}/runs/r1/", "runs/r1"])
def test_a_runs_folder_says_its_dataset(dataset, run, monkeypatch):
  monkeypatch.chdir(dataset.storage.root)
  write(dataset, options=OPTIONS)
  found = find_replay(run.format(dataset.storage.root), None)
  assert found.run_id == "r1" and Dataset.open(found.dataset).storage == dataset.storage
  find_replay(run.format(dataset.storage.root), dataset.storage.root)


def test_options_that_an_older_sorbus_did_not_have_are_left_to_their_defaults(dataset):
  write(dataset)
  manifest = dataset.manifest("r1") | {"options": {"inputs": ["/in/*"], "of a newer one": 1}}
  dataset.storage.write("runs/r1/manifest.json", to_json(manifest))
  assert find_replay("r1", dataset.storage.root).flags == {
    "encoder": "/models/minilm",
    "input": ["/in/*"],
    "vector_type": "float32",
  }


@pytest.mark.parametrize(("stored", "options"), [("float32", {}), ("int8", {"vector_type": "int8"})])
def test_the_type_of_the_vectors_is_that_of_the_replayed_run(dataset, stored, options):
  """And not, as without --replay, that of what is published by now: options say nothing of float32."""
  write(dataset, options=OPTIONS | options)
  said = dataset.manifest("r1") | {"vectors": {"type": stored, "clipped": 0}}
  dataset.storage.write("runs/r1/manifest.json", to_json(said))
  assert find_replay("r1", dataset.storage.root).flags["vector_type"] == stored


@pytest.mark.parametrize(
  ("options", "fault"),
  [
    ({"limit": "5"}, "has '5' as 'options.limit'"),
    ({"limit": True}, "has 'True' as 'options.limit'"),
    ({"limit": 1.5}, "has '1.5' as 'options.limit'"),
    ({"inputs": "/in/*"}, "has '/in/*' as 'options.inputs'"),
    ({"inputs": ["/in/*", 5]}, "has \"['/in/*', 5]\" as 'options.inputs'"),
    ({"inputs": []}, "names no 'options.inputs'"),
    ({"text_columns": None}, "has 'None' as 'options.text_columns'"),
    ({"id_column": 3}, "has '3' as 'options.id_column'"),
    ({"header": 1}, "has '1' as 'options.header'"),
    ({"max_rejected": None}, "has 'None' as 'options.max_rejected'"),
    ({"encoding": ["utf-8"]}, "has \"['utf-8']\" as 'options.encoding'"),
  ],
)
def test_an_edited_option_is_named(dataset, options, fault):
  write(dataset, options=OPTIONS | options)
  with pytest.raises(UsageError) as error:
    find_replay("r1", dataset.storage.root)
  assert str(error.value) == (
    f"{dataset.storage.root}/runs/r1/manifest.json: {fault}; it was edited or damaged: give --input and the other "
    "options of that job instead of --replay"
  )


def test_a_run_that_rejected_nothing_has_nothing_to_replay(dataset):
  none = write(dataset)
  none["counts"]["rejected"] = {}
  with pytest.raises(UsageError, match="that run rejected nothing"):
    check_replay(dataset, none)
  check_replay(dataset, none | {"bad_files": ["a.gz is damaged"]})


@pytest.mark.parametrize("data", [None, b"{"])
def test_rejected_documents_that_are_gone_are_told_before_anything_is_done(dataset, data):
  found = write(dataset)
  dataset.storage.remove("runs/r1/rejected/a.jsonl")
  if data:
    dataset.storage.write("runs/r1/rejected/a.jsonl", data)
  with pytest.raises(UsageError, match=r"rejected/a\.jsonl is gone or damaged"):
    check_replay(dataset, found)
