"""The commands of README.md and docs/, as they are printed: run here, by a test of their page, or parsed.

A page that is added is run here, in its order, in a folder that has what the pages speak of. One that needs more than
that is registered below: with what runs it, or why it cannot be run.
"""

import contextlib
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.command_line import main, make_parser
from tests.conftest import REPOSITORY
from tests.integration.run_files import made_up_texts, published_runs
from tests.old_graph import OldGraph
from tests.pages import PAGES, blocks, commands, inline, shell_lines
from tests.tiny_bert import random_variables, write_google_checkpoint, write_hugging_face_folder, write_vocabulary
from tests.tiny_sentence_piece import tiny_bytes, tiny_model
from tests.tiny_xlnet import write_google_xlnet

# Pages that a test of their own runs, since what happens between two commands is part of the page.
ELSEWHERE = {
  "docs/operations.md": "tests/integration/test_operations.py",
  "docs/places.md": "tests/integration/test_mixed_places.py",  # on a server of S3; and test_object_store.py
  "docs/handing-on.md": "tests/integration/test_handing_on.py",
  "examples/finetune/README.md": "tests/integration/test_finetune.py",
}
# What a test cannot have; `tests/test_clusters_page.py` holds these to Beam's own options too.
PARSED_ONLY = {
  "docs/clusters.md": "a cluster; the command for this machine is run with the pages of operations",
  "docs/dataflow.md": "an account of Google's",
}
# What a page begins without.
WITHOUT = {"README.md": ("encoder", "vectors"), "docs/encoders.md": ("encoder",), "docs/long-texts.md": ("vectors",)}
# Code in Python is run here too, but where it is no example of this folder.
PYTHON_ELSEWHERE = {
  "docs/serving.md": "tests/integration/test_serving.py",
  "docs/handing-on.md": "tests/integration/test_handing_on.py",
}
FRAGMENTS = {"docs/encoders.md": "calls whose arguments, and a folder whose model, are the reader's own"}
_WITH_HEAD = ".predict("  # README's example of labels: tests/integration/test_heads.py
OURS = [page for page in PAGES if page not in {*ELSEWHERE, *PARSED_ONLY}]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """What the pages speak of: articles, checkpoints, a frozen graph, an encoder and a dataset."""
  folder = tmp_path_factory.mktemp("pages")
  with contextlib.chdir(folder):
    Path("articles").mkdir()
    rows = [
      {"id": f"a{i}", "title": f"Title {i}", "body": text, "text": text} for i, text in enumerate(made_up_texts(60))
    ]
    for number in range(2):
      lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows[number::2]]
      Path(f"articles/{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    write_hugging_face_folder(Path("CHECKPOINT"), hidden_size=32, layers=2, seed=0)
    _write_fine_tuned(Path("output"), Path("chinese_L-12_H-768_A-12"))
    write_google_checkpoint(Path("uncased_L-12_H-768_A-12"))
    write_google_xlnet(Path("xlnet_cased_L-12_H-768_A-12"), tiny_bytes(), vocab_size=len(tiny_model()))
    shutil.copytree("articles", "chapters")
    _write_pairs(Path("stsb-en-dev.csv"), [row["text"] for row in rows])
    Path("en_novel_paragraphs.txt").write_text("".join(f"{text}\n" for text in made_up_texts(120)), encoding="utf-8")
    graph = OldGraph(shape=(None, 64)).freeze(random_variables(hidden_size=32, layers=12, seed=0))
    Path("frozen.pb").write_bytes(graph.SerializeToString())
    write_vocabulary(Path())
    assert main(["freeze", "CHECKPOINT", "encoder"]) == 0
    Path("demo").mkdir()
    for name in ("demo/encoder", "tiny", "minilm"):
      shutil.copytree("encoder", name)
    Path("examples").symlink_to(REPOSITORY / "examples")
    embed = "embed --input articles/*.jsonl --id-column id --keep-columns title --encoder encoder --dataset vectors"
    assert main(embed.split()) == 0
  return folder


def _write_pairs(path, texts):
  """Pairs and scores as STS-B has them: no header, the score last."""
  with path.open("w", encoding="utf-8", newline="") as file:
    csv.writer(file).writerows([first, second, i % 6] for i, (first, second) in enumerate(pairwise(texts)))


def _write_fine_tuned(output, original):
  """What `run_classifier.py` leaves, and the folder that it was started from."""
  write_google_checkpoint(output, classifier=True)
  original.mkdir()
  for name in ("bert_config.json", "vocab.txt"):
    shutil.move(output / name, original / name)


@pytest.fixture
def folder(request, prepared, tmp_path, monkeypatch):
  """A copy of it, for the commands of one page."""
  page = request.node.callspec.params["page"]
  shutil.copytree(prepared, tmp_path / "here", symlinks=True)
  monkeypatch.chdir(tmp_path / "here")
  for name in WITHOUT.get(page, ()):
    shutil.rmtree(name)
  for block in blocks(page):
    if block.language == "yaml" and (named := re.match(r"# (\S+\.yaml)\n", block.text)):
      Path(named[1]).write_text(block.text, encoding="utf-8")
  return tmp_path / "here"


def run_python(*arguments):
  environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
  done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def run_line(line):
  """Runs a line of a page; its exit code is the one that it states, or 0."""
  stated = re.search(r"# exit code (\d+)", line)
  run_id = published_runs(Path("vectors"))[-1] if "$RUN" in line else ""
  for command in line.split(" && "):
    words = shlex.split(command.replace("$RUN", run_id), comments=True)
    if words[0].endswith("/python"):
      run_python(*words[1:])
    if words[0] != "sorbus":
      continue
    if words[1] == "freeze":  # each of them is a beginning
      shutil.rmtree(words[3], ignore_errors=True)
    assert main(words[1:]) == (int(stated[1]) if stated else 0), command


def examples(page):
  """The page's code in Python that is run here."""
  here = page not in {*PYTHON_ELSEWHERE, *FRAGMENTS}
  return [block.text for block in blocks(page) if here and block.language == "python" and _WITH_HEAD not in block.text]


@pytest.mark.parametrize("page", [page for page in OURS if examples(page) or any(map(shell_lines, blocks(page)))])
def test_a_page_runs_as_it_is_printed(page, folder):
  for block in blocks(page):
    for line in shell_lines(block):
      run_line(line)
  # A later example goes on with what an earlier one has defined.
  run_python("-c", "\n".join([*examples(page), "import sys", "assert 'apache_beam' not in sys.modules"]))


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_of_a_page_is_taken_by_our_parser(page):
  for command in commands(page):
    words = shlex.split(command.replace("$RUN", "20261121T020000Z5f3a91"), comments=True)[1:]
    if "--config" not in words:  # a file of the page, which is read where the page is run
      make_parser().parse_args(words[: words.index("--")] if words[0] == "embed" and "--" in words else words)


@pytest.mark.parametrize("page", [page for page in PAGES if inline(page)])
def test_every_command_in_the_text_of_a_page_is_one_of_ours_with_its_flags(page):
  [parsers] = [action.choices for action in make_parser()._actions if action.dest == "command"]
  for command in inline(page):
    name, *words = command.split()[1:]
    flags = {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}
    assert flags <= set(parsers[name]._option_string_actions), command


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page, "make")])
def test_every_target_of_make_is_there(page):
  makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
  for command in commands(page, "make"):
    targets = [word for word in shlex.split(command, comments=True)[1:] if "=" not in word]
    assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), command


@pytest.mark.parametrize(("page", "test"), {**ELSEWHERE, **PYTHON_ELSEWHERE}.items())
def test_a_page_that_is_run_elsewhere_is(page, test):
  if page not in PAGES:
    pytest.skip(f"{page} is not there")
  assert Path(page).stem.lower() in (REPOSITORY / test).read_text(encoding="utf-8").lower()
