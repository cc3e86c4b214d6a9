import datetime
import json
import re

import numpy as np
import pytest

from pipeline.dataset import Dataset, Published, find_whitening, new_run_id, to_json, whitening_bytes
from tests.manifests import MANIFEST, manifest
from transforms.errors import StoreError, UsageError
from transforms.whitening import Whitening

ENCODER = {"fingerprint": "ab" * 32, "tokenizer": {"lowercase": True}}
WHITENING_FILES = {"whitening": [{"path": "runs/r1/whitening-1.npz", "rows": 0, "bytes": 9, "sha256": "f" * 64}]}
NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.fixture
def dataset(tmp_path):
  return Dataset.open_or_create(f"{tmp_path}/ds", ENCODER)


def edit(dataset, path, **changes):
  value = json.loads(dataset.storage.read(path)) | changes
  dataset.storage.write(path, to_json(value))


def test_json_is_for_people_too():
  assert to_json({"b": "é", "a": [1]}).decode() == '{\n  "a": [\n    1\n  ],\n  "b": "é"\n}\n'


def test_run_ids_sort_by_time_and_differ():
  berlin = datetime.timezone(datetime.timedelta(hours=2))
  assert re.fullmatch("20240229T120000Z[0-9a-f]{6}", new_run_id(NOON))
  assert new_run_id(NOON.astimezone(berlin))[:16] == "20240229T120000Z"
  assert new_run_id(NOON) != new_run_id(NOON)
  assert new_run_id(NOON) < new_run_id(NOON + datetime.timedelta(seconds=1))


def test_a_dataset_is_made_once_and_opened_after(tmp_path, dataset):
  assert dataset.settings() == {"format_version": 1, "encoder": ENCODER}
  assert Dataset.open_or_create(f"{tmp_path}/ds", ENCODER) == Dataset.open(f"{tmp_path}/ds") == dataset
  assert (dataset.published(), dataset.run_ids()) == (None, [])
  assert sorted(path.name for path in (tmp_path / "ds").rglob("*")) == ["dataset.json", "runs"]  # no probe is left


def test_there_is_no_dataset(tmp_path):
  with pytest.raises(UsageError, match=rf"^{tmp_path}: no Sorbus dataset is there \(no dataset\.json\); make one with"):
    Dataset.open(str(tmp_path))


def test_what_it_was_made_for_is_never_rewritten(tmp_path, dataset):
  Dataset.open_or_create(f"{tmp_path}/ds", ENCODER | {"fingerprint": "cd" * 32})
  assert dataset.settings() == {"format_version": 1, "encoder": ENCODER}


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_format_version_is_refused(tmp_path, dataset, version):
  edit(dataset, "dataset.json", format_version=version)
  message = (
    rf"^{tmp_path}/ds/dataset\.json: format version {version}, this Sorbus reads 1; use the Sorbus that wrote it$"
  )
  for open_it in (lambda: Dataset.open(f"{tmp_path}/ds"), lambda: Dataset.open_or_create(f"{tmp_path}/ds", ENCODER)):
    with pytest.raises(UsageError, match=message):
      open_it()


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b'"text"'])
def test_a_damaged_file_is_named(tmp_path, dataset, data):
  dataset.storage.write("dataset.json", data)
  with pytest.raises(UsageError, match=rf"^{tmp_path}/ds/dataset\.json: (not valid JSON|format version None)"):
    Dataset.open(f"{tmp_path}/ds")


def test_what_cannot_be_read_is_told_in_one_line(tmp_path):
  (tmp_path / "dataset.json").mkdir()
  with pytest.raises(UsageError, match=r"/dataset\.json: cannot be read \(Is a directory\); is it yours to read\?$"):
    Dataset.open(str(tmp_path))
  with pytest.raises(UsageError, match=r"^--whitening \S*: cannot be read \(Is a directory\); is it yours to read\?$"):
    whitening_bytes(str(tmp_path))


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(
    UsageError, match=rf"^--dataset {tmp_path}/file/ds: is a file, or has one for a folder on its way; choose"
  ):
    Dataset.open_or_create(f"{tmp_path}/file/ds", ENCODER)


def test_a_dataset_that_became_read_only_is_refused(tmp_path, dataset):
  (tmp_path / "ds/runs").rmdir()
  (tmp_path / "ds/runs").write_text("")  # also root cannot write below this
  with pytest.raises(UsageError, match=rf"^--dataset {tmp_path}/ds: cannot be written \("):
    Dataset.open_or_create(f"{tmp_path}/ds", ENCODER)


def test_the_highest_number_is_published(dataset):
  first = dataset.publish("r1", 0, NOON)
  assert first == Published(1, "r1", 0, "2024-02-29T12:00:00+00:00") == dataset.published()
  for base in range(1, 12):
    dataset.publish(f"r{base + 1}", base, NOON)
  assert dataset.published().number == 12 and dataset.published().run_id == "r12"
  assert dataset.storage.read("LATEST") == b"r12\n"
  assert dataset.storage.names("published")[0] == "00000001.json"
  dataset.storage.write("published/notes.txt", b"")
  assert dataset.published().number == 12
  assert dataset.published_entry(1) == first and dataset.published_entry(13) is None


def test_a_hint_that_cannot_be_written_makes_no_published_run_a_failed_one(dataset):
  dataset.storage.write("LATEST/in the way", b"")
  entry = dataset.publish("r1", 0, NOON)
  assert entry.run_id == "r1" and dataset.published() == entry


def test_an_entry_that_was_cut_short_says_how_to_go_on(dataset):
  first = dataset.publish("r1", 0, NOON)
  dataset.storage.write("published/00000002.json", b"")
  with pytest.raises(UsageError, match=r"00000002.json: not valid JSON .*: restore or remove it; without it the entry"):
    dataset.published()
  dataset.storage.remove("published/00000002.json")
  assert dataset.published() == first


def test_publishing_twice_is_publishing_once(dataset):
  first = dataset.publish("r1", 0, NOON)
  assert dataset.publish("r1", 0, NOON + datetime.timedelta(hours=1)) == first
  assert dataset.storage.names("published") == ["00000001.json"]


def test_the_loser_is_told_who_won(dataset):
  winner = dataset.publish("r1", 0, NOON)
  assert dataset.publish("r2", 0, NOON) == winner
  assert dataset.published() == winner and dataset.storage.read("LATEST") == b"r1\n"


def test_a_published_entry_of_another_version_is_refused(dataset):
  dataset.publish("r1", 0, NOON)
  edit(dataset, "published/00000001.json", format_version=2)
  with pytest.raises(UsageError, match=r"published/00000001\.json: format version 2, this Sorbus reads 1"):
    dataset.published()


def test_manifests(dataset):
  dataset.storage.write("runs/r1/manifest.json", to_json(MANIFEST))
  dataset.storage.write("runs/r0/plan.json", b"")
  assert dataset.run_ids() == ["r0", "r1"] and dataset.manifest("r1") == MANIFEST
  with pytest.raises(UsageError, match=rf"^{dataset.storage.root}: run r0 did not finish; run `sorbus embed` again"):
    dataset.manifest("r0")
  for name in ("r2", "", "../r1", "."):
    with pytest.raises(UsageError, match=rf"^{dataset.storage.root}: no run '{re.escape(name)}'; `sorbus show` lists"):
      dataset.manifest(name)


def test_a_manifest_that_lacks_something(dataset):
  dataset.storage.write("runs/r1/manifest.json", to_json({**MANIFEST, "counts": {}}))
  with pytest.raises(UsageError) as error:
    dataset.manifest("r1")
  assert str(error.value) == (
    f"{dataset.storage.root}/runs/r1/manifest.json: has no 'counts.read'; it was edited or damaged: restore it, or "
    "publish another run with `sorbus publish`"
  )


def test_a_folder_under_another_runs_name_is_refused(dataset):
  dataset.storage.write("runs/r2/manifest.json", to_json(MANIFEST))
  with pytest.raises(UsageError, match=r"runs/r2/manifest.json: is of run 'r1'; it was edited or damaged: restore it"):
    dataset.manifest("r2")


def test_the_whitening_of_a_run(dataset):
  whitening = Whitening(np.arange(3.0), np.eye(3)[:, :2], np.empty(0), 0, "")
  dataset.storage.write("runs/r1/whitening-1.npz", whitening.to_bytes())
  dataset.storage.write("runs/r1/manifest.json", to_json(MANIFEST))
  with pytest.raises(StoreError, match="the manifest of run r1 names no whitening; embed again with --again"):
    dataset.whitening("r1")
  found = manifest(whitening={"fingerprint": whitening.fingerprint}, files=WHITENING_FILES)
  dataset.storage.write("runs/r1/manifest.json", to_json(found))
  assert dataset.whitening("r1").fingerprint == whitening.fingerprint
  edit(dataset, "runs/r1/manifest.json", whitening=MANIFEST["whitening"] | {"fingerprint": "ef" * 32})
  with pytest.raises(
    StoreError, match=r"runs/r1/whitening-1\.npz is not the whitening of the run \(efefefefefefefef\)"
  ):
    dataset.whitening("r1")
  dataset.storage.remove("runs/r1/whitening-1.npz")
  with pytest.raises(StoreError, match=r"runs/r1/whitening-1\.npz is missing; embed again with --again"):
    dataset.whitening("r1")


def test_a_whitening_is_found_by_run_by_dataset_and_by_file(tmp_path, dataset):
  whitening = Whitening(np.arange(3.0), np.eye(3)[:, :2], np.empty(0), 0, "")  # as one that came from elsewhere
  dataset.storage.write("runs/r1/whitening-1.npz", whitening.to_bytes())
  fingerprints = {"whitening": {"fingerprint": whitening.fingerprint}, "encoder": {"fingerprint": "ab" * 32}}
  dataset.storage.write("runs/r1/manifest.json", to_json(manifest(**fingerprints, files=WHITENING_FILES)))
  dataset.storage.write(
    "runs/r2/manifest.json", to_json({**MANIFEST, "run_id": "r2", "whitening": {"refused": "too few"}})
  )
  with pytest.raises(UsageError, match=rf"^--whitening {tmp_path}/ds: nothing is published yet; `sorbus show"):
    find_whitening(f"{tmp_path}/ds")
  dataset.publish("r1", 0, NOON)
  for url, encoder in [("ds", "ab" * 32), ("ds/runs/r1/", "ab" * 32), ("ds/runs/r1/whitening-1.npz", "")]:
    assert find_whitening(f"{tmp_path}/{url}").fingerprint == whitening.fingerprint
    assert find_whitening(f"{tmp_path}/{url}").encoder_fingerprint == encoder
  for url, message in [
    ("ds/runs/r2", r"^--whitening .*/ds/runs/r2: run r2 has none \(too few\); take another$"),
    ("ds/runs/r3", "no run 'r3'; `sorbus show` lists"),
    ("ds/runs", "there is no run; give DATASET/runs/ID"),
    ("no/such", "there is no run; give DATASET/runs/ID"),
    ("ds/dataset.json", "ds/dataset.json"),
  ]:
    with pytest.raises(UsageError, match=message):
      find_whitening(f"{tmp_path}/{url}")


def test_a_folder_that_holds_something_else_is_no_place_for_a_dataset(tmp_path):
  (tmp_path / "vocab.txt").write_text("[PAD]")
  with pytest.raises(UsageError, match=rf"^--dataset {tmp_path}: holds something that is no dataset"):
    Dataset.open_or_create(str(tmp_path), {"fingerprint": "ab", "tokenizer": {}})
  assert [path.name for path in tmp_path.iterdir()] == ["vocab.txt"]
