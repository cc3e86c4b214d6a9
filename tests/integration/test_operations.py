"""docs/operations.md, command by command as it stands there, with what the page says happened in between.

The commands of the pages beside it, for other tests, too.
"""

import json
import re
import shlex
import subprocess
import threading
from dataclasses import replace

import pytest

from pipeline.command_line import main
from pipeline.lock import DatasetLock, Owner
from tests.conftest import REPOSITORY
from tests.integration.run_files import made_up_texts, published_runs, write_shards
from transforms.storage import Storage

_NAMES = ("operations", "places", "schedule", "flink", "dataflow", "worker-image", "report")
PAGES = "\n".join((REPOSITORY / f"docs/{name}.md").read_text(encoding="utf-8") for name in _NAMES)


def commands(section):
  """The lines of a section's code blocks; the section may be the beginning of a page."""
  (text,) = re.findall(rf"^##? {re.escape(section)}\n(.*?)(?=^##? |\Z)", PAGES, re.MULTILINE | re.DOTALL)
  return [
    line
    for block in re.findall("^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for line in block.split("\n")
    if line
  ]


def run(line, run_id=""):
  """Runs one line; its exit code is the one that the line itself states, or 0."""
  stated = re.search(r"# exit code (\d+)", line)
  words = shlex.split(line.replace("$RUN", run_id), comments=True)
  code = main(words[1:]) if words[0] == "sorbus" else subprocess.run(line, shell=True).returncode
  assert code == (int(stated[1]) if stated else 0), line


def all_runs(folder):
  return sorted(path.name for path in (folder / "vectors/runs").iterdir())


def add_document(folder, document):
  with next((folder / "articles").iterdir()).open("a") as file:
    file.write(json.dumps(document) + "\n")


def mend_documents(folder):
  for path in (folder / "articles").iterdir():
    path.write_text(path.read_text().replace("null", '"mended"'))


@pytest.fixture
def night(tiny_encoder, other_encoder, tmp_path, monkeypatch):
  """The folder in which the page's commands are typed."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / "encoder").symlink_to(tiny_encoder)
  (tmp_path / "encoder2").symlink_to(other_encoder)
  write_shards(tmp_path / "articles", made_up_texts(60), 2)
  return tmp_path


def test_the_page_as_it_stands(night, capsys):
  for line in commands("The first night"):
    run(line)
  assert "published: vectors/runs/" in capsys.readouterr().out
  (first,) = published_runs(night / "vectors")

  same, again = commands("A normal night")
  run(same)
  assert capsys.readouterr().out.startswith("unchanged: vectors/runs/")
  run(again)
  assert len(published_runs(night / "vectors")) == 2

  compare, as_json = commands("What changed")
  run(compare, first)
  assert "of all 60 common documents" in capsys.readouterr().out
  run(as_json, first)
  assert json.loads(capsys.readouterr().out)["rows"]["same"] == 60
  (shown,) = commands("Feeding a vector database")
  run(shown)
  assert json.loads(capsys.readouterr().out)["run"]["changes"] == {"against": first, "problem": None}
  fit, fewer, none, older, refit = commands("The whitening over time")
  run(fit)
  assert f"drift under the whitening of run {all_runs(night)[0]}: mean 0.000" in capsys.readouterr().out
  run(fewer)
  run(same)
  assert "→ 10 components" in capsys.readouterr().out
  run(none)
  run(older, first)
  run(refit)
  assert "whitening reuse: " in capsys.readouterr().out

  for number in range(2):
    add_document(night, {"id": f"bad {number}", "text": None})
  refused, show, show_one, publish = commands("A run that was held back")
  run(refused)
  held = all_runs(night)[-1]
  run(show)
  assert f"the newest run is held back: --run {held} shows it" in capsys.readouterr().out
  run(show_one, held)
  assert "held back (rejected): 2 of 62 documents" in capsys.readouterr().out
  assert published_runs(night / "vectors")[-1] != held
  run(publish, held)
  assert published_runs(night / "vectors")[-1] == held

  for number in range(200):
    add_document(night, {"id": f"good {number}", "text": f"word {number}"})
  refused, wait = commands("Another job holds the dataset")
  lock = DatasetLock(Storage.at("vectors"))
  number = lock.acquire(replace(Owner.here("embed"), host="elsewhere"))
  run(refused)
  assert all_runs(night)[-1] == held
  threading.Timer(1.0, lock.release, [number]).start()
  run(wait)
  assert "waiting: " in capsys.readouterr().err
  assert published_runs(night / "vectors")[-1] == all_runs(night)[-1] != held

  for line in commands("Is it whole?"):
    run(line, first)
  assert "FAILED" not in capsys.readouterr().out
  mend_documents(night)
  replay, show = commands("Rejected documents, mended")
  run(replay, held)
  run(show)
  assert "of 2 rejected documents 2 are written now, 0 still rejected, 0 gone" in capsys.readouterr().out
  (wait,) = commands("Waiting for a detached run")
  run(wait, first)
  assert f"published: vectors/runs/{first}/vectors" in capsys.readouterr().out

  old = published_runs(night / "vectors")[-1]
  refused, migrate, back, same = commands("New encoder")
  run(refused)
  run(migrate)
  run(back, old)
  assert published_runs(night / "vectors")[-1] == old
  run(same)
  assert len(list((night / "vectors/raw").iterdir())) == 2

  (rollback,) = commands("Rollback")
  run(rollback, first)
  assert published_runs(night / "vectors")[-1] == first

  add_document(night, {"id": "new", "text": "one more"})
  dry, collect, nightly, du = commands("Disk use")
  before = all_runs(night)
  run(dry)
  assert all_runs(night) == before and "would free about" in capsys.readouterr().out
  run(collect)
  assert capsys.readouterr().out.splitlines()[-1].startswith("freed ")
  for line in nightly.split(" && "):
    run(line)
  assert all_runs(night)[-1] == published_runs(night / "vectors")[-1] not in before
  run(du)


def test_how_exact_how_fast(night, capsys):
  first, search = commands("How exact, how fast")
  run(first)
  assert "precision " in capsys.readouterr().err
  run(search)
  assert len([line for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()]) == 10  # each with its score


def test_no_command_of_the_pages_is_left_out():
  tried = {"The first night", "A normal night", "A run that was held back", "Another job holds the dataset"}
  tried |= {"Is it whole?", "Rollback", "Disk use", "The whitening over time"}
  tried |= {"Rejected documents, mended", "Waiting for a detached run", "New encoder"}
  tried |= {"How exact, how fast"}
  tried |= {"What changed", "Feeding a vector database"}
  tried |= {"On an object store"}  # in test_object_store.py
  tried |= {"On Dataflow"}  # in test_clusters_page.py
  tried |= {"Places"}  # in test_mixed_places.py
  tried |= {"Making a report"}  # in test_report.py
  tried |= {"On Flink"}  # in tests/engines/test_flink.py
  sections = re.findall("^##? (.*)", PAGES, re.MULTILINE)
  assert {section for section in sections if commands(section)} == tried
  assert PAGES.count("```") == 2 * PAGES.count("```sh\n")
