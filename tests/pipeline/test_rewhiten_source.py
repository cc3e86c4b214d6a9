import json
import shutil

import pyarrow as pa
import pytest

from pipeline.dataset import Dataset
from pipeline.options import RewhitenOptions
from pipeline.rewhiten import rewhiten
from pipeline.rewhiten_source import RewhitenSource
from tests.damage import flip
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, write_shards
from transforms.digests import DigestRange
from transforms.errors import SorbusError, StoreError, UsageError
from transforms.input_files import ReadOptions
from transforms.raw_store import RawStore

TEXTS = made_up_texts(40)
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  folder = tmp_path_factory.mktemp("made")
  inputs = write_shards(folder / "input", TEXTS, 2)
  (inputs / "bad.jsonl").write_text('{"id": "bad", "text": null}\n')
  options = {"read": ReadOptions(id_column="id", keep_columns=("text",)), "max_rejected": 1.0}
  return folder / "dataset", embed_fake(ENCODER, folder / "dataset", inputs, buckets=4, threads=1, waves=2, **options)


@pytest.fixture
def run(made, tmp_path):
  """A copy of a dataset, and the folder of its one run."""
  shutil.copytree(made[0], tmp_path / "dataset")
  return tmp_path / "dataset", tmp_path / "dataset/runs" / made[1].manifest["run_id"]


def read(run):
  return RewhitenSource.read(Dataset.open(str(run[0])), run[1].name)


def copy(run, source):
  store = RawStore(source.storage, source.manifest["encoder"]["fingerprint"], source.hidden_size())
  return list(source.copy_to("runs/new", store, source.kept()))


def test_everything_is_copied_under_its_own_name_and_nothing_counts_as_encoded(run):
  source = read(run)
  records = copy(run, source)
  assert (source.bits, source.hidden_size(), source.kept().names) == (2, 8, ["text"])
  assert [file.name for file in source.files] == sorted(file.name for file in source.files) and len(source.files) == 3
  for kind in ("documents", "rejected"):
    theirs, ours = (
      {path.name: path.read_bytes() for path in folder.glob(f"{kind}/*")} for folder in (run[1], run[1].parent / "new")
    )
    assert theirs == ours and theirs
  buckets = [record for record in records if record.kind == "bucket"]
  assert (sum(b.encoded for b in buckets), sum(b.reused for b in buckets), sum(b.tokens for b in buckets)) == (0, 40, 0)
  assert {b.documents.path.rpartition("/")[0] for b in buckets} == {"runs/new/documents"}
  assert sum(record.documents for record in records if record.kind == "slice") == 40


def test_raw_files_are_those_that_hold_a_text_now(run):
  source = read(run)
  named = {name for record in source.records.buckets for name in record.raw_files}
  store = RawStore(source.storage, source.manifest["encoder"]["fingerprint"], 8)
  merged = store.write(DigestRange(0, 0), "gc", pa.concat_tables([store.read(name) for name in sorted(named)]))
  for name in named:
    source.storage.remove(f"{store.folder}/{name}")
  records = copy(run, source)
  assert {name for record in records if record.kind == "bucket" for name in record.raw_files} == {merged}


def lose_raw(run):
  next(run[0].glob("raw/*/*.parquet")).unlink()


def change(name, edit):
  def damage(run):
    path = sorted(run[1].glob(name))[0]
    edit(path)

  damage.__name__ = f"{edit.__name__}_{name}"
  return damage


def lose(path):
  path.unlink()


def cut(path):
  path.write_bytes(path.read_bytes()[:-3])


def empty(path):
  path.write_bytes(b"")


def of_another_kind(path):
  path.write_text('{"kind": "other"}\n')


def no_record(path):
  path.write_text("[1]\n")


def other_types(path):
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  path.write_text("".join(json.dumps(line | {"rejected": 3, "bucket": "x"}) + "\n" for line in lines))


def another_document(path):
  path.write_text(path.read_text().replace('"rows": ', '"rows": 1'))


def another_bucket(path):
  path.write_text(path.read_text().replace('"bucket": 0', '"bucket": 1').replace('"bucket": 3', '"bucket": 2'))


def outside(path):
  path.write_text(path.read_text().replace("runs/", "../runs/"))


RECORDS = "records/wave-000.jsonl"


@pytest.mark.parametrize(
  ("damage", "named"),
  [
    (change(RECORDS, lose), "records"),
    (change(RECORDS, cut), RECORDS),
    (change(RECORDS, empty), "records"),
    (change(RECORDS, of_another_kind), RECORDS),
    (change(RECORDS, no_record), RECORDS),
    (change(RECORDS, other_types), "records"),
    (change(RECORDS, another_document), "records"),
    (change(RECORDS, another_bucket), "records|raw/"),
    (change(RECORDS, outside), "records"),
    (change("records", shutil.rmtree), "records"),
    (change("documents/*", lose), "documents/.*missing"),
    (change("documents/*", flip), "documents/.*damaged"),
    (change("rejected/*", lose), "rejected/.*missing"),
    (change("rejected/*", cut), "rejected/.*damaged"),
    (change("moments-*", lose), "moments-.*missing"),
    (change("moments-*", flip), "moments-.*damaged"),
    (lose_raw, "no vector any more"),
  ],
  ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_missing_or_damaged_is_refused_by_name_and_nothing_is_published(run, damage, named):
  damage(run)
  with pytest.raises(StoreError, match=rf"^(runs|raw)/.*{named}") as caught:
    rewhiten(RewhitenOptions(dataset=str(run[0]), threads=1))
  assert "\n" not in str(caught.value) and "embed again with --again" in str(caught.value)
  assert len(list(run[0].glob("published/*"))) == 1


def slice_lost(records):
  return [record for record in records if record["kind"] != "slice" or record["file"] != 1]


def bucket_lost(records):
  return [record for record in records if record["kind"] != "bucket" or record["bucket"] != 1]


def other_rows(records):
  return [r | {"documents": r["documents"] | {"rows": 3}} if r["kind"] == "bucket" else r for r in records]


def one_number_for_all_buckets(records):
  return [r | {"bucket": 0} if r["kind"] == "bucket" else r for r in records]


def no_such_bucket(records):
  return [r | {"bucket": r["bucket"] + 1} if r["kind"] == "bucket" else r for r in records]


def no_such_file(records):
  return [r | {"file": 99} if r["kind"] == "slice" else r for r in records]


def foreign_rejects(records):
  stranger = {"path": "runs/other/rejected/x.jsonl", "rows": 1, "bytes": 1, "sha256": "0" * 64}
  return [r | {"files": [*r["files"], stranger]} for r in records]


@pytest.mark.parametrize(
  ("edit", "why"),
  [
    (slice_lost, "not what the run's 41 documents come to"),
    (bucket_lost, "not what the run's 41 documents come to"),
    (other_rows, "not what the run's 41 documents come to"),
    (one_number_for_all_buckets, "names a bucket twice, or one that there is not"),
    (no_such_bucket, "names a bucket twice, or one that there is not"),
    (no_such_file, "names an input file that there is not"),
    (foreign_rejects, "names a rejected file that the manifest does not"),
  ],
)
def test_records_are_held_to_the_manifest(run, edit, why):
  first, second = (run[1] / f"records/wave-00{number}.jsonl" for number in (0, 1))
  records = [json.loads(line) for path in (first, second) for line in path.read_text().splitlines()]
  second.unlink()
  first.write_text("".join(json.dumps(record) + "\n" for record in records))
  assert read(run).records.buckets
  first.write_text("".join(json.dumps(record) + "\n" for record in edit(records)))
  with pytest.raises(StoreError, match=rf"^runs/\w+/records: {why}; take another"):
    read(run)


@pytest.mark.parametrize(
  "changes",
  [{"buckets": 3}, {"buckets": "4"}, {"buckets": 1 << 17}, {"buckets": None}, {"inputs": [{}]}, {"inputs": [3]}],
)
def test_an_edited_manifest_is_refused(run, changes):
  manifest = json.loads((run[1] / "manifest.json").read_text())
  (run[1] / "manifest.json").write_text(json.dumps(manifest | changes))
  with pytest.raises(SorbusError, match=r"manifest\.json"):
    rewhiten(RewhitenOptions(dataset=str(run[0]), threads=1))


def test_a_run_without_documents_or_moments_is_refused(run):
  path, manifest = run[1] / "manifest.json", json.loads((run[1] / "manifest.json").read_text())
  path.write_text(json.dumps(manifest | {"files": {**manifest["files"], "moments": []}}))
  with pytest.raises(StoreError, match=r"manifest\.json: names no moments"):
    read(run).hidden_size()
  path.write_text(json.dumps(manifest | {"kept_columns": {"other": "string"}}))
  with pytest.raises(StoreError, match=r"keeps \['text'\], not the columns"):
    read(run).kept()
  path.write_text(json.dumps(manifest | {"files": {"vectors": []}}))
  with pytest.raises(UsageError, match="has no documents to whiten"):
    read(run)
