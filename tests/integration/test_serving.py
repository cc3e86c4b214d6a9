"""A SavedModel by the command line, and what a query service makes of it in a process of its own."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from pipeline.command_line import main
from pipeline.search import Searcher
from tests.conftest import REPOSITORY
from tests.integration.run_files import NIGHT, made_up_texts, write_shards
from tests.tiny_bert import write_hugging_face_folder

TEXTS = made_up_texts(40)
QUERIES = ["the rain in the tree", "a", "白面子树", TEXTS[7], "word " * 100]
HOW = ["--pooling", "mean", "--layers", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A folder with a checkpoint, its encoder, and datasets with a fitted whitening and with none."""
  folder = tmp_path_factory.mktemp("serving")
  write_hugging_face_folder(folder / "checkpoint", layers=1)
  write_shards(folder / "input", TEXTS, 2)
  assert main(["freeze", f"{folder}/checkpoint", f"{folder}/encoder", *HOW]) == 0
  common = [*NIGHT, "--input", f"{folder}/input/*.jsonl", "--encoder", f"{folder}/encoder", "--threads", "1"]
  assert main([*common, "--dataset", f"{folder}/fitted", "--n-components", "8"]) == 0
  assert main([*common, "--dataset", f"{folder}/plain", "--whitening", "none"]) == 0
  return folder


def freeze(made, *options):
  return main(["freeze", f"{made}/checkpoint", f"{made}/encoder", *HOW, *options])


def in_a_fresh_process(folder):
  """The vectors [N, K] that the client in the documentation gets of the queries, from `serving/1` in a folder."""
  (client,) = re.findall(
    "^```python\n(.*?)^```", (REPOSITORY / "docs/serving.md").read_text(), re.MULTILINE | re.DOTALL
  )
  program = f"{client}\nimport json\nfor text in {QUERIES!r}:\n  print(json.dumps(vector(text).tolist()))\n"
  done = subprocess.run(
    [sys.executable, "-c", program],
    cwd=folder,
    env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return np.array([json.loads(line) for line in done.stdout.splitlines()])


@pytest.mark.parametrize(("dataset", "width"), [("fitted", 8), ("plain", 32)])
def test_a_fresh_process_gives_the_vector_that_search_uses(made, tmp_path, capsys, dataset, width):
  assert freeze(made, "--saved-model", f"{tmp_path}/serving/1", "--whitening", f"{made}/{dataset}") == 0
  out = capsys.readouterr().out
  assert "stands there already" in out and f"gives vector (float32 [B, {width}], whitened by" in out
  searcher = Searcher.open(f"{made}/{dataset}", threads=1)
  expected = np.array([searcher.vector(query) for query in QUERIES])
  assert expected.shape == (len(QUERIES), width)
  np.testing.assert_allclose(in_a_fresh_process(tmp_path), expected, rtol=0, atol=1e-5)


def test_a_run_and_a_file_give_the_same_as_the_dataset(made, tmp_path):
  (run,) = (made / "fitted" / "runs").iterdir()
  for number, whitening in enumerate([made / "fitted", run, next(run.glob("whitening-*.npz"))]):
    assert freeze(made, "--saved-model", f"{tmp_path}/{number}", "--whitening", str(whitening)) == 0
  contents = {path.read_bytes() for path in tmp_path.glob("*/saved_model.pb")}
  assert len(list(tmp_path.glob("*/saved_model.pb"))) == 3 and len(contents) == 1


def test_what_goes_wrong_is_said_before_the_checkpoint_is_read(made, tmp_path, capsys):
  (tmp_path / "full").write_text("")
  for options, message in [
    (["--whitening", f"{made}/fitted"], "--whitening goes into a SavedModel: give --saved-model OUT with it"),
    (["--saved-model", f"{tmp_path}/full"], f"--saved-model {tmp_path}/full: is a file; give a folder that is new"),
    (["--saved-model", f"{tmp_path}/1", "--whitening", str(tmp_path)], f"--whitening {tmp_path}: there is no run; "),
  ]:
    assert main(["freeze", f"{tmp_path}/no-checkpoint", f"{tmp_path}/encoder", *options]) == 2
    assert capsys.readouterr().err.startswith(f"sorbus: error: {message}")
  assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_whitening_of_another_encoder_is_refused_before_the_graph_is_built(made, tmp_path, capsys):
  options = ["--pooling", "cls", "--saved-model", f"{tmp_path}/1", "--whitening", f"{made}/fitted"]
  assert main(["freeze", f"{made}/checkpoint", f"{tmp_path}/encoder", *options]) == 2
  error = capsys.readouterr().err
  fingerprint = json.loads((made / "encoder" / "encoder.json").read_text())["fingerprint"]
  assert error.startswith(
    f"sorbus: error: --whitening: fitted on vectors of encoder {fingerprint[:16]}, this checkpoint"
  )
  assert not list(tmp_path.iterdir())
