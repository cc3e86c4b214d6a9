import datetime
import json

import numpy as np
import pytest

from pipeline import report_facts
from pipeline.dataset import Dataset, to_json
from pipeline.report_facts import Sum, find_attention, find_reasons, find_stages, find_status, find_sums, gather
from tests.manifests import MANIFEST, manifest
from tests.report_runs import HOSTILE, N_BAD, N_GONE, N_NULL, N_TEXTS

NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC)


def facts_of(dataset, number=-1, **options):
  return gather(dataset, dataset.run_ids()[number], NOON, **options)


def test_counts_add_up_and_one_that_does_not_is_told():
  sums = find_sums(MANIFEST)
  assert [s.name for s in sums] == ["read", "written", "distinct"] and all(s.holds for s in sums)
  assert sums[0] == Sum("read", 12345, (("written", 12000), ("rejected", 345)))
  assert [s.holds for s in find_sums(manifest(counts={"unchanged": 10_999}))] == [True, False, True]
  assert [s.name for s in find_sums(manifest(whitening={"refused": "too few"}))] == ["distinct"]


def test_stages_know_their_tokens_and_a_run_that_encoded_nothing_divides_by_nothing():
  read, encode, write = find_stages(MANIFEST)
  assert (read.number, read.seconds, write.number, write.seconds) == (12345, 10.0, 12000, 2.0)
  assert (encode.number, encode.tokens, round(encode.padding, 6)) == (1000, 18000, 0.1)
  assert find_stages(manifest(counts={"encoded_tokens": 0, "computed_tokens": 0}))[1].padding == 0


def test_what_to_look_into():
  assert find_attention(MANIFEST) == []
  refused = {"rejected": {"passed": False, "finding": "too many"}}
  bad = manifest(verdicts=refused, counts={"unknown_tokens": 144_000, "truncated": 9000}, bad_files=["a.gz is damaged"])
  few = manifest(whitening={"count": 150, "n_components": 127})
  assert [line[:68] for line in find_attention(few)] == [
    "150 documents are few to fit a whitening of 127 components: below 10"
  ]
  held, unknown, truncated, file = find_attention(bad)
  assert held == "rejected: too many" and file == "bad files: a.gz is damaged"
  assert unknown.startswith("60% of the tokens are unknown") and truncated.startswith("75% of the documents are cut")


@pytest.mark.parametrize(
  ("clipped", "lines"), [(0, []), (1234, ["1,234 values lay beyond their range and were clipped"])]
)
def test_clipped_values_are_to_be_looked_into(clipped, lines):
  found = find_attention(MANIFEST | {"vectors": {"type": "int8", "clipped": clipped}})
  assert found == [f"vectors are stored as int8; {line}" for line in lines]


@pytest.mark.parametrize(
  ("published", "passed", "status"),
  [
    ([], True, "not published"),
    ([], False, "held back"),
    (["r1"], True, "published"),
    (["r1"], False, "published"),  # by a person, although
    (["r2"], True, "overtaken"),
    (["r1", "r2"], True, "published before"),
  ],
)
def test_what_has_become_of_a_run(tmp_path, published, passed, status):
  dataset = Dataset.open_or_create(str(tmp_path / "ds"), {"fingerprint": "ab", "tokenizer": {}})
  value = manifest(verdicts={"rejected": {"passed": passed, "finding": "…"}})
  for run_id in ("r1", "r2"):
    dataset.storage.write(f"runs/{run_id}/manifest.json", to_json(value | {"run_id": run_id}))
  for base, run_id in enumerate(published):
    dataset.publish(run_id, base, NOON)
  assert find_status(dataset, value) == status


def test_a_run_whole(reported):
  facts = facts_of(reported)
  written = N_TEXTS - N_GONE + 1
  assert (facts.status, facts.problems, facts.attention) == ("published", {}, ())
  assert [(s.total, s.holds) for s in facts.sums[:2]] == [(written + N_BAD + N_NULL, True), (written, True)]
  assert facts.inputs[0] | {"url": "", "version": ""} == {
    "name": "documents.jsonl",
    "url": "",
    "version": "",
    "bytes": facts.inputs[0]["bytes"],
    "read": written + N_BAD + N_NULL,
    "written": written,
    "rejected": N_BAD + N_NULL,
  }
  assert facts.sample.rows == written and facts.spectrum.n_components == 15
  # What whitening is for: raw vectors have a direction in common, whitened ones have none.
  assert facts.cosines.before.mean() > 0.5 > 0.1 > abs(facts.cosines.after.mean())
  assert facts.comparison.run_id == reported.run_ids()[0] and facts.drift[0].startswith("drift under the whitening")
  assert facts_of(reported, 0).comparison is None


def test_rejected_documents_are_named_and_their_texts_shown_only_when_asked_for(reported):
  nul, null = facts_of(reported).reasons
  assert [(r.name, r.number, len(r.examples)) for r in (nul, null)] == [
    ("NUL character", N_BAD, 5),
    ("null", N_NULL, 5),
  ]
  assert nul.examples[0]["doc_id"] == "bad 0" and nul.examples[0]["file"] == "documents.jsonl"
  assert all(e["text"] is None and e["detail"] == "" for e in (*nul.examples, *null.examples))
  with_texts = facts_of(reported, with_texts=True).reasons[0].examples[0]
  assert with_texts["text"] == f"  secret\0{HOSTILE}" and with_texts["detail"] == "character 8"


def test_examples_are_looked_for_in_so_many_bytes_and_where_that_is_not_all_it_is_told(reported, tmp_path, monkeypatch):
  files = [
    {"path": "rejected-0", "bytes": 60, "rows": 1, "sha256": ""},
    {"path": "rejected-1", "bytes": 60, "rows": 1, "sha256": ""},
    {"path": "rejected-2", "bytes": 60, "rows": 1, "sha256": ""},
  ]
  dataset = Dataset.open_or_create(str(tmp_path / "ds"), {"fingerprint": "ab", "tokenizer": {}})
  for number, file in enumerate(files):
    dataset.storage.write(file["path"], json.dumps({"reason": "null", "doc_id": f"{number}"}).encode())
  value = manifest(files={"rejected": files})
  value["counts"]["rejected"] = {"null": 3, "too long": 1}
  monkeypatch.setattr(report_facts, "MAX_REJECTED_BYTES", 120)
  null, long = find_reasons(dataset, value, with_texts=False)
  assert [e["doc_id"] for e in null.examples] == ["0", "1"] and null.is_short and long.is_short
  monkeypatch.setattr(report_facts, "MAX_REJECTED_BYTES", 121)
  null, long = find_reasons(dataset, value, with_texts=False)
  assert len(null.examples) == 3 and not null.is_short and long.is_short
  assert not any(reason.is_short for reason in facts_of(reported).reasons)


def test_texts_are_shown_only_when_asked_for_and_only_those_that_were_kept(reported):
  without = facts_of(reported)
  assert (without.text_columns, without.map, without.neighbours, without.sample.texts) == ((), None, (), None)
  facts = facts_of(reported, with_texts=True)
  assert facts.text_columns == ("text",) and len(facts.neighbours) == 5
  assert len(facts.points) == len(facts.map.points) == facts.sample.rows
  first = facts.neighbours[0]
  assert first.text == dict(zip(facts.sample.doc_ids, facts.sample.texts, strict=True))[first.doc_id]
  assert first.doc_id not in [doc_id for _, doc_id, _ in first.nearest]
  assert sorted((c for c, _, _ in first.nearest), reverse=True) == [c for c, _, _ in first.nearest]


def test_where_no_column_was_kept_it_is_said(reported, tmp_path):
  dataset = copy_of(reported, tmp_path, kept_columns={})
  facts = gather(dataset, dataset.run_ids()[-1], NOON, with_texts=True)
  assert "keeps no text" in facts.problems["texts"] and facts.map is None and facts.reasons[0].examples[0]["text"]


def copy_of(dataset, folder, **changes):
  """A dataset whose newest run has the files of `dataset`, and a manifest with other values."""
  import shutil

  shutil.copytree(dataset.storage.root, folder / "ds")
  copy = Dataset.open(str(folder / "ds"))
  path = folder / "ds/runs" / copy.run_ids()[-1] / "manifest.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  return copy


def test_what_is_lost_is_told_and_the_rest_is_there(reported, tmp_path):
  dataset = copy_of(reported, tmp_path)
  run_id = dataset.run_ids()[-1]
  for path in (tmp_path / "ds/raw").rglob("*.parquet"):
    path.unlink()
  for path in (tmp_path / "ds/runs" / run_id).glob("*.npz"):
    path.unlink()
  facts = gather(dataset, run_id, NOON, with_texts=True)
  assert facts.problems.keys() == {"spectrum", "cosines"} and facts.problems["cosines"].startswith("0 texts")
  assert facts.map is not None and facts.sample.rows  # of reduced vectors, then
  for path in (tmp_path / "ds/runs" / run_id).glob("vectors/*"):
    path.write_bytes(b"damaged")
  facts = gather(dataset, run_id, NOON)
  assert facts.problems.keys() == {"rows", "spectrum", "cosines", "map"} and "damaged" in facts.problems["rows"]
  assert facts.sums[0].holds


def test_the_same_run_gives_the_same_facts(reported):
  one, other = (facts_of(reported, with_texts=True) for _ in range(2))
  assert one.points == other.points and one.neighbours == other.neighbours
  np.testing.assert_array_equal(one.map.points, other.map.points)
  np.testing.assert_array_equal(one.cosines.after, other.cosines.after)
