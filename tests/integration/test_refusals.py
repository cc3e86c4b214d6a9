"""What cannot be right is refused before any work: exit code 2, and one line that names the thing and the remedy."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.command_line import main
from pipeline.dataset import Dataset
from tests.conftest import REPOSITORY
from tests.damage import flipped
from tests.fake_encoder import FakeEncoder
from tests.integration.run_files import embed_fake, made_up_texts, write_shards
from tests.tiny_bert import (
  VOCABULARY,
  write_google_checkpoint,
  write_hugging_face_folder,
  write_variables,
)
from transforms.whitening import Whitening

# Each case of `sorbus embed`: what differs from a good command, and words that its one line must have.
# {folder} is an empty folder, {input} the input's, {width} and {other} whitening files for another width and encoder.
EMBED = {
  "a glob without a match": ({"--input": ["{folder}/*.nothing"]}, ["{folder}/*.nothing", "check the path"]),
  "one glob of two without a match": ({"--input": ["{input}", "{folder}/none.txt"]}, ["{folder}/none.txt"]),
  "an empty folder": ({"--input": ["{folder}"]}, ["no file matches {folder}"]),
  "an archive": ({"--input": ["{input}/../archive.zip"]}, ["archive.zip"]),
  "a column that is not there": ({"--text-column": ["body"]}, ["body", "documents-00000"]),
  "a kept column of our name": ({"--keep-columns": ["vector"]}, ["--keep-columns vector", "rename"]),
  "an unknown encoding": ({"--encoding": ["utf-ate"]}, ["utf-ate"]),
  "an encoding that hides line breaks": ({"--encoding": ["utf-16"]}, ["utf-16"]),
  "no encoder": ({"--encoder": ["{folder}/none"]}, ["{folder}/none/encoder.json", "sorbus freeze"]),
  "an encoder that is a checkpoint": ({"--encoder": ["{input}"]}, ["{input}/encoder.json", "sorbus freeze"]),
  "a dataset on abfs://": ({"--dataset": ["abfs://bucket/dataset"]}, ["abfs://bucket/dataset", "local folder"]),
  "a dataset in memory": ({"--dataset": ["memory://dataset"]}, ["memory://dataset", "local folder"]),
  "a dataset where a file stands": ({"--dataset": ["{file}"]}, ["--dataset {file}", "choose a folder"]),
  "a dataset below a file": ({"--dataset": ["{file}/dataset"]}, ["--dataset {file}/dataset", "choose a folder"]),
  "more components than the width": ({"--n-components": ["33"]}, ["--n-components 33", "choose 1 to 32"]),
  "no components": ({"--n-components": ["0"]}, ["--n-components 0", "choose 1 to 32"]),
  "a share above one": ({"--n-components": ["1.5"]}, ["--n-components 1.5", "between 0 and 1"]),
  "components that are no number": ({"--n-components": ["many"]}, ["--n-components", "'many'"]),
  "components without whitening": (
    {"--n-components": ["8"], "--whitening": ["none"]},
    ["--n-components with --whitening none", "drop one"],
  ),
  "a whitening file that is not there": (
    {"--whitening": ["{folder}/w.npz"]},
    ["--whitening {folder}/w.npz", "fit, none"],
  ),
  "a whitening that is none": ({"--whitening": ["{file}"]}, ["{file}", ".npz"]),
  "a whitening for another width": ({"--whitening": ["{width}"]}, ["{width}", "width 7", "32"]),
  "a whitening of another encoder": ({"--whitening": ["{other}"]}, ["{other}", "another encoder"]),
  "a whitening with fewer components": (
    {"--whitening": ["{few}"], "--n-components": ["9"]},
    ["--n-components 9", "has 5"],
  ),
  "a mistyped option": ({"--n-component": ["8"]}, ["--n-component:", "did you mean --n-components?"]),
  "an abbreviated option": ({"--memory": ["4GB"]}, ["--memory:", "--memory-budget"]),
  "an unknown format": ({"--format": ["xml"]}, ["--format", "'xml'", "jsonl"]),
  "a negative limit": ({"--limit": ["-1"]}, ["--limit", "-1 is not 1 or more"]),
  "a share of rejects above one": ({"--max-rejected": ["2"]}, ["--max-rejected", "2 is no share"]),
  "a size that is none": ({"--memory-budget": ["much"]}, ["--memory-budget", "'much'", "4GB"]),
  "too small a memory budget": ({"--memory-budget": ["100MB"]}, ["--memory-budget of 100.0MB", "allow more"]),
  "buckets that are no power of two": ({"--buckets": ["12"]}, ["--buckets 12", "a power of two"]),
  "an unknown Beam option": ({"--": ["--no_such_option=1"]}, ["--no_such_option", "Beam has no such option"]),
  "an unknown runner": ({"--": ["--runner=SparkRunner"]}, ["SparkRunner", "choose FnApiRunner"]),
}


@pytest.fixture
def places(tmp_path, tiny_encoder):
  """What the cases name in braces."""
  inputs = write_shards(tmp_path / "input", made_up_texts(20), 2)
  (tmp_path / "folder").mkdir()
  (tmp_path / "file").write_text("not a folder")
  (tmp_path / "archive.zip").write_bytes(b"PK")
  for name, whitening in (
    ("width", Whitening.none(7)),
    ("other", Whitening.none(32, "another")),
    ("few", Whitening.none(32).first(None)),
  ):
    (tmp_path / f"{name}.npz").write_bytes(whitening.to_bytes())
  np.savez(tmp_path / "few.npz", kernel=np.eye(32)[:, :5], bias=np.zeros(32))
  files = {name: str(tmp_path / f"{name}.npz") for name in ("width", "other", "few")}
  names = {name: str(tmp_path / name) for name in ("folder", "file", "dataset")}
  return {**files, **names, "input": str(inputs), "encoder": tiny_encoder}


def embed_command(places, changes):
  options = {"--input": ["{input}"], "--encoder": ["{encoder}"], "--dataset": ["{dataset}"], "--threads": ["1"]}
  options |= changes
  return ["embed", *(value.format(**places) for name, values in options.items() for value in (name, *values))]


def for_people(err):
  """The lines but that for monitors, which a terminal does not show."""
  return [line for line in err.splitlines() if not line.startswith("sorbus embed status=refused ")]


def assert_refused(capsys, command, *words):
  """Exit code 2 and exactly one line for people on stderr, with these words in it."""
  assert main(command) == 2
  (line,) = for_people(capsys.readouterr().err)
  assert line.startswith("sorbus: error: ")
  missing = [word for word in words if word not in line]
  assert not missing, f"{missing} not in: {line}"


def made(folder):
  """All files below a folder."""
  return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize("case", EMBED)
def test_embed_refuses(places, tmp_path, capsys, case):
  changes, words = EMBED[case]
  before = made(tmp_path)
  assert_refused(capsys, embed_command(places, changes), *(word.format(**places) for word in words))
  assert set(made(tmp_path)) - set(before) <= {"dataset/dataset.json"}


def test_embed_refuses_a_dataset_made_by_another_encoder(places, capsys):
  dataset = Path(places["dataset"])
  other = FakeEncoder(VOCABULARY, 8)
  embed_fake(other, dataset, places["input"], buckets=1, threads=1, whitening="none")
  before = made(dataset)
  capsys.readouterr()
  assert_refused(capsys, embed_command(places, {}), str(dataset), other.spec.fingerprint[:16], "another --dataset")
  assert made(dataset) == before


def swap_two_lines(data):
  lines = data.split(b"\n")
  lines[7], lines[8] = lines[8], lines[7]
  return b"\n".join(lines)


# What happens to a file of an encoder, and words of the one line.
CHANGES = {
  "a bit of the graph": ("encoder.pb", flipped, ["encoder.pb: sha256 ", "it was changed: freeze again"]),
  "two lines of the vocabulary": ("vocab.txt", swap_two_lines, ["vocab.txt: sha256 ", "it was changed: freeze again"]),
  "the pooling": ("encoder.json", lambda data: data.replace(b'"mean"', b'"cls"'), ["encoder.json", "edited by hand"]),
  "the casing": (
    "encoder.json",
    lambda data: data.replace(b'"lowercase": true', b'"lowercase": false'),
    ["encoder.json", "edited by hand"],
  ),
  "what the self-test allows": (
    "encoder.json",
    lambda data: data.replace(b'"tolerance": ', b'"tolerance": 1'),
    ["encoder.json", "edited by hand"],
  ),
  "the graph's name of its output": (
    "encoder.json",
    lambda data: data.replace(b'"output": "', b'"output": "x'),
    ["encoder.json", "edited by hand"],
  ),
  "a comma": ("encoder.json", lambda data: data.replace(b",", b"", 1), ["encoder.json: not JSON", "sorbus freeze"]),
}


@pytest.mark.parametrize("case", CHANGES)
def test_embed_refuses_an_encoder_that_was_changed_and_makes_no_dataset(places, tmp_path, capsys, case):
  name, change, words = CHANGES[case]
  path = Path(shutil.copytree(places["encoder"], tmp_path / "changed")) / name
  before = path.read_bytes()
  path.write_bytes(change(before))
  assert path.read_bytes() != before
  assert_refused(capsys, embed_command(places, {"--encoder": [str(path.parent)]}), *words)
  assert not Path(places["dataset"]).exists()


@pytest.mark.parametrize(
  ("content", "words"),
  [
    ('{"format_version": 99}', ["format version 99", "reads 1"]),
    ('{"format_vers', ["not valid JSON"]),
    ("[]", ["format version None", "reads 1"]),
  ],
)
def test_embed_refuses_a_dataset_of_another_format(places, capsys, content, words):
  (Path(places["dataset"])).mkdir()
  (Path(places["dataset"]) / "dataset.json").write_text(content)
  assert_refused(capsys, embed_command(places, {}), f"{places['dataset']}/dataset.json", *words)
  assert made(places["dataset"]) == ["dataset.json"]


def test_show_says_what_it_knows_where_it_knows_nothing(places, capsys):
  words = (
    "nothing that is known",
    "a dataset (`sorbus embed`",
    "an encoder folder",
    "a checkpoint",
    ".index",
    "GRAPH.pb",
  )
  assert_refused(capsys, ["show", places["folder"]], places["folder"], *words)


@pytest.mark.parametrize(
  ("path", "option", "words"),
  [
    ("encoder", ["--run", "r1"], ["--run", "no dataset"]),
    ("encoder", ["--vocab", "vocab.txt"], ["--vocab", "an encoder folder"]),
    ("dataset", ["--sample", "{input}"], ["--sample", "is a dataset"]),
  ],
)
def test_show_refuses_an_option_that_has_no_meaning(places, capsys, path, option, words):
  Dataset.open_or_create(places["dataset"], {"fingerprint": "ab", "tokenizer": {}})
  assert_refused(capsys, ["show", places[path], *(word.format(**places) for word in option)], *words)


def test_show_describes_an_encoder_folder_as_json(places, capsys):
  assert main(["show", places["encoder"], "--sample", f"{places['folder']}/none.txt"]) == 2
  first, *_, last = capsys.readouterr().out.splitlines()
  assert first == places["encoder"] and last.startswith("problem: --sample: no file matches") and "none.txt" in last
  assert main(["show", places["encoder"], "--sample", places["input"], "--json"]) == 0
  shown = json.loads(capsys.readouterr().out)
  assert shown["kind"] == "encoder" and shown["can_be_used"] and shown["sample"]["texts"] == 20


def test_show_describes_what_is_broken_and_exits_with_0(tmp_path, capsys):
  folder = write_google_checkpoint(tmp_path / "checkpoint")
  (folder / "model.ckpt-100.data-00000-of-00001").unlink()
  assert main(["show", str(folder)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert "cannot be frozen" in lines[1] and lines[-1].startswith("problem: ") and "data-00000-of-00001" in lines[-1]


def test_search_refuses_what_is_no_dataset(places, capsys):
  assert_refused(capsys, ["search", places["folder"], "rain"], places["folder"], "no Sorbus dataset")


@pytest.mark.parametrize(
  ("command", "words"),
  [
    ([], ["COMMAND"]),
    (["embd"], ["embd"]),
    (["embed"], ["--input"]),
    (["show", "dataset", "--", "--runner=FnApiRunner"], ["--runner=FnApiRunner", "no such option"]),
    (["search", "dataset"], ["TEXT"]),
    (["search", "dataset", "text", "-k", "0"], ["-k", "0 is not 1 or more"]),
  ],
)
def test_a_command_that_cannot_be_understood_is_refused(capsys, command, words):
  assert_refused(capsys, command, *words)


def break_vocabulary(folder, change):
  lines = change((folder / "vocab.txt").read_text("utf-8").splitlines())
  (folder / "vocab.txt").write_text("\n".join(lines) + "\n", "utf-8")


def not_a_bert(folder):
  import tensorflow as tf

  (folder / "model.ckpt-100.index").unlink()
  write_variables(folder / "model.ckpt-100", {"resnet/conv1/kernel": np.zeros((3, 3), np.float32)}, tf)


def drop_weights(folder):
  (folder / "model.safetensors").unlink()
  (folder / "pytorch_model.bin").write_bytes(b"")


def edit_config(folder, **changes):
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(config | changes))


# Each case of `sorbus freeze`: the layout, what is broken in it, options, and words of its one line.
FREEZE = {
  "too small a vocabulary": (
    "google",
    lambda folder: break_vocabulary(folder, lambda lines: lines[:-3]),
    [],
    ["vocab.txt", str(len(VOCABULARY) - 3), str(len(VOCABULARY))],
  ),
  "too large a vocabulary": (
    "hugging face",
    lambda folder: break_vocabulary(folder, lambda lines: [*lines, "more"]),
    [],
    ["vocab.txt", str(len(VOCABULARY) + 1), str(len(VOCABULARY))],
  ),
  "a vocabulary without [CLS]": (
    "google",
    lambda folder: break_vocabulary(folder, lambda lines: ["cls" if line == "[CLS]" else line for line in lines]),
    [],
    ["vocab.txt", "[CLS]"],
  ),
  "no vocabulary": ("google", lambda folder: (folder / "vocab.txt").unlink(), [], ["vocab.txt", "--vocab"]),
  "no configuration": (
    "google",
    lambda folder: (folder / "bert_config.json").unlink(),
    [],
    ["bert_config.json", "--bert-config"],
  ),
  "no .data file": (
    "google",
    lambda folder: (folder / "model.ckpt-100.data-00000-of-00001").unlink(),
    [],
    ["model.ckpt-100.data-00000-of-00001"],
  ),
  "a checkpoint that is no BERT": ("google", not_a_bert, [], ["bert/embeddings"]),
  "a RoBERTa": ("hugging face", lambda folder: edit_config(folder, model_type="roberta"), [], ["roberta"]),
  "PyTorch's pickle alone": (
    "hugging face",
    drop_weights,
    [],
    ["pytorch_model.bin", "convert it there with: "],
  ),
  "more layers than the weights have": (
    "hugging face",
    lambda folder: edit_config(folder, num_hidden_layers=3),
    ["--layers", "3"],
    ["layer"],
  ),
  "a layer that is not there": ("google", None, ["--layers", "3"], ["--layers 3", "2 layers"]),
  "layers of the pooler": ("google", None, ["--pooling", "pooler", "--layers", "1"], ["--layers", "pooler"]),
  "more tokens than positions": ("google", None, ["--max-seq-length", "65"], ["--max-seq-length 65", "3 to 64"]),
  "an unknown pooling": ("google", None, ["--pooling", "median"], ["--pooling", "'median'", "mean"]),
  "a mistyped option": ("google", None, ["--poling", "mean"], ["--poling", "did you mean --pooling?"]),
}


@pytest.mark.parametrize("case", FREEZE)
def test_freeze_refuses(tmp_path, capsys, case):
  layout, damage, options, words = FREEZE[case]
  write = {"google": write_google_checkpoint, "hugging face": write_hugging_face_folder}[layout]
  folder = write(tmp_path / "checkpoint", layers=2)
  if damage:
    damage(folder)
  assert_refused(capsys, ["freeze", str(folder), str(tmp_path / "encoder"), *options], *words)
  assert not (tmp_path / "encoder").exists()


def test_freeze_refuses_what_is_no_checkpoint(tmp_path, capsys):
  (tmp_path / "empty").mkdir()
  for name in ("empty", "none"):
    assert_refused(capsys, ["freeze", str(tmp_path / name), str(tmp_path / "encoder")], str(tmp_path / name))


def test_freeze_refuses_a_checkpoint_without_its_data(shared_data, tmp_path, capsys):
  folder = shared_data / "checkpoints/chinese_classifier_index_only"
  assert_refused(capsys, ["freeze", str(folder), str(tmp_path / "encoder")], ".data")


def test_a_process_of_its_own_says_no_more(tmp_path):
  """What libraries print while they are loaded is not on stderr either."""
  (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a text\n"))
  command = ["embed", "--input", str(tmp_path / "a.txt.gz"), "--encoder", str(tmp_path), "--dataset", str(tmp_path)]
  done = subprocess.run([sys.executable, "-m", "pipeline", *command], cwd=REPOSITORY, capture_output=True, text=True)
  assert (done.returncode, done.stdout, len(for_people(done.stderr))) == (2, "", 1), done.stderr
  assert for_people(done.stderr)[0].startswith(f"sorbus: error: {tmp_path}/encoder.json: not there")
