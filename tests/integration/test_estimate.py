"""`sorbus estimate` by the command line, and the run that it foretells: what can be counted is as foretold."""

import gzip
import json
import re
import shlex
from dataclasses import replace

import pytest

import pipeline.estimate
import pipeline.report_page
from pipeline.command_line import main
from pipeline.trial_run import try_run
from tests.conftest import REPOSITORY
from tests.integration.run_files import NIGHT, made_up_texts, write_shards

TEXTS = made_up_texts(1200)


@pytest.fixture
def corpus(tmp_path):
  return write_shards(tmp_path / "input", [*TEXTS, *TEXTS[:300], " ", " "], 3)


@pytest.fixture
def words(corpus, tiny_encoder, tmp_path):
  """The flags of both commands."""
  return ["--input", str(corpus), "--id-column", "id", "--encoder", tiny_encoder, "--threads", "1", "--json"]


def told(capsys, *argv):
  assert main(["estimate", "--seconds", "0.5", *argv]) == 0
  return json.loads(capsys.readouterr().out)


def test_what_is_foretold_comes(words, tmp_path, capsys):
  before = sorted(tmp_path.rglob("*"))
  estimate = told(capsys, *words, "--n-components", "8", "--precision", "float32")
  assert sorted(tmp_path.rglob("*")) == before  # it leaves nothing
  assert main([*NIGHT, *words, "--n-components", "8", "--dataset", str(tmp_path / "ds")]) == 0
  run = json.loads(capsys.readouterr().out)["run"]
  counts, documents, tokens = run["counts"], estimate["documents"], estimate["tokens"]
  assert estimate["sample"]["is_whole"] and documents["number"] == counts["read"] == 1502
  assert documents["margin"] == 0 and documents["rejected_share"] == round(2 / 1502, 4)
  assert documents["distinct"] == documents["to_encode"] == counts["encoded"] == 1200
  assert (tokens["number"], estimate["plan"]["buckets"]) == (counts["tokens"], run["buckets"])
  assert tokens["truncated_share"] == round(counts["truncated"] / counts["written"], 4)
  assert tokens["unknown_share"] == round(counts["unknown_tokens"] / counts["tokens"], 4)
  assert tokens["padding_share"] == pytest.approx(1 - counts["encoded_tokens"] / counts["computed_tokens"], abs=2e-4)
  raw = sum(path.stat().st_size for path in (tmp_path / "ds/raw").rglob("*.parquet"))
  output = sum(file["bytes"] for kind in ("vectors", "documents", "changes") for file in run["files"][kind])
  assert estimate["dataset"]["n_components"] == 8
  assert estimate["dataset"]["store_bytes"] == pytest.approx(raw, rel=0.05)
  assert estimate["dataset"]["output_bytes"] == pytest.approx(output, rel=0.05)
  [precision] = estimate["precisions"]
  seconds = precision["seconds"]
  assert precision["precision"] == "float32" and precision["tokens_per_second"] > 0
  assert seconds["total"] == pytest.approx(seconds["loading"] + seconds["encoding"] + seconds["rest"], abs=0.3)
  assert [each["workers"] for each in precision["by_workers"]] == [1, 4, 16]
  assert precision["by_workers"][0]["seconds"] == seconds["total"] >= precision["by_workers"][2]["seconds"]

  # The second night: all of it is in the store, in the one precision that is the dataset's.
  again = told(capsys, *words, "--n-components", "8", "--dataset", str(tmp_path / "ds"))
  assert len(again["precisions"]) == 1
  assert (again["documents"]["known_share"], again["documents"]["to_encode"]) == (1, 0)
  assert (again["dataset"]["store_bytes"], again["precisions"][0]["seconds"]["encoding"]) == (0, 0)
  assert again["precisions"][0]["tokens_per_second"] is None

  assert main(["estimate", *words, "--dataset", str(tmp_path / "ds"), "--precision", "bfloat16"]) == 2
  assert ", the same in precision float32, not of this one" in capsys.readouterr().err


def test_what_a_person_reads(words, capsys, monkeypatch):
  monkeypatch.setenv("COLUMNS", "80")
  monkeypatch.setattr("pipeline.estimate.processor_flags", frozenset)  # a precision alone
  monkeypatch.setattr("pipeline.show.TRUNCATED_WARNING", -1.0)
  words.remove("--json")
  assert main(["estimate", "--seconds", "0.5", *words, "--max-rejected", "0"]) == 0
  out, err = capsys.readouterr()
  lines = [" ".join(line.split()) for line in out.splitlines()]
  assert lines[0].startswith("documents 1,502 exactly, in 3 files, ")
  assert lines[1:4] == ["rejected 0.1%", "distinct 1,200", "to encode 1,200"]
  assert any(line.startswith("float32 ") for line in lines) and "bfloat16" not in out
  assert "warning: 0.1% would be rejected, more than --max-rejected 0.0%: nothing would be published" in lines
  assert any(line.startswith("truncated ") and line.endswith("% of the documents, at 64 tokens") for line in lines)
  (cut,) = [line for line in lines if "cut at the encoder's max_seq_length, 64 tokens" in line]
  assert cut.startswith("warning: ") and "by --long-texts windows or chunks" in cut
  assert err == ""


MODES = [["head-tail"], ["windows", "--stride", "20"], ["chunks", "--stride", "30"]]


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_what_becomes_of_long_texts_is_foretold(words, tmp_path, capsys, mode):
  """Of a corpus that is read whole it is counted, and on the second night the run's own flags are taken."""
  words += ["--n-components", "8", "--dataset", str(tmp_path / "ds"), "--long-texts", *mode]
  estimate = told(capsys, *words, "--precision", "float32")
  assert main([*NIGHT, *words]) == 0
  run = json.loads(capsys.readouterr().out)["run"]
  counts, documents, tokens = run["counts"], estimate["documents"], estimate["tokens"]
  is_cut = mode[0] == "chunks"
  assert documents["number"] == 1502 and documents["rejected_share"] == round(2 / 1502, 4)
  assert documents["chunks"] == (counts["written"] if is_cut else None)
  assert is_cut == (counts["written"] > 1500)
  assert (documents["to_encode"], estimate["plan"]["buckets"]) == (counts["encoded"], run["buckets"])
  assert (tokens["number"], tokens["to_encode"]) == (counts["tokens"], counts["encoded_tokens"])
  assert tokens["truncated_share"] == round(counts["truncated"] / counts["written"], 4)
  assert tokens["unknown_share"] == round(counts["unknown_tokens"] / counts["tokens"], 4)
  assert tokens["padding_share"] == pytest.approx(1 - counts["encoded_tokens"] / counts["computed_tokens"], abs=2e-4)
  raw = sum(path.stat().st_size for path in (tmp_path / "ds/raw").rglob("*.parquet"))
  assert estimate["dataset"]["store_bytes"] == pytest.approx(raw, rel=0.05)
  assert told(capsys, *words)["documents"]["known_share"] == 1
  for flag in ("--long-texts", "--stride"):
    if flag in words:
      del words[words.index(flag) : words.index(flag) + 2]
  if not is_cut:  # a chunk is a text of its own, and fits
    assert main(["estimate", *words]) == 2
    assert f"the same with --long-texts {mode[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["windows", "chunks"])
def test_a_part_tells_what_all_windows_and_chunks_have(tiny_encoder, tmp_path, capsys, mode):
  corpus = write_shards(tmp_path / "input", made_up_texts(4000), 1)
  words = ["--input", str(corpus), "--encoder", tiny_encoder, "--long-texts", mode, "--threads", "1", "--json"]
  estimate = told(capsys, *words, "--sample", "1000", "--precision", "float32")
  assert main([*NIGHT, *words, "--whitening", "none", "--dataset", str(tmp_path / "ds")]) == 0
  counts = json.loads(capsys.readouterr().out)["run"]["counts"]
  assert not estimate["sample"]["is_whole"]
  assert estimate["tokens"]["to_encode"] == pytest.approx(counts["encoded_tokens"], rel=0.05)
  assert estimate["documents"]["to_encode"] == pytest.approx(counts["encoded"], rel=0.05)


@pytest.mark.parametrize(("mode", "line"), [("windows", "in windows"), ("chunks", "chunks")])
def test_a_person_reads_of_windows_and_chunks(words, capsys, mode, line):
  words.remove("--json")
  assert main(["estimate", "--seconds", "0.5", *words, "--precision", "float32", "--long-texts", mode]) == 0
  out, err = capsys.readouterr()
  assert f"\n   {line} " in out and err == ""


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (["--sample", "9"], "--sample 9: too few to say anything of a corpus; choose 1000 or more"),
    (["--seconds", "0"], "--seconds 0: no time to measure anything in; choose 1 or more"),
    (["--long-texts", "windows", "--stride", "1"], "--stride 1: "),
    (["--long-texts", "chunks", "--keep-columns", "parent_id"], "--keep-columns parent_id: with --long-texts chunks "),
    (["--replay", "x"], "--replay: an estimate is of an input that is named; give --input in place of it"),
    (["--memory-budget", "1MB"], "--memory-budget of 1.0MB: this encoder on 1 threads needs "),
    (["--text-column", "body"], "documents-00000-of-00003.jsonl has no column 'body'; its columns are: "),
    (["--whitening", "reuse"], "--whitening reuse: a new dataset has no published run to take it from; "),
    (["--runner", "PortableRunner", "--", "--job_endpoint=x:1"], "--runner PortableRunner: what is timed is this "),
  ],
)
def test_refusals_are_those_of_embed(words, capsys, more, message):
  assert main(["estimate", *words, *more]) == 2
  out, err = capsys.readouterr()
  assert out == "" and message in err and err.count("\n") == 1


def test_input_and_encoder_are_required(capsys):
  assert main(["estimate", "--dataset", "x"]) == 2
  assert "the following arguments are required: --input, --encoder (" in capsys.readouterr().err


def test_the_pages_command_as_it_stands(tiny_encoder, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "encoder").symlink_to(tiny_encoder)
  write_shards(tmp_path / "articles", made_up_texts(60), 2)
  page = (REPOSITORY / "docs/estimate.md").read_text(encoding="utf-8")
  (line,) = re.findall("^```sh\n(.*)\n```", page, re.MULTILINE)
  assert main(shlex.split(line)[1:]) == 0
  assert "documents" in capsys.readouterr().out


def test_few_documents_and_none(tiny_encoder, tmp_path, capsys):
  """Whatever a run would come to, there is an estimate of it."""
  for name, text in (("few", "the rain\nthe sun\n"), ("empty", "")):
    (tmp_path / f"{name}.txt").write_text(text)
    estimate = told(capsys, "--input", str(tmp_path / f"{name}.txt"), "--encoder", tiny_encoder, "--json")
    assert estimate["documents"]["number"] == estimate["documents"]["to_encode"] == text.count("\n")


@pytest.mark.parametrize(("flags", "reports"), [((), 1), (("--no-report",), 0)])
def test_the_report_of_the_run_is_drawn_once_unless_there_will_be_none(
  tiny_encoder, tmp_path, capsys, monkeypatch, flags, reports
):
  drawn, render = [], pipeline.report_page.render
  monkeypatch.setattr(pipeline.report_page, "render", lambda *given: drawn.append(render(*given)) or drawn[-1])
  corpus = write_shards(tmp_path / "input", TEXTS[:70], 1)
  told(capsys, "--input", str(corpus), "--encoder", tiny_encoder, "--precision", "float32", "--json", *flags)
  assert len(drawn) == reports and all("<html" in page for page in drawn)


def test_what_drawing_it_takes_is_in_the_estimate(words, capsys, monkeypatch):
  """By the parts of a trial, whose times are made up."""
  times = {"wave_seconds": 0.0, "finish_seconds": 0.0, "report_seconds": 1000.0}
  trial = lambda *given, **named: replace(try_run(*given, **named), **times)  # noqa: E731
  monkeypatch.setattr(pipeline.estimate, "try_run", trial)
  [precision] = told(capsys, *words, "--precision", "float32")["precisions"]
  assert precision["seconds"]["rest"] == 1000


def test_a_part_of_a_compressed_corpus_with_a_column_kept(tiny_encoder, tmp_path, capsys):
  texts = made_up_texts(9000)
  lines = "".join(f"{json.dumps({'text': text, 'n': i})}\n" for i, text in enumerate(texts))
  (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
  words = ["--input", str(tmp_path), "--encoder", tiny_encoder, "--keep-columns", "n", "--sample", "1000", "--json"]
  estimate = told(capsys, *words)
  documents = estimate["documents"]
  assert not estimate["sample"]["is_whole"] and documents["distinct"] is None
  assert documents["number"] == pytest.approx(9000, rel=0.1)
  assert told(capsys, *words, "--limit", "1500")["documents"]["number"] == 1500
