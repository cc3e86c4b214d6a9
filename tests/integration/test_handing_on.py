"""docs/handing-on.md, block by block as it stands there: each way finds what `sorbus search` finds."""

import json
import re
import shutil

import numpy as np
import pytest

from pipeline.command_line import main
from tests.conftest import REPOSITORY
from tests.integration.run_files import NIGHT, made_up_texts, published_runs, read_vectors, write_shards

PAGE = (REPOSITORY / "docs/handing-on.md").read_text(encoding="utf-8")
QUERY = "how do I open a file"


def blocks(section):
  """The code blocks of a section: (language, text)."""
  (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
  return re.findall("^```(\\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def embed(tiny_encoder, tmp_path_factory):
  """(A function that embeds texts into `vectors`, the folder in which it does)."""
  folder = tmp_path_factory.mktemp("handing-on")
  command = [*NIGHT, "--input", str(folder / "articles"), "--id-column", "id", "--encoder", tiny_encoder]
  command += ["--dataset", str(folder / "vectors"), "--threads", "1", "--buckets", "4"]

  def embed_texts(texts, *flags):
    shutil.rmtree(folder / "articles", ignore_errors=True)
    write_shards(folder / "articles", texts, 2)
    assert main([*command, *flags]) == 0

  embed_texts(made_up_texts(200))
  return embed_texts, folder


@pytest.fixture
def run(embed, monkeypatch, tmp_path, capsys):
  """Runs the blocks of some sections one after the other and returns the names that they leave."""
  monkeypatch.chdir(embed[1])

  def run_sections(*sections, only=("sh", "python")):
    names = {}
    for section in sections:
      for language, text in blocks(section):
        if language not in only:
          continue
        if language == "sh":
          for line in text.splitlines():
            assert main([*line.split()[1:], *(["--overwrite"] if " export " in line else [])]) == 0, line
        else:
          exec(compile(text, f"docs/handing-on.md, {section}", "exec"), names)
    return names

  return run_sections


@pytest.fixture
def found(embed, capsys):
  """The ten documents that `sorbus search` finds, and their scores."""
  assert main(["search", str(embed[1] / "vectors"), QUERY, "--json"]) == 0
  hits = json.loads(capsys.readouterr().out)
  assert len({hit["doc_id"] for hit in hits}) == 10
  return [hit["doc_id"] for hit in hits], [hit["score"] for hit in hits]


def test_duckdb(run, found):
  pytest.importorskip("duckdb")
  ids, scores = zip(*run("The published run", "DuckDB")["nearest"], strict=True)
  assert list(ids) == found[0]
  np.testing.assert_allclose(scores, found[1], atol=1e-6)


def test_polars(run, found):
  pytest.importorskip("polars")
  nearest = run("The published run", "Polars")["nearest"]
  assert nearest["doc_id"].to_list() == found[0]
  np.testing.assert_allclose(nearest["score"], found[1], atol=1e-6)


def test_hugging_face_datasets(run, found, tmp_path, monkeypatch):
  pytest.importorskip("faiss")
  config = pytest.importorskip("datasets.config")
  monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path))
  names = run("The published run", "Hugging Face datasets")
  assert names["nearest"]["doc_id"] == found[0]
  np.testing.assert_allclose(names["scores"], found[1], atol=1e-6)
  assert names["rows"].features["vector"].length == 31


def test_numpy_and_faiss(run, found):
  """The two blocks of Python, each over what the command before it wrote."""
  pytest.importorskip("faiss")
  names = run("The published run", "NumPy and FAISS")
  assert names["nearest"]["doc_id"].to_pylist() == found[0]
  np.testing.assert_allclose(names["scores"][0], found[1], atol=1e-6)
  by_hand = names["ids"].take(np.argsort(-(names["vectors"] @ names["query"]))[:10])
  assert by_hand["doc_id"].to_pylist() == found[0]


def held(folder):
  import duckdb

  with duckdb.connect(folder / "articles.duckdb") as db:
    rows = db.execute("SELECT doc_id, vector FROM documents ORDER BY doc_id").fetchall()
    return [doc_id for doc_id, _ in rows], np.array([vector for _, vector in rows], np.float32)


def test_a_database_follows_the_nights(run, embed, capsys):
  pytest.importorskip("duckdb")
  embed_texts, folder = embed
  names = run("The published run", "DuckDB", "A database that follows the nights")
  assert capsys.readouterr().out.splitlines()[-1] == "as a whole"

  def feed():
    come = names["feed"]("articles.duckdb", "vectors")
    manifest = json.loads(
      (folder / "vectors/runs" / published_runs(folder / "vectors")[-1] / "manifest.json").read_text()
    )
    (ids, vectors), (expected, wanted) = held(folder), read_vectors(folder / "vectors", manifest)
    assert ids == expected and (vectors == wanted).all()
    return come, manifest["counts"]

  assert feed()[0] == "has it already"
  texts = made_up_texts(200)
  embed_texts([*texts[:50], "another text", *texts[51:180], *made_up_texts(5, seed=1)])
  come, counts = feed()
  assert come == "its changes"
  assert (counts["new"], counts["changed"], counts["gone"]) == (0, 6, 15)
  embed_texts([*texts[:50], "another text", *texts[51:180], *made_up_texts(5, seed=1)], "--again")
  assert (
    feed()[0] == "its changes"
    and not (folder / "vectors/runs" / published_runs(folder / "vectors")[-1] / "changes").exists()
  )
  embed_texts(texts[:100])
  embed_texts(texts)
  assert feed()[0] == "as a whole"  # a night was missed


@pytest.fixture
def copied(embed, tmp_path, monkeypatch, run):
  """A folder with a copy of `vectors`, which is the current one."""
  shutil.copytree(embed[1] / "vectors", tmp_path / "vectors")
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_smaller_vectors(copied, run, capsys):
  pytest.importorskip("duckdb")
  run("Smaller vectors", only="sh")
  ids, scores = zip(*run("The published run", "Smaller vectors", only="python")["nearest"], strict=True)
  capsys.readouterr()
  assert main(["search", str(copied / "vectors"), QUERY, "--json"]) == 0
  hits = {hit["doc_id"]: hit["score"] for hit in json.loads(capsys.readouterr().out)}
  assert len(hits.keys() & set(ids)) >= 9  # one may be as near as the tenth
  assert all(abs(hits[doc_id] - score) < 0.01 for doc_id, score in zip(ids, scores, strict=True) if doc_id in hits)


@pytest.mark.parametrize(("kind", "duck", "array"), [("float16", "FLOAT[]", "Float16"), ("int8", "TINYINT[]", "Int8")])
def test_each_reader_takes_each_type_for_what_the_page_says(copied, tmp_path, kind, duck, array):
  duckdb, pandas, polars, datasets = map(pytest.importorskip, ("duckdb", "pandas", "polars", "datasets"))
  assert f"| `{kind}` | {np.dtype(kind).itemsize} | `{duck}` | `Array({array})` | {kind} |" in PAGE
  assert main(["rewhiten", "--no-report", str(copied / "vectors"), "--vector-type", kind]) == 0
  folder = copied / "vectors/runs" / published_runs(copied / "vectors")[-1] / "vectors"
  files = [str(path) for path in sorted(folder.iterdir())]
  frame = pandas.read_parquet(folder)
  expected = np.stack(frame["vector"])
  assert expected.dtype == kind
  rows = duckdb.execute("SELECT vector, typeof(vector) FROM read_parquet(?)", [files]).fetchall()
  assert {row[1] for row in rows} == {duck} and (np.array([row[0] for row in rows]) == expected).all()
  column = polars.read_parquet(files)["vector"]
  assert column.dtype == polars.Array(getattr(polars, array), 31) and (column.to_numpy() == expected).all()
  table = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
  assert table.features["vector"].feature.dtype == kind
  assert (np.array(table["vector"][:]) == expected).all()


def test_no_block_of_the_page_is_left_out():
  tried = {"The published run", "DuckDB", "Polars", "Hugging Face datasets", "NumPy and FAISS"}
  tried |= {"Smaller vectors", "A database that follows the nights"}
  sections = re.findall("^## (.*)", PAGE, re.MULTILINE)
  assert {section for section in sections if blocks(section)} == tried


def test_the_page_takes_the_interface_alone():
  assert not re.search(r"^\s*(from|import) (pipeline|transforms)\b", PAGE, re.MULTILINE)
