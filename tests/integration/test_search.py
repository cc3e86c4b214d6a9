"""From input to search by the command line, with an encoder that we froze; and the same in Python without Beam."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.command_line import main
from pipeline.published_rows import PublishedRows
from pipeline.search import Searcher
from tests.conftest import REPOSITORY
from tests.integration.run_files import NIGHT, write_shards

TEXTS = [
  "the rain in the tree",
  "she had not the sun",
  "he was in the rain and the sun",
  "a tree that was not seen",
  "with the rain it was not the sun but the tree",
  "white beams and black birches",
  "it was a letter to the king of 1984",
  "白面子树",
  "but he had it",
  "not of the sun",
  "the trees and the trees and the trees",
  "42 of 43 rainy days",
]


@pytest.fixture(scope="module")
def dataset(tiny_encoder, tmp_path_factory):
  folder = tmp_path_factory.mktemp("search")
  inputs = write_shards(folder / "input", TEXTS, 3)
  command = [*NIGHT, "--input", f"{inputs}/*.jsonl", "--id-column", "id", "--keep-columns", "text"]
  command += ["--encoder", tiny_encoder, "--dataset", str(folder / "dataset"), "--n-components", "8"]
  assert main([*command, "--threads", "1", "--buckets", "4"]) == 0
  return str(folder / "dataset")


def run_json(capsys, *command):
  capsys.readouterr()
  assert main([*command, "--json"]) == 0
  return json.loads(capsys.readouterr().out)


def test_show_says_what_is_published(dataset, capsys):
  shown = run_json(capsys, "show", dataset)
  (line,) = shown["runs"]
  assert (line["status"], line["written"], line["rejected"]) == ("published", len(TEXTS), 0)
  assert shown["published"] == line["run_id"] == shown["run"]["run_id"]
  assert shown["run"]["whitening"]["n_components"] == 8
  assert shown == run_json(capsys, "show", dataset, "--run", line["run_id"])


@pytest.mark.parametrize("slashes", ["/", "//"])
def test_a_slash_behind_a_dataset_is_not_doubled(dataset, capsys, slashes):
  run_id = run_json(capsys, "show", dataset)["published"]
  assert main(["publish", f"{dataset}{slashes}", run_id]) == 0
  assert capsys.readouterr().out.startswith(f"published: {dataset}/runs/{run_id}/vectors (number ")


def test_show_for_people_fits_the_same_numbers_in_a_table(dataset, capsys):
  assert main(["show", dataset]) == 0
  out = capsys.readouterr().out
  assert f"written {len(TEXTS)}" in " ".join(out.split())
  assert "whitening fit: 32 → 8 components" in out


@pytest.mark.parametrize("i", range(len(TEXTS)))
def test_the_first_hit_of_a_documents_text_is_that_document(dataset, capsys, i):
  hits = run_json(capsys, "search", dataset, TEXTS[i], "-k", "3")
  assert len(hits) == 3
  assert hits[0]["doc_id"] == f"{i:06d}"
  assert hits[0]["kept"] == {"text": TEXTS[i]}
  assert 0.9999 <= hits[0]["score"] <= 1.000001
  assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
  assert hits[1]["score"] < 0.9999


def test_a_search_reads_no_more_than_it_shows(dataset, monkeypatch):
  groups, read = PublishedRows.groups, []

  def watched(rows, advance=lambda _: None, columns=None):
    read.append(columns)
    return groups(rows, advance, columns)

  monkeypatch.setattr(PublishedRows, "groups", watched)
  assert len(Searcher.open(dataset, threads=1).search("rain", 2)) == 2
  assert read == [["doc_id", "text", "vector"]]


def test_more_hits_than_documents_are_all_documents(dataset, capsys):
  hits = run_json(capsys, "search", dataset, "rain", "-k", "1000")
  assert sorted(hit["doc_id"] for hit in hits) == [f"{i:06d}" for i in range(len(TEXTS))]


def test_search_for_people_prints_score_id_and_the_kept_text(dataset, capsys):
  assert main(["search", dataset, TEXTS[4], "-k", "1"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].split() == ["1.0000", "000004"]
  assert " ".join(lines[1:]).split() == ["text:", *TEXTS[4].split()]


def test_a_query_without_a_token_is_refused(dataset, capsys):
  assert main(["search", dataset, "  "]) == 2
  assert "has no token" in capsys.readouterr().err


def test_a_flipped_bit_is_told_with_what_makes_it_good(dataset, tmp_path, capsys):
  """Without --again a night finds all files there, of the sizes that they should have, and does nothing."""
  copy = shutil.copytree(dataset, tmp_path / "dataset")
  shard = next(copy.glob("runs/*/vectors/*"))
  data = bytearray(shard.read_bytes())
  data[len(data) // 2] ^= 1
  shard.write_bytes(data)
  assert main(["search", str(copy), "rain"]) == 1
  assert capsys.readouterr().err.endswith(
    f"{shard.name}: damaged (its sha256 is not the one in the manifest); embed again with --again\n"
  )


def test_search_in_python_needs_no_beam(dataset):
  """In a process of its own: this one has imported everything."""
  program = f"""
import sys
from pathlib import Path
from pipeline.search import Searcher
searcher = Searcher.open({dataset!r}, threads=1)
hits = searcher.search({TEXTS[2]!r}, k=2)
assert "apache_beam" not in sys.modules
print(hits[0].doc_id, hits[0].score >= 0.9999, len(hits), searcher.vector("rain").shape)
"""
  done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.split(maxsplit=3) == ["000002", "True", "2", "(8,)\n"]


_THREADS_OF_READING = """
import sys
from pathlib import Path

from pipeline.dataset import Dataset
from pipeline.published_rows import PublishedRows

rows, before = PublishedRows.of(Dataset.open(sys.argv[1])), len(list(Path("/proc/self/task").iterdir()))
assert sum(len(group) for group in rows.groups()) == int(sys.argv[2])
print(len(list(Path("/proc/self/task").iterdir())) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted where Linux lists them")
def test_no_thread_of_arrows_is_left_that_could_abort_a_process_at_its_end(dataset):
  """Such a thread lets go of bytes that Python lent it; while Python ends, that was exit code 134 behind the hits."""
  command = [sys.executable, "-c", _THREADS_OF_READING, dataset, str(len(TEXTS))]
  done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True, text=True)
  assert int(done.stdout) <= 1  # jemalloc has one, which knows nothing of Python
