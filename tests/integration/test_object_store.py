"""Nights on an object store that fails at a tenth of the requests, held to the same nights on this machine."""

import datetime
import json
import threading
import uuid
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.choose_whitening import choose_whitening
from pipeline.collect_garbage import collect_garbage, plan_garbage
from pipeline.command_line import main
from pipeline.dataset import Dataset, find_whitening
from pipeline.lock import DatasetLock, Owner
from pipeline.options import EmbedOptions
from pipeline.publish_run import publish_run
from pipeline.search import Searcher
from pipeline.verify import verify_run
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.flaky_proxy import FAULTS
from tests.integration.run_files import NIGHT, embed_fake, made_up_texts, write_shards
from tests.integration.test_operations import commands, run
from tests.object_store import BUCKET, SECRET
from transforms.errors import RunHeldError, UsageError
from transforms.input_files import ReadOptions

TEXTS = made_up_texts(60)
EMBED = {"read": ReadOptions(id_column="id"), "n_components": 8, "buckets": 4, "threads": 2, "again": False}
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 16)
NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC)
FAILING = 0.1  # of the requests


@pytest.fixture
def url(proxy):
  """A place for a dataset on the object store."""
  return f"s3://{BUCKET}/{uuid.uuid4().hex}/dataset"


def published_rows(url):
  """The published rows by id, read by pyarrow alone."""
  dataset = Dataset.open(url)
  manifest = dataset.manifest(dataset.published().run_id)
  tables = [pq.read_table(pa.BufferReader(dataset.storage.read(file["path"]))) for file in manifest["files"]["vectors"]]
  return pa.concat_tables(table.replace_schema_metadata() for table in tables).sort_by("doc_id")


def assert_same_rows(url, local):
  here, there = published_rows(str(local)), published_rows(url)
  assert here.drop_columns(["vector"]).equals(there.drop_columns(["vector"]))
  vectors = [np.stack(table["vector"].to_pylist()) for table in (here, there)]
  np.testing.assert_allclose(*vectors, rtol=0, atol=1e-5)


def counts(outcome):
  return {key: value for key, value in outcome.manifest["counts"].items() if key != "computed_tokens"}


def test_nights_on_a_store_that_fails_are_the_same_as_here(url, proxy, tmp_path, monkeypatch):
  inputs, changed = write_shards(tmp_path / "1", TEXTS, 2), write_shards(tmp_path / "2", [*TEXTS[5:], "a new one"], 3)
  local = tmp_path / "dataset"
  here = [embed_fake(ENCODER, local, folder, **EMBED) for folder in (inputs, inputs, changed)]
  before = proxy.seen.copy()
  with proxy.unreliable(FAILING):
    first = embed_fake(ENCODER, url, inputs, **EMBED)
    assert first.status == "published" and counts(first) == counts(here[0])
    same = embed_fake(ENCODER, url, inputs, **EMBED)
    assert (same.status, same.manifest) == ("unchanged", first.manifest) and here[1].status == "unchanged"
    third = embed_fake(ENCODER, url, changed, **EMBED)
    assert third.status == "published" and counts(third) == counts(here[2])
    assert third.manifest["counts"]["encoded"] == 1
    assert_same_rows(url, local)

    dataset = Dataset.open(url)
    assert len(dataset.run_ids()) == 2 and not dataset.storage.names(f"runs/{third.manifest['run_id']}/progress")
    for outcome in (first, third):
      checks = verify_run(dataset, outcome.manifest["run_id"])
      assert all(check.passed for check in checks), checks

    monkeypatch.setattr("pipeline.search.load_encoder", lambda *_, **__: ENCODER.load())
    monkeypatch.setattr("pipeline.search.read_spec", lambda *_: ENCODER.spec)
    hits, hits_here = (Searcher.open(place).search(TEXTS[9], 5) for place in (url, str(local)))
    assert [hit.doc_id for hit in hits] == [hit.doc_id for hit in hits_here]
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)

    assert publish_run(dataset, first.manifest["run_id"]).number == 3  # a rollback
    assert dataset.published().run_id == first.manifest["run_id"]
    fingerprint = first.manifest["whitening"]["fingerprint"]
    run, file = f"runs/{first.manifest['run_id']}", first.manifest["files"]["whitening"][0]["path"]
    assert {find_whitening(f"{url}/{path}").fingerprint for path in ("", run, file)} == {fingerprint}
    asked = EmbedOptions(inputs=("x",), encoder="e", dataset=url, whitening=f"{url}/{file}")
    assert choose_whitening(asked, ENCODER.spec, dataset.published()).fit.given.fingerprint == fingerprint
    publish_run(dataset, third.manifest["run_id"])
    collect_garbage(dataset, plan_garbage(dataset, keep_runs=1))
    assert not dataset.storage.walk(f"runs/{first.manifest['run_id']}")
    assert all(check.passed for check in verify_run(dataset, third.manifest["run_id"]))
  assert all((proxy.seen - before)[fault] for fault in FAULTS)


def test_the_command_line_takes_its_address(url, tiny_encoder, tmp_path, capsys):
  inputs = write_shards(tmp_path / "input", ["the rain", "the sun", "a tree", "not he", "she had it"], 1)
  command = [*NIGHT, "--input", str(inputs), "--encoder", tiny_encoder, "--dataset", url, "--id-column", "id"]
  command += ["--threads", "1", "--n-components", "2"]
  assert main(command) == 0
  (run_id,) = Dataset.open(url).run_ids()
  assert capsys.readouterr().out.splitlines()[-1] == f"published: {url}/runs/{run_id}/vectors"
  assert main(["show", url, "--json"]) == 0
  assert json.loads(capsys.readouterr().out)["dataset"] == url
  assert main(["search", url, "the rain", "-k", "1", "--json"]) == 0
  assert "000000" in capsys.readouterr().out
  assert main(["verify", url]) == main(["publish", url, run_id]) == 0
  plan = Dataset.open(url).storage.read(f"runs/{run_id}/plan.json")
  assert SECRET.encode() not in plan + Dataset.open(url).storage.read(f"runs/{run_id}/manifest.json")

  assert main(["search", f"{url}/nothing", "the rain"]) == 2
  assert f"{url}/nothing: no Sorbus dataset is there" in capsys.readouterr().err


def test_the_page_as_it_stands(proxy, tiny_encoder, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "encoder").symlink_to(tiny_encoder)
  write_shards(tmp_path / "articles", TEXTS, 2)
  for line in commands("On an object store"):
    run(line)
  assert "FAILED" not in capsys.readouterr().out


def test_another_job_holds_it(url, tmp_path):
  inputs = write_shards(tmp_path / "input", TEXTS, 1)
  dataset = Dataset.open_or_create(url, {"fingerprint": ENCODER.spec.fingerprint, "tokenizer": {}})
  lock = DatasetLock(dataset.storage)
  number = lock.acquire(replace(Owner.here("embed"), host="elsewhere"))
  with pytest.raises(RunHeldError, match=rf"^{url}: `sorbus embed` .* holds it, last seen \d+ s ago"):
    embed_fake(ENCODER, url, inputs, **EMBED)
  assert dataset.run_ids() == []
  lock.release(number)
  assert embed_fake(ENCODER, url, inputs, **EMBED).status == "published"


def test_of_two_publishers_exactly_one_wins(url, proxy):
  rounds, barrier = 20, threading.Barrier(2)
  dataset = Dataset.open_or_create(url, {"fingerprint": "ab", "tokenizer": {}})
  seen = {"a": [], "b": []}

  def publish(me):
    for base in range(rounds):
      barrier.wait()
      seen[me].append(dataset.publish(f"{me}{base}", base, NOON).run_id)

  with proxy.unreliable(FAILING, "500", "dropped", "lost"):
    threads = [threading.Thread(target=publish, args=(me,)) for me in seen]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert seen["a"] == seen["b"] and len(seen["a"]) == rounds  # both are told the same, whatever was lost
  assert [run_id[1:] for run_id in seen["a"]] == [str(base) for base in range(rounds)]
  assert [dataset.published_entry(number + 1).run_id for number in range(rounds)] == seen["a"]


def test_a_service_that_ignores_conditions_is_no_place_for_a_dataset(url, proxy, monkeypatch):
  forward = proxy.forward

  def ignoring(method, path, headers, body):
    return forward(method, path, {k: v for k, v in headers.items() if k.lower() != "if-none-match"}, body)

  monkeypatch.setattr(proxy, "forward", ignoring)
  with pytest.raises(UsageError, match=rf"^--dataset {url}: this file system lets two writers create the same file"):
    Dataset.open_or_create(url, {"fingerprint": "ab", "tokenizer": {}})
