"""`sorbus embed --replay`: what was rejected costs, and is accounted for, once its cause is mended."""

import json

import pytest

from pipeline.command_line import main, make_parser
from pipeline.commands import embed_options
from pipeline.embed import embed
from pipeline.options import EmbedOptions
from tests.fake_encoder import FailingEncoder
from tests.integration.run_files import NIGHT, made_up_texts, read_rejected
from transforms.input_files import ReadOptions

TEXTS = made_up_texts(40)


def encoder(broken):
  return FailingEncoder(TEXTS, broken=broken)


def write(folder, documents):
  """Writes documents as lines, two files of them."""
  folder.mkdir(exist_ok=True)
  for i in range(2):
    (folder / f"{i}.jsonl").write_text("".join(f"{json.dumps(d)}\n" for d in documents[i::2]))


def run_it(tmp_path, made, **options):
  fields = {"inputs": (f"{tmp_path}/in/*",), "encoder": "fake", "dataset": f"{tmp_path}/ds", "threads": 1, "buckets": 4}
  fields |= {"n_components": 8, "max_rejected": 1.0, "max_broken": 1.0, "read": ReadOptions(id_column="id")}
  return embed(EmbedOptions(**fields | options), made.loaders(), made.spec, 0)


def documents():
  found = [{"id": f"{i:03d}", "text": text} for i, text in enumerate(TEXTS)]
  found[3]["text"] += " red"
  found[4]["text"] += " red"
  found[10]["text"] = None
  found[11]["text"] = ""
  found[12]["text"] = None
  found[20]["id"] = found[21]["id"]
  del found[30]["id"]
  return found


FIRST = {"encoder failed": 2, "null": 2, "no tokens": 1, "duplicate id": 1, "missing column": 1}


def test_each_rejected_document_is_accounted_for(tmp_path):
  found = documents()
  write(tmp_path / "in", found)
  first = run_it(tmp_path, encoder(True)).manifest
  assert first["counts"]["rejected"] == FIRST
  found[10]["text"] = "now it is there"  # the same length as null or not: its id is what counts
  found[30] |= {"id": "030"}
  del found[12]  # documents of one file are in the other now
  write(tmp_path / "in", found)
  replayed = run_it(tmp_path, encoder(False), replay=first["run_id"])
  assert replayed.status == "published"
  # Written: the two that the encoder failed on, and 010. Gone: 012, and two that had a place but no id of their own.
  assert replayed.manifest["replay"] == {
    "run_id": first["run_id"],
    "rejected": 7,
    "written": 3,
    "still_rejected": {"no tokens": 1},
    "gone": 3,
  }
  assert replayed.manifest["counts"]["reused"] == 34


def test_where_nothing_moves_it_is_exact(tmp_path):
  found = documents()
  write(tmp_path / "in", found)
  first = run_it(tmp_path, encoder(True)).manifest
  replayed = run_it(tmp_path, encoder(False), replay=first["run_id"])
  counts = replayed.manifest["counts"]
  assert replayed.manifest["replay"] == {
    "run_id": first["run_id"],
    "rejected": 7,
    "written": 2,
    "still_rejected": {"null": 2, "no tokens": 1, "duplicate id": 1, "missing column": 1},
    "gone": 0,
  }
  assert (counts["encoded"], counts["reused"]) == (2, first["counts"]["encoded"])
  rows = read_rejected(tmp_path / "ds", replayed.manifest)
  assert sorted(row["reason"] for row in rows).count("null") == 2


def test_a_loser_of_an_id_is_found_by_its_place(tmp_path):
  found = documents()
  write(tmp_path / "in", found)
  first = run_it(tmp_path, encoder(True)).manifest
  (loser,) = [row for row in read_rejected(tmp_path / "ds", first) if row["reason"] == "duplicate id"]
  for name in ("0.jsonl", "1.jsonl"):  # another id of the same length: nothing moves
    path = tmp_path / "in" / name
    data = path.read_bytes()
    if name == loser["file"]:
      at = loser["position"]
      path.write_bytes(data[:at] + data[at:].replace(b'"021"', b'"921"', 1))
  told = run_it(tmp_path, encoder(True), replay=first["run_id"]).manifest["replay"]
  assert told["written"] == 1 and "duplicate id" not in told["still_rejected"] and told["gone"] == 0


def test_ids_of_places(tmp_path):
  (tmp_path / "in").mkdir()
  path = tmp_path / "in/a.txt"
  path.write_bytes("\n".join(TEXTS[:20]).encode() + b"\n\xff\xff\nabc \xfe\n   \n")
  by_place = {"read": ReadOptions()}
  first = run_it(tmp_path, encoder(False), **by_place).manifest
  assert first["counts"]["rejected"] == {"invalid bytes": 2, "no tokens": 1}
  path.write_bytes(path.read_bytes().replace(b"\xff\xff", b"ab"))
  told = run_it(tmp_path, encoder(False), replay=first["run_id"], **by_place).manifest["replay"]
  assert (told["written"], told["still_rejected"], told["gone"]) == (1, {"invalid bytes": 1, "no tokens": 1}, 0)
  path.rename(tmp_path / "in/b.txt")
  told = run_it(tmp_path, encoder(False), replay=first["run_id"], **by_place).manifest["replay"]
  assert (told["written"], told["still_rejected"], told["gone"]) == (0, {}, 3)


# --- the command line


@pytest.fixture
def held_back(tiny_encoder, tmp_path, monkeypatch, capsys):
  """A night that was held back, typed in the folder of its input: (the dataset, its run, the documents)."""
  monkeypatch.chdir(tmp_path)
  found = [{"key": f"{i:03d}", "body": text, "lang": "xx"} for i, text in enumerate(TEXTS)]
  found[5]["body"] = found[6]["body"] = None
  write(tmp_path / "in", found)
  command = [*NIGHT, "--input", "in/*.jsonl", "--id-column", "key", "--text-column", "body", "--keep-columns", "lang"]
  command += ["--encoder", tiny_encoder, "--dataset", "ds", "--n-components", "8", "--limit", "39", "--threads", "1"]
  assert main([*command, "--json"]) == 1
  return tmp_path / "ds", json.loads(capsys.readouterr().out)["run"], found


def test_the_job_is_that_of_the_run_wherever_it_is_typed(held_back, capsys, monkeypatch):
  dataset, first, found = held_back
  found[5]["body"] = "it is there"
  found[6]["body"] = "this too"
  write(dataset.parent / "in", found)
  (dataset.parent / "elsewhere").mkdir()
  monkeypatch.chdir(dataset.parent / "elsewhere")
  command = [*NIGHT, "--replay", f"{dataset}/runs/{first['run_id']}", "--threads", "1"]
  assert main([*command, "--json"]) == 0
  run = json.loads(capsys.readouterr().out)["run"]
  assert run["options"] == first["options"] and run["options"]["limit"] == 39
  assert run["encoder"] == first["encoder"] and run["kept_columns"] == {"lang": "string"}
  assert run["replay"]["written"] == 2
  assert main(["show", str(dataset)]) == 0
  assert (
    f"replay of run {first['run_id']}: of 2 rejected documents 2 are written now, 0 still rejected, 0 gone from the "
    "input" in capsys.readouterr().out
  )


def test_a_flag_given_beside_it_counts_instead(held_back, tiny_encoder):
  dataset, first, _ = held_back

  def replay(*more):
    args = make_parser().parse_args(["embed", "--dataset", str(dataset), "--replay", first["run_id"], *more])
    args.beam_options = ()
    return embed_options(args)

  asked = replay()
  assert (asked.limit, asked.max_rejected, asked.read.encoding, asked.replay) == (39, 0.01, "utf-8", first["run_id"])
  assert (asked.inputs, asked.encoder) == ((f"{dataset.parent}/in/*.jsonl",), tiny_encoder)
  asked = replay("--limit", "7", "--max-rejected", "5%", "--encoding", "latin-1", "--no-header")
  assert (asked.limit, asked.max_rejected, asked.read.header) == (7, 0.05, False)
  assert asked.read.encoding != "utf-8" and asked.read.text_columns == ("body",)


def test_it_costs_what_was_rejected_and_can_be_held_back_again(held_back, capsys):
  dataset, first, _ = held_back
  assert main([*NIGHT, "--dataset", str(dataset), "--replay", first["run_id"], "--max-rejected", "10%"]) == 0
  captured = capsys.readouterr()
  assert "2 still rejected (2 null)" in captured.out and f"replay of run {first['run_id']}" in captured.err


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--replay", "{run}"], "in which dataset? give --dataset too, or --replay DATASET/runs/ID"),
    (["--replay", "{run}", "--dataset", "{ds}", "--input", "in/*"], "--input with --replay: a replay reads the input"),
    (["--replay", "nothing", "--dataset", "{ds}"], "no run 'nothing'; `sorbus show` lists"),
    (["--replay", "{ds}/{run}"], "is no run; give its id, or its folder, DATASET/runs/ID"),
    (["--replay", "{ds}/runs/{run}", "--dataset", "{other}"], "no Sorbus dataset is there"),
    (["--replay", "elsewhere/runs/{run}"], "no Sorbus dataset is there"),
  ],
)
def test_what_cannot_be_replayed(held_back, capsys, words, message):
  dataset, first, _ = held_back
  places = {"run": first["run_id"], "ds": str(dataset), "other": str(dataset.parent / "other")}
  assert main(["embed", *(word.format(**places) for word in words)]) == 2
  captured = capsys.readouterr()
  assert message in captured.err and captured.err.count("\n") == 1
