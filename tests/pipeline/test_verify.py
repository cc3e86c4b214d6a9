"""`verify_run` against a run that is whole, and against every way in which one can be broken."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset import Dataset
from pipeline.verify import total_bytes, verify_run
from tests.damage import flipped
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, matrix, write_shards
from transforms.input_files import ReadOptions

N, K = 60, 8


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp("verify")
  inputs = write_shards(folder / "input", made_up_texts(N), 2)
  (inputs / "empty.jsonl").write_text('{"id": "e", "text": " "}\n{"id": "000001", "text": "another"}\n')
  encoder = FakeEncoder(make_vocabulary([]), hidden_size=16)
  options = {"n_components": K, "max_rejected": 1.0, "buckets": 4, "threads": 1}
  outcome = embed_fake(encoder, folder / "dataset", inputs, **options, read=ReadOptions(id_column="id"))
  return folder / "dataset", outcome.manifest["run_id"]


@pytest.fixture
def copy(whole, tmp_path):
  dataset, run_id = whole
  return Path(shutil.copytree(dataset, tmp_path / "dataset")), run_id


def failed(dataset: Path, run_id: str) -> dict[str, str]:
  """The checks that fail, with what they found."""
  return {c.name: c.finding for c in verify_run(Dataset.open(str(dataset)), run_id) if not c.passed}


def manifest_path(copy) -> Path:
  return copy[0] / "runs" / copy[1] / "manifest.json"


def edit_manifest(copy, edit) -> None:
  manifest = json.loads(manifest_path(copy).read_text())
  edit(manifest)
  manifest_path(copy).write_text(json.dumps(manifest))


def add_one(keys):
  """An edit that counts one more under nested keys."""

  def edit(manifest):
    *outer, last = keys
    for key in outer:
      manifest = manifest[key]
    manifest[last] += 1

  return edit


def rewrite_shard(copy, edit) -> str:
  """Edits the first shard and gives the manifest its new sha256: what a hash cannot find."""
  found = {}

  def edit_files(manifest):
    file = manifest["files"]["vectors"][0]
    path = copy[0] / file["path"]
    pq.write_table(edit(pq.read_table(path)), path)
    file["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    found["path"] = file["path"]

  edit_manifest(copy, edit_files)
  return found["path"]


def test_a_whole_run_passes_every_check(whole):
  checks = verify_run(Dataset.open(str(whole[0])), whole[1])
  assert {check.name: check.passed for check in checks} == dict.fromkeys(
    ("files", "raw files", "vectors", "ids", "counts", "inputs", "changes", "whitening"), True
  )
  assert [c.finding for c in checks if c.name == "vectors"] == [f"{N} rows, all of length 1"]


def test_it_reads_as_many_bytes_as_it_says(whole):
  read = []
  dataset = Dataset.open(str(whole[0]))
  verify_run(dataset, whole[1], read.append)
  assert sum(read) == total_bytes(dataset, whole[1]) > 0


@pytest.mark.parametrize("kind", ["vectors", "documents", "rejected", "changes", "moments", "whitening"])
@pytest.mark.parametrize("change", ["flip", "cut", "remove"])
def test_a_changed_file_is_found(copy, kind, change):
  path = next(
    copy[0] / file["path"] for file in json.loads(manifest_path(copy).read_text())["files"][kind] if file["bytes"]
  )
  if change == "remove":
    path.unlink()
  else:
    path.write_bytes(flipped(path.read_bytes()) if change == "flip" else path.read_bytes()[:-1])
  found = failed(*copy)
  assert str(path.relative_to(copy[0])) in found["files"]
  assert ("is missing" if change == "remove" else "was changed") in found["files"]


def test_a_changed_raw_file_is_found(copy):
  first, second = sorted(copy[0].glob("raw/*/*.parquet"))[:2]
  first.write_bytes(first.read_bytes()[:-1])
  second.unlink()
  finding = failed(*copy)["raw files"]
  assert f"{first.relative_to(copy[0])} was changed" in finding
  assert f"{second.relative_to(copy[0])} is missing" in finding


def scaled(table: pa.Table) -> pa.Table:
  vectors = matrix(table["vector"]).copy()
  vectors[0] *= 1.001
  column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), K)
  return table.set_column(1, table.schema.field("vector"), column)


def with_nan(table: pa.Table) -> pa.Table:
  vectors = matrix(table["vector"]).copy()
  vectors[1, 3] = np.nan
  return table.set_column(
    1, table.schema.field("vector"), pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), K)
  )


def twice(table: pa.Table) -> pa.Table:
  ids = table["doc_id"].to_pylist()
  return table.set_column(0, table.schema.field("doc_id"), pa.array([ids[1], *ids[1:]]))


@pytest.mark.parametrize(
  ("edit", "check", "finding"),
  [
    (scaled, "vectors", "1 vectors not of length 1"),
    (with_nan, "vectors", "1 vectors not of length 1"),
    (twice, "ids", "1 rows have an id that another has"),
    (lambda t: t[:-1], "counts", f"{N - 1} rows on disk, the manifest says {N} written"),
    (lambda t: t[:-1], "vectors", "rows, the manifest says"),
    (lambda t: t.drop_columns("n_tokens"), "vectors", "cannot be read"),
    (lambda t: t.take(list(range(len(t)))[::-1]), "vectors", "not in the order of their text digests"),
    (lambda t: t.replace_schema_metadata({b"sorbus.run_id": b"x"}), "vectors", "says sorbus.run_id x, the manifest"),
  ],
)
def test_a_wrong_shard_with_the_right_hash_is_found(copy, edit, check, finding):
  path = rewrite_shard(copy, edit)
  found = failed(*copy)
  assert finding in found[check]
  assert check != "vectors" or path in found[check]


@pytest.mark.parametrize(
  ("keys", "finding"),
  [
    (("counts", "read"), "are not"),
    (("counts", "tokens"), "tokens are"),
    (("counts", "truncated"), "truncated are"),
    (("counts", "unknown_tokens"), "unknown_tokens are"),
    (("counts", "rejected", "no tokens"), "rejected documents on disk are"),
  ],
)
def test_counts_that_do_not_add_up_are_found(copy, keys, finding):
  edit_manifest(copy, add_one(keys))
  assert finding in failed(*copy)["counts"]


@pytest.mark.parametrize(
  ("check", "keys", "finding"),
  [
    ("inputs", ("by_input", 0, "read"), "documents-00000-of-00002.jsonl: 31 read are not 30 written + 0 rejected"),
    ("inputs", ("by_input", 2, "rejected"), "rejected documents on disk are {'empty.jsonl': 2}, the manifest says"),
    ("inputs", ("counts", "unchanged"), f"{N} written are not {N} new + 0 changed + 1 unchanged"),
    ("changes", ("counts", "new"), f"{N} upserts and 0 deletes on disk, the manifest says {N + 1} and 0"),
    ("changes", ("counts", "gone"), f"{N} upserts and 0 deletes on disk, the manifest says {N} and 1"),
  ],
)
def test_changes_and_inputs_that_do_not_add_up_are_found(copy, check, keys, finding):
  edit_manifest(copy, add_one(keys))
  assert finding in failed(*copy)[check]


def test_a_list_of_changes_that_names_an_id_twice_is_found(copy):
  def edit(manifest):
    file = manifest["files"]["changes"][0]
    table = pq.read_table(copy[0] / file["path"])
    pq.write_table(
      table.set_column(0, table.schema.field(0), table["doc_id"].take([1, *range(1, len(table))])),
      copy[0] / file["path"],
    )
    file["sha256"] = hashlib.sha256((copy[0] / file["path"]).read_bytes()).hexdigest()

  edit_manifest(copy, edit)
  assert "ids are not in order, or not each once" in failed(*copy)["changes"]


def test_another_whitening_is_found(copy):
  edit_manifest(copy, lambda manifest: manifest["whitening"].update(fingerprint="f" * 64))
  assert "is not the whitening of the run" in failed(*copy)["whitening"]
