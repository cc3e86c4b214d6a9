"""A migration to another encoder, its rollback, and what a search answers all the while."""

import json
import re
import threading
from functools import partial
from pathlib import Path

import pytest

from pipeline.command_line import main
from pipeline.search import Searcher
from tests.integration.run_files import NIGHT, made_up_texts, published_runs, write_shards
from tests.processes import wait_for
from transforms.encoder import load_encoder
from transforms.errors import UsageError

TEXTS = made_up_texts(40)
QUERY = TEXTS[7]


@pytest.fixture
def encoders(tiny_encoder, other_encoder):
  """Two of one width, so that nothing but the numbers would tell a mixture."""
  return tiny_encoder, other_encoder


@pytest.fixture
def night(encoders, tmp_path):
  """The command of a night, all but the encoder; the first one is published with the old encoder."""
  inputs = write_shards(tmp_path / "input", TEXTS, 2)
  command = [*NIGHT, "--input", str(inputs), "--id-column", "id", "--dataset", str(tmp_path / "dataset")]
  command += ["--n-components", "8", "--threads", "1", "--buckets", "2"]
  assert main([*command, "--encoder", encoders[0]]) == 0
  return command, tmp_path / "dataset"


def answer(dataset, encoder=None):
  """What a search that starts now finds, to the bit."""
  hits = Searcher.open(str(dataset), encoder, threads=1).search(QUERY, 5)
  return tuple((hit.doc_id, hit.score) for hit in hits)


def test_at_no_moment_is_there_an_answer_from_a_mixture(night, encoders):
  command, dataset = night
  (first,) = published_runs(dataset)
  (dataset / "LATEST").write_text("a hint for people\n")
  seen, failed, stop = [], [], threading.Event()

  def search_all_the_time():
    try:
      while not stop.is_set():
        seen.append(answer(dataset))
    except BaseException as error:
      failed.append(error)
      raise

  def settle():
    settled.append(answer(dataset))
    before = len(seen)
    wait_for(lambda: failed or len(seen) > before + 2, "both have begun anew")

  threads, settled = [threading.Thread(target=search_all_the_time) for _ in range(2)], []
  for thread in threads:
    thread.start()
  try:
    settle()
    assert main([*command, "--encoder", encoders[1], "--new-encoder"]) == 0
    settle()
    for _ in range(2):  # back by hand, forward by hand
      for run_id in (first, published_runs(dataset)[1]):
        assert main(["publish", str(dataset), run_id]) == 0
        settle()
  finally:
    stop.set()
    for thread in threads:
      thread.join()
  old, new, *_ = settled
  assert settled == [old, new, old, new, old, new] and old != new
  assert not failed and set(seen) == {old, new}


def test_a_night_needs_the_flag_where_the_encoder_is_not_the_published_runs(night, encoders, capsys):
  command, dataset = night
  old, new = ([*command, "--again", "--encoder", encoder] for encoder in encoders)
  before = (dataset / "dataset.json").read_bytes()
  assert main(new) == 2
  error = capsys.readouterr().err
  assert "--new-encoder" in error
  assert all(load_encoder(encoder, 1).spec.fingerprint[:16] in error for encoder in encoders)
  assert main([*new, "--new-encoder"]) == 0
  assert "new encoder" in capsys.readouterr().err
  first, second = published_runs(dataset)
  assert len(list((dataset / "raw").iterdir())) == 2
  assert main(new) == 0  # the dataset is of it now
  assert main(old) == 2
  assert main(["publish", str(dataset), first]) == 0
  assert main(old) == 0
  assert main(new) == 2
  assert main(["verify", str(dataset), "--run", second]) == 0
  assert (dataset / "dataset.json").read_bytes() == before


def test_a_migration_that_a_gate_holds_back_leaves_the_old_run_published(night, encoders, capsys):
  command, dataset = night
  before = answer(dataset)
  shard = next(Path(command[command.index("--input") + 1]).iterdir())
  shard.write_text(shard.read_text() + '{"id": "bad", "text": null}\n')
  new = [*command, "--encoder", encoders[1], "--max-rejected", "0"]
  assert main([*new, "--new-encoder"]) == 1
  assert answer(dataset) == before and len(published_runs(dataset)) == 1
  assert main(new) == 2  # and so the dataset is still of the old encoder
  capsys.readouterr()


def test_search_refuses_another_encoder(night, encoders):
  with pytest.raises(UsageError, match=r"the published run is of .*; name that with --encoder"):
    answer(night[1], encoders[1])


def test_search_refuses_an_encoder_that_was_replaced_while_it_was_opened(night, encoders, monkeypatch):
  replaced = partial(load_encoder, encoders[1])
  monkeypatch.setattr("pipeline.search.load_encoder", lambda folder, *args, **how: replaced(*args, **how))
  with pytest.raises(UsageError, match="the published run is of"):
    answer(night[1])


def test_the_self_test_of_a_run_is_in_its_manifest_and_can_hold_it_back(night, encoders, capsys):
  command, dataset = night
  (first,) = published_runs(dataset)
  capsys.readouterr()
  assert main(["show", str(dataset), "--json"]) == 0
  verdict = json.loads(capsys.readouterr().out)["run"]["verdicts"]["self-test"]
  assert verdict["passed"] and re.fullmatch(
    r"the encoder's self-test is off by \d\S*, \d\S* allowed", verdict["finding"]
  )
  assert main([*command, "--encoder", encoders[0], "--max-self-test-error", "0", "--json"]) == 1
  assert not json.loads(capsys.readouterr().out)["run"]["verdicts"]["self-test"]["passed"]
  assert published_runs(dataset) == [first]
  assert main([*command, "--encoder", encoders[0], "--max-self-test-error", "1"]) == 2
  assert "a job beyond it does not start; choose 0 to" in capsys.readouterr().err
