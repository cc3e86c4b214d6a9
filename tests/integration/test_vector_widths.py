"""Vectors that are wider than the hidden size go the whole way: raw, whitened, published, searched."""

import json

import numpy as np
import pytest

from pipeline.command_line import main
from pipeline.search import Searcher
from tests.integration.run_files import NIGHT, read_raw, read_vectors, write_shards
from tests.tiny_bert import WORDS, write_google_checkpoint
from transforms.encoder import load_encoder

TEXTS = [" ".join(np.random.default_rng(i).choice(WORDS, 3 + i % 9)) + f" {i}" for i in range(300)]


@pytest.mark.parametrize(
  ("options", "raw", "kept"),
  [
    (["--layers", "1", "2", "--combine", "concat"], 64, 62),
    (["--layers", "0", "2", "--combine", "concat", "--pooling", "mean-max", "--exclude-special-tokens"], 128, 126),
    (["--pooling", "mean-max"], 64, 63),
    (["--combine", "fused"], 32, 31),
  ],
)
def test_a_wide_encoder_from_freeze_to_search(tmp_path, capsys, options, raw, kept):
  checkpoint, encoder, dataset = (str(tmp_path / name) for name in ("checkpoint", "encoder", "dataset"))
  write_google_checkpoint(tmp_path / "checkpoint", mix=True)
  assert main(["freeze", checkpoint, encoder, *options]) == 0
  inputs = write_shards(tmp_path / "input", TEXTS, 3)
  command = [*NIGHT, "--input", f"{inputs}/*.jsonl", "--id-column", "id", "--encoder", encoder, "--dataset", dataset]
  assert main([*command, "--threads", "1", "--buckets", "2"]) == 0
  expected = load_encoder(encoder).encode_texts(TEXTS)
  assert expected.shape == (len(TEXTS), raw)
  np.testing.assert_allclose(read_raw(tmp_path / "dataset", TEXTS), expected, rtol=0, atol=1e-5)
  capsys.readouterr()
  assert main(["show", dataset, "--json"]) == 0
  manifest = json.loads(capsys.readouterr().out)["run"]
  assert manifest["whitening"]["n_components"] == kept
  _, vectors = read_vectors(tmp_path / "dataset", manifest)
  assert vectors.shape == (len(TEXTS), kept)
  assert Searcher.open(dataset).search(TEXTS[7], k=1)[0].score == pytest.approx(1, abs=1e-4)
