"""A night after a night: nothing done where nothing changed, one job at a time, verified and rolled back by hand."""

import datetime
import json
import os
import re
from dataclasses import replace

import pytest

from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.embed import embed
from pipeline.graph import Loaders
from pipeline.lock import DatasetLock, Owner
from pipeline.options import EmbedOptions
from tests.fake_encoder import FailingEncoder, FakeEncoder, make_vocabulary
from tests.integration.run_files import NIGHT, embed_fake, made_up_texts, published_runs, run_folder, write_shards
from transforms import rejected
from transforms.errors import RunHeldError
from transforms.input_files import ReadOptions
from transforms.storage import Storage

TEXTS = made_up_texts(60)
EMBED = {"read": ReadOptions(id_column="id"), "n_components": 8, "buckets": 4, "threads": 1}
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 16)


def no_encoder():
  raise AssertionError("an encoder was loaded")


@pytest.fixture
def night(tmp_path):
  """A dataset of one published run, and its input."""
  inputs = write_shards(tmp_path / "input", TEXTS, 2)
  outcome = embed_fake(ENCODER, tmp_path / "dataset", inputs, **EMBED)
  assert outcome.status == "published"
  return tmp_path / "dataset", inputs, outcome.manifest


def next_night(night, **options):
  return embed_fake(ENCODER, night[0], night[1], again=False, **(EMBED | options))


# --- unchanged


def test_the_same_night_again_does_nothing_and_loads_nothing(night):
  dataset, inputs, manifest = night
  options = EmbedOptions(inputs=(str(inputs),), encoder="fake", dataset=str(dataset), **EMBED)
  before = sorted(dataset.rglob("*"))
  outcome = embed(options, Loaders(no_encoder, no_encoder), ENCODER.spec)
  assert (outcome.status, outcome.exit_code, outcome.manifest) == ("unchanged", 0, manifest)
  assert sorted(dataset.rglob("*")) == before
  assert embed_fake(ENCODER, dataset, inputs, **EMBED, again=True).status == "published"


def other_file(dataset, inputs):
  (inputs / "more.jsonl").write_text('{"id": "more", "text": "one more"}\n')


def other_time(dataset, inputs):
  path = next(inputs.iterdir())
  os.utime(path, (1_000_000_000, 1_000_000_000))


def fewer_files(dataset, inputs):
  next(inputs.iterdir()).unlink()


def lost_shard(dataset, inputs):
  next(dataset.glob("runs/*/vectors/*")).unlink()


def cut_shard(dataset, inputs):
  path = next(dataset.glob("runs/*/vectors/*"))
  path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("change", [other_file, other_time, fewer_files, lost_shard, cut_shard])
def test_a_change_makes_a_new_run(night, change):
  change(night[0], night[1])
  outcome = next_night(night)
  assert outcome.status == "published"
  assert published_runs(night[0]) == [night[2]["run_id"], outcome.manifest["run_id"]]


@pytest.mark.parametrize(
  "options",
  [
    {"n_components": 4, "whitening": "fit"},
    {"refit_above": 0.5},
    {"whitening": "none", "n_components": None},
    {"limit": 59},
    {"max_rejected": 0.5},
    {"max_shrink": 0.4},
    {"max_broken": 0.01},
    {"read": ReadOptions(id_column="id", keep_columns=("text",))},
  ],
)
def test_another_option_makes_a_new_run(night, options):
  assert next_night(night, **options).status == "published"


def test_another_whitening_in_the_same_file_makes_a_new_run(night, tmp_path):
  path, other = tmp_path / "w.npz", next(night[0].glob("runs/*/whitening-*.npz")).read_bytes()
  path.write_bytes(other)
  asked = {"whitening": str(path), "n_components": None}
  assert next_night(night, **asked).status == "published"
  assert next_night(night, **asked).status == "unchanged"
  fitted = embed_fake(ENCODER, tmp_path / "other", night[1], **(EMBED | {"limit": 40})).manifest
  path.write_bytes(next(run_folder(tmp_path / "other", fitted).glob("whitening-*.npz")).read_bytes())
  assert next_night(night, **asked).status == "published"


def test_what_another_number_of_threads_would_publish_is_the_same(night):
  assert next_night(night, threads=2, memory_budget=2 << 30).status == "unchanged"


def test_the_command_line_says_that_nothing_was_done(tiny_encoder, tmp_path, capsys):
  inputs = write_shards(tmp_path / "input", ["the rain", "the sun", "a tree", "not he", "she had it"], 1)
  command = [*NIGHT, "--input", str(inputs), "--encoder", tiny_encoder, "--dataset", str(tmp_path / "dataset")]
  command += ["--id-column", "id", "--threads", "1", "--n-components", "2"]
  assert main(command) == 0
  assert capsys.readouterr().out.splitlines()[-1].startswith("published: ")
  assert main(command) == 0
  captured = capsys.readouterr()
  (run_id,) = published_runs(tmp_path / "dataset")
  assert captured.out == f"unchanged: {tmp_path}/dataset/runs/{run_id}/vectors\n"
  assert "--again" in captured.err
  assert main([*command, "--json"]) == 0
  assert json.loads(capsys.readouterr().out)["status"] == "unchanged"
  assert main([*command, "--again"]) == 0
  assert len(published_runs(tmp_path / "dataset")) == 2


@pytest.mark.parametrize("content", [None, b"{", b'{"format_version": 1}'])
def test_a_published_run_whose_manifest_is_damaged_is_replaced_by_a_new_one(night, capsys, content):
  path = run_folder(night[0], night[2]) / "manifest.json"
  path.unlink() if content is None else path.write_bytes(content)
  outcome = next_night(night)
  assert outcome.status == "published"
  assert (outcome.manifest["counts"]["encoded"], outcome.manifest["counts"]["written"]) == (0, 60)
  assert "warning: this run cannot be compared with the published one" in capsys.readouterr().err


# --- fewer documents


def test_a_night_that_lost_most_of_its_input_is_held_back_until_a_person_allows_it(night):
  (night[1] / "documents-00000-of-00002.jsonl").unlink()
  outcome = next_night(night, max_shrink=0.49)
  assert (outcome.status, outcome.exit_code) == ("held back", 1)
  assert outcome.manifest["verdicts"]["rows"]["finding"].startswith("30 rows after 60 (50.00% fewer), 49.00% allowed")
  assert published_runs(night[0]) == [night[2]["run_id"]]
  outcome = next_night(night)
  assert outcome.status == "published"
  assert outcome.manifest["counts"]["encoded"] == 0


# --- one at a time


def test_a_second_job_is_refused_and_leaves_nothing(night):
  dataset = night[0]
  lock = DatasetLock(Storage.at(str(dataset)))
  number = lock.acquire(replace(Owner.here("embed"), host="elsewhere"))
  runs = sorted((dataset / "runs").iterdir())
  with pytest.raises(RunHeldError, match=r"on elsewhere, since .* --wait"):
    embed_fake(ENCODER, dataset, night[1], **EMBED)
  assert sorted((dataset / "runs").iterdir()) == runs
  lock.release(number)
  assert embed_fake(ENCODER, dataset, night[1], **EMBED).status == "published"
  assert lock.holder() is None


def test_who_waits_builds_on_what_was_published_meanwhile(night, monkeypatch):
  dataset, inputs, manifest = night
  storage = Storage.at(str(dataset))
  number = DatasetLock(storage).acquire(replace(Owner.here("embed"), host="elsewhere"))

  def others_publish(_):
    Dataset(storage).publish(manifest["run_id"], 1, datetime.datetime.now(datetime.UTC))
    DatasetLock(storage).release(number)

  monkeypatch.setattr("pipeline.lock.time.sleep", others_publish)
  outcome = embed_fake(ENCODER, dataset, inputs, **EMBED, wait=True)
  assert (outcome.status, outcome.manifest["base"]) == ("published", 2)
  assert published_runs(dataset) == [manifest["run_id"], manifest["run_id"], outcome.manifest["run_id"]]


def test_the_lock_is_free_after_a_run_that_failed(night):
  class Broken(FakeEncoder):
    def encode(self, input_ids, input_mask):
      raise ZeroDivisionError

  (night[1] / "more.jsonl").write_text('{"id": "more", "text": "one more"}\n')
  with pytest.raises(Exception, match="ZeroDivisionError"):
    embed_fake(Broken(ENCODER.vocabulary, 16), night[0], night[1], **EMBED)
  assert DatasetLock(Storage.at(str(night[0]))).holder() is None


# --- verify, publish


def test_verify_passes_and_says_what_it_found(night, capsys):
  assert main(["verify", str(night[0])]) == 0
  out = " ".join(capsys.readouterr().out.split())
  assert f"run {night[2]['run_id']}" in out
  assert "vectors passed 60 rows, all of length 1" in out
  assert main(["verify", str(night[0]), "--run", night[2]["run_id"], "--json"]) == 0
  shown = json.loads(capsys.readouterr().out)
  assert {check["name"] for check in shown["checks"] if check["passed"]} >= {"files", "raw files", "ids", "counts"}


def test_verify_fails_with_exit_code_1(night, capsys):
  cut_shard(night[0], night[1])
  assert main(["verify", str(night[0])]) == 1
  assert re.search(r"files\s+FAILED", capsys.readouterr().out)


def test_a_rollback_by_the_command_line_is_what_search_reads(night, capsys):
  first = night[2]["run_id"]
  second = embed_fake(ENCODER, night[0], night[1], **EMBED).manifest["run_id"]
  assert main(["publish", str(night[0]), first]) == 0
  assert capsys.readouterr().out == f"published: {night[0]}/runs/{first}/vectors (number 3)\n"
  assert main(["publish", str(night[0]), first, "--json"]) == 0
  assert json.loads(capsys.readouterr().out) == {"status": "published", "run_id": first, "number": 3}
  assert published_runs(night[0]) == [first, second, first]
  assert (night[0] / "LATEST").read_text() == f"{first}\n"


@pytest.mark.parametrize("command", [["verify"], ["publish"]])
def test_a_run_that_is_not_there_is_refused(night, capsys, command):
  run = ["--run", "nothing"] if command == ["verify"] else ["nothing"]
  assert main([*command, str(night[0]), *run]) == 2
  assert "no run 'nothing'" in capsys.readouterr().err


# --- an encoder that fails


def test_a_text_that_makes_the_graph_fail_is_rejected_alone_and_a_batch_too_large_is_halved(tmp_path):
  texts = list(TEXTS)
  texts[17] = texts[18] = f"{texts[17]} red"
  inputs = write_shards(tmp_path / "input", texts, 2)
  outcome = embed_fake(
    FailingEncoder(TEXTS, most=3), tmp_path / "dataset", inputs, **EMBED, max_rejected=0.1, max_broken=0.1
  )
  assert outcome.status == "published"
  counts = outcome.manifest["counts"]
  assert counts["rejected"] == {rejected.ENCODER_FAILED: 2}
  assert (counts["written"], counts["encoded"]) == (58, 58)
  folder = run_folder(tmp_path / "dataset", outcome.manifest)
  lines = [json.loads(line) for path in folder.glob("rejected/*") for line in path.read_text().splitlines()]
  assert sorted(line["doc_id"] for line in lines) == ["000017", "000018"]
  assert {line["detail"] for line in lines} == {"graph: node 'x' cannot be computed (red); freeze again"}


def test_an_encoder_that_always_fails_publishes_nothing(tmp_path):
  inputs = write_shards(tmp_path / "input", TEXTS, 1)
  outcome = embed_fake(FailingEncoder(TEXTS, most=0), tmp_path / "dataset", inputs, **EMBED)
  assert outcome.status == "held back"
  assert outcome.manifest["counts"]["rejected"] == {rejected.ENCODER_FAILED: 60}
  assert not outcome.manifest["verdicts"]["vectors"]["passed"]


def test_more_than_a_few_that_the_encoder_failed_on_are_held_back_however_many_may_be_rejected(tmp_path):
  inputs = write_shards(tmp_path / "input", [*TEXTS[:58], f"{TEXTS[58]} red", f"{TEXTS[59]} red"], 2)
  outcome = embed_fake(FailingEncoder(TEXTS), tmp_path / "dataset", inputs, **EMBED, max_rejected=0.1)
  assert (outcome.status, outcome.exit_code) == ("held back", 1)
  failed = {gate for gate, verdict in outcome.manifest["verdicts"].items() if not verdict["passed"]}
  assert failed == {"vectors"}
