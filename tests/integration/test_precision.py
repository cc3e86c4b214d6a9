"""Runs in another precision, by the command line: what is encoded, recorded, searched and refused."""

import json

import numpy as np
import pytest

from pipeline import choose_precision
from pipeline.command_line import main
from pipeline.embed import load_same_encoder
from pipeline.search import Searcher
from tests.integration.run_files import NIGHT, made_up_texts, read_raw, write_shards
from transforms import encoder
from transforms.encoder import load_encoder, read_spec

TEXTS = made_up_texts(40)


@pytest.fixture
def night(tiny_encoder, tmp_path):
  inputs = write_shards(tmp_path / "input", TEXTS, 2)
  command = [*NIGHT, "--input", str(inputs), "--id-column", "id", "--dataset", str(tmp_path / "dataset")]
  command += ["--encoder", tiny_encoder, "--n-components", "8", "--threads", "1", "--buckets", "2"]
  return command, tmp_path / "dataset"


def manifest_of(dataset):
  return Searcher.open(str(dataset)).manifest


def test_corpus_and_query_are_encoded_alike(night, tiny_encoder, capsys):
  command, dataset = night
  command = [*command, "--precision", "bfloat16"]
  assert main(command) == 0
  spec = read_spec(tiny_encoder).at("bfloat16")
  manifest = manifest_of(dataset)
  recorded = {"fingerprint": spec.fingerprint, "precision": "bfloat16"}
  assert {key: manifest["encoder"][key] for key in recorded} == recorded
  plan = json.loads((dataset / "runs" / manifest["run_id"] / "plan.json").read_text())
  assert plan["encoder"] == manifest["encoder"] and [path.name for path in (dataset / "raw").iterdir()] == [
    spec.fingerprint
  ]
  assert "in 1 - cosine (bfloat16), 0.001 allowed" in manifest["verdicts"]["self-test"]["finding"]
  assert f"({spec.fingerprint[:12]}), precision bfloat16" in capsys.readouterr().out

  searcher = Searcher.open(str(dataset), threads=1)
  assert searcher.encoder.spec.precision == "bfloat16"
  raw, plain = read_raw(dataset, TEXTS), load_encoder(tiny_encoder).encode_texts(TEXTS)
  np.testing.assert_allclose(searcher.encoder.encode_texts(TEXTS), raw, atol=0.05)
  assert 1e-4 < np.abs(raw - plain).max() < 0.1  # bfloat16, and not float32 under its name
  assert searcher.search(TEXTS[7], 1)[0].doc_id == "000007"
  assert main(command) == 0
  assert manifest_of(dataset)["run_id"] == manifest["run_id"], "unchanged"


def test_another_precision_is_a_migration_and_auto_stays(night, capsys):
  command, dataset = night
  assert main(command) == 0
  capsys.readouterr()
  assert main([*command, "--precision", "bfloat16"]) == 2
  _, said = capsys.readouterr().err.splitlines()  # after the line that every job ends with
  assert "the same in precision float32, not of this one" in said
  assert "add --precision float32 or another --dataset, or migrate with --new-encoder" in said
  assert main([*command, "--precision", "auto", "--again"]) == 0
  assert "precision float32: the dataset's\n" in capsys.readouterr().err
  assert main([*command, "--precision", "bfloat16", "--new-encoder"]) == 0
  assert main([*command, "--precision", "auto"]) == 0
  assert "precision bfloat16: the dataset's\n" in capsys.readouterr().err
  assert manifest_of(dataset)["encoder"]["precision"] == "bfloat16"


def test_auto_of_a_new_dataset_is_this_machines(night, monkeypatch, capsys):
  command, dataset = night
  monkeypatch.setattr(choose_precision, "processor_flags", lambda: frozenset({"amx_bf16"}))
  assert main([*command, "--precision", "auto"]) == 0
  assert "precision bfloat16: this processor has amx_bf16; lowest cosine" in capsys.readouterr().err
  assert manifest_of(dataset)["encoder"]["precision"] == "bfloat16"


@pytest.mark.parametrize("error", [5e-13, 3e-5])
def test_bfloat16_that_comes_out_as_float32_is_warned_of(night, error, monkeypatch, capsys):
  command, _ = night
  monkeypatch.setattr(encoder, "check_encoder", lambda encoder: error)
  load_same_encoder.cache_clear()
  try:
    assert main([*command, "--precision", "bfloat16", "--limit", "20"]) == 0
  finally:
    load_same_encoder.cache_clear()
  said = "warning: precision bfloat16: TensorFlow computes float32 here" in capsys.readouterr().err
  assert said == (error < 1e-9)


def test_a_replay_is_in_the_precision_of_its_run(night, tmp_path):
  command, dataset = night
  (tmp_path / "input" / "more.jsonl").write_text('{"id": "x", "text": 7}\n')
  assert main([*command, "--precision", "bfloat16", "--max-rejected", "0.5"]) == 0
  first = manifest_of(dataset)
  (tmp_path / "input" / "more.jsonl").write_text('{"id": "x", "text": "seven"}\n')
  assert main([*NIGHT, "--replay", f"{dataset}/runs/{first['run_id']}", "--threads", "1", "--buckets", "2"]) == 0
  assert manifest_of(dataset)["encoder"] == first["encoder"] and manifest_of(dataset)["replay"]["written"] == 1
