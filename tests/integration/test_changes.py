"""What changed since the published run: whoever applies a run's changes to what he has of the base has the run."""

import json
import random
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.publish_run import publish_run
from pipeline.verify import verify_run
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, published_runs, run_folder
from transforms.input_files import ReadOptions

TEXTS = made_up_texts(40)
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 8)
READ = ReadOptions(id_column="id", keep_columns=("lang",))
NIGHT = {"read": READ, "whitening": "none", "buckets": 4, "threads": 1, "max_shrink": 1.0, "max_rejected": 1.0}
DOCUMENTS = {f"id {i:02d}": (TEXTS[i], "en") for i in range(20)}


def write_input(folder, documents, n_files=2):
  """Writes (id, text, lang) rows as JSONL, the files of the last night gone."""
  folder.mkdir(exist_ok=True)
  for path in folder.iterdir():
    path.unlink()
  rows = [{"id": i, "text": text, "lang": lang} for i, text, lang in documents]
  for number in range(n_files):
    lines = "".join(f"{json.dumps(row)}\n" for row in rows[number::n_files])
    (folder / f"{number}.jsonl").write_text(lines)
  return folder


def rows_of(documents):
  return [(i, *rest) for i, rest in documents.items()]


def published_rows(dataset: Path, manifest):
  """{doc_id: all of its row} of a run."""
  table = pq.read_table(run_folder(dataset, manifest) / "vectors")
  return {row["doc_id"]: repr(row) for row in table.to_pylist()}


def read_changes(dataset: Path, manifest):
  """{doc_id: change} of a run, read by its manifest."""
  rows = [row for f in manifest["files"]["changes"] for row in pq.read_table(dataset / f["path"]).to_pylist()]
  changes = {row["doc_id"]: row["change"] for row in rows}
  assert len(changes) == len(rows)
  return changes


def kinds(manifest):
  return tuple(manifest["counts"][name] for name in ("new", "changed", "unchanged", "gone"))


def verified(dataset, manifest):
  failed = [check for check in verify_run(Dataset.open(str(dataset)), manifest["run_id"]) if not check.passed]
  assert not failed, failed


class Nights:
  """A dataset, and what a database holds that applies the changes of each published run."""

  def __init__(self, folder: Path):
    self.dataset, self.inputs = folder / "dataset", folder / "input"
    self.held: dict[str, dict[str, str]] = {}  # run id → what a database holds after that run

  def night(self, rows, status="published", n_files=2, **options):
    """Runs a night, checks its changes against the rows of both runs, and returns its manifest."""
    write_input(self.inputs, rows, n_files)
    outcome = embed_fake(ENCODER, self.dataset, self.inputs, **(NIGHT | options))
    manifest = outcome.manifest
    assert outcome.status == status
    base, rows = self.held.get(manifest["changes"]["against"], {}), published_rows(self.dataset, manifest)
    changes = read_changes(self.dataset, manifest)
    held = {i: row for i, row in base.items() if changes.get(i) != "delete"}
    held |= {i: rows[i] for i, change in changes.items() if change == "upsert"}
    assert held == rows
    assert all(i in base for i, change in changes.items() if change == "delete")
    counts = manifest["counts"]
    assert counts["new"] == len(rows.keys() - base.keys()) and counts["gone"] == len(base.keys() - rows.keys())
    assert counts["new"] + counts["changed"] == list(changes.values()).count("upsert")
    assert counts["new"] + counts["changed"] + counts["unchanged"] == counts["written"] == len(rows)
    self.held[manifest["run_id"]] = held
    return manifest


@pytest.fixture(scope="module")
def one_night(tmp_path_factory):
  """One night of 20 documents, for tests to copy."""
  nights = Nights(tmp_path_factory.mktemp("changes"))
  return nights, nights.night(rows_of(DOCUMENTS))


@pytest.fixture
def nights(one_night, tmp_path):
  nights, first = one_night
  shutil.copytree(nights.dataset, tmp_path / "dataset")
  copy = Nights(tmp_path)
  copy.held, copy.first = dict(nights.held), first
  return copy


def test_the_first_night_is_all_new(nights):
  assert kinds(nights.first) == (20, 0, 0, 0)
  assert nights.first["changes"] == {"against": None, "problem": None}
  assert read_changes(nights.dataset, nights.first) == dict.fromkeys(DOCUMENTS, "upsert")


EDITED = {i: d for i, d in DOCUMENTS.items() if i not in ("id 04", "id 07")}
EDITED |= {"id 01": DOCUMENTS["id 02"], "id 02": DOCUMENTS["id 01"]}  # they swapped their texts
EDITED |= {"id 03": (TEXTS[30], "en")}
EDITED |= {"id 88": DOCUMENTS["id 04"]}  # a text under another id
EDITED |= {"id 99": (TEXTS[31], "en"), "id 98": DOCUMENTS["id 05"]}  # added; added with a text that there is
EDITED |= {"id 09": (TEXTS[9], "de"), "id 10": (TEXTS[10], None)}  # another column, and none
EDITED |= {"id 06": (" ", "en")}  # rejected now
CHANGES = dict.fromkeys(("id 01", "id 02", "id 03", "id 09", "id 10"), "upsert")
CHANGES |= dict.fromkeys(("id 88", "id 98", "id 99"), "upsert") | dict.fromkeys(("id 04", "id 06", "id 07"), "delete")


@pytest.mark.parametrize(
  "options",
  [{}, {"buckets": 16, "waves": 3}, {"buckets": 1, "beam_options": ("--direct_runner_bundle_repeat=2",)}],
  ids=str,
)
def test_each_edit_is_the_change_that_it_is_however_a_night_is_run(nights, options):
  rows = rows_of(EDITED)
  random.Random(1).shuffle(rows)  # every document moves
  manifest = nights.night(rows, n_files=3, **options)
  assert manifest["changes"] == {"against": nights.first["run_id"], "problem": None}
  assert read_changes(nights.dataset, manifest) == CHANGES
  assert kinds(manifest) == (3, 5, 12, 3)
  verified(nights.dataset, manifest)
  named = {nights.dataset / file["path"] for file in manifest["files"]["changes"]}
  assert set((run_folder(nights.dataset, manifest) / "changes").iterdir()) == named


def test_a_document_that_lost_its_id_is_no_change(nights):
  twice = [*rows_of(DOCUMENTS), ("id 02", TEXTS[35], "en"), ("id 02", DOCUMENTS["id 02"][0], "en")]
  manifest = nights.night(twice, n_files=1)
  assert kinds(manifest) == (0, 0, 20, 0) and manifest["counts"]["rejected"] == {"duplicate id": 2}
  assert manifest["files"]["changes"] == []
  # The winner of an id is another document now: that is a change.
  manifest = nights.night([("id 02", TEXTS[35], "en"), *rows_of(DOCUMENTS)], n_files=1)
  assert read_changes(nights.dataset, manifest) == {"id 02": "upsert"}


@pytest.mark.parametrize(
  "options",
  [{"whitening": "fit", "n_components": 3}, {"read": ReadOptions(id_column="id")}],
  ids=["whitening", "columns"],
)
def test_another_map_or_other_columns_change_every_row(nights, options):
  documents = {i: d for i, d in DOCUMENTS.items() if i != "id 07"}
  manifest = nights.night(rows_of(documents), **options)
  assert kinds(manifest) == (0, 19, 0, 1)
  assert kinds(nights.night(rows_of(documents))) == (0, 19, 0, 0)


def test_changes_are_against_what_is_published_not_against_the_last_run(nights):
  documents = DOCUMENTS | {"id 03": (TEXTS[30], "en")}
  held_back = nights.night([*rows_of(documents), ("bad", " ", "en")], status="held back", max_rejected=0.01)
  assert held_back["changes"]["against"] == nights.first["run_id"]
  manifest = nights.night(rows_of(DOCUMENTS | {"id 99": (TEXTS[31], "en")}))
  assert manifest["changes"]["against"] == nights.first["run_id"]
  assert read_changes(nights.dataset, manifest) == {"id 99": "upsert"}


def test_after_a_rollback_changes_are_against_the_older_run(nights):
  documents = DOCUMENTS | {"id 03": (TEXTS[30], "en")}
  second = nights.night(rows_of(documents))
  publish_run(Dataset.open(str(nights.dataset)), nights.first["run_id"])
  manifest = nights.night(rows_of(documents))
  assert manifest["changes"]["against"] == nights.first["run_id"] != second["run_id"]
  assert read_changes(nights.dataset, manifest) == {"id 03": "upsert"}


def test_a_base_whose_shards_are_damaged_stops_no_night_and_says_so(nights, capsys):
  next(nights.dataset.glob("runs/*/vectors/*")).unlink()
  inputs = write_input(nights.inputs, rows_of(DOCUMENTS))
  outcome = embed_fake(ENCODER, nights.dataset, inputs, **NIGHT)
  assert outcome.status == "published"
  manifest = outcome.manifest
  assert "missing" in manifest["changes"]["problem"] and manifest["changes"]["against"] == nights.first["run_id"]
  assert sum(kinds(manifest)[:3]) == 20 and kinds(manifest)[0] > 0 and kinds(manifest)[3] == 0
  assert main(["show", str(nights.dataset)]) == 0
  assert "warning: what is gone is not fully known" in capsys.readouterr().out


def test_a_base_whose_manifest_is_damaged_makes_everything_new(nights):
  (run_folder(nights.dataset, nights.first) / "manifest.json").write_text("{")
  outcome = embed_fake(ENCODER, nights.dataset, write_input(nights.inputs, rows_of(DOCUMENTS)), **NIGHT)
  assert outcome.status == "published" and kinds(outcome.manifest) == (20, 0, 0, 0)
  assert outcome.manifest["changes"]["against"] is None
  assert "manifest.json: not valid JSON" in outcome.manifest["changes"]["problem"]


def test_where_no_whitening_can_be_fitted_nothing_is_said_of_changes(nights, capsys):
  few = NIGHT | {"whitening": "fit", "limit": 2}
  outcome = embed_fake(ENCODER, nights.dataset, write_input(nights.inputs, rows_of(DOCUMENTS)), **few)
  assert outcome.status == "held back"
  manifest = outcome.manifest
  assert (manifest["changes"], kinds(manifest), manifest["files"]["changes"]) == (None, (0, 0, 0, 0), [])
  assert main(["show", str(nights.dataset), "--run", manifest["run_id"]]) == 0
  assert re.search(r"unchanged +–", capsys.readouterr().out)


def test_ten_nights_applied_one_by_one_are_each_nights_run(tmp_path):
  """Each night checks itself in `Nights.night`; here a corpus changes at random, and so does how it is run."""
  rng, nights = random.Random(0), Nights(tmp_path)
  documents: dict[str, tuple[str, str]] = {}
  unchanged = 0
  for _ in range(10):
    for i in rng.sample(sorted(documents), len(documents) // 5):
      del documents[i]
    for i in [*rng.sample(sorted(documents), len(documents) // 5), *(f"id {rng.randrange(60)}" for _ in range(8))]:
      documents[i] = (rng.choice(TEXTS), rng.choice(["en", "de"]))
    rows = rows_of(documents) + [(rng.choice(sorted(documents)), rng.choice(TEXTS), "en") for _ in range(3)]
    rng.shuffle(rows)
    buckets, waves = rng.choice([1, 2, 8]), 1 + (rng.random() < 0.2)
    # Without a whitening of its own most nights; now and then one file of rows less.
    whitening = {} if rng.random() < 0.8 else {"whitening": "fit", "n_components": 3}
    manifest = nights.night(rows, n_files=rng.randrange(1, 4), buckets=buckets, waves=waves, **whitening)
    unchanged += kinds(manifest)[2]
    assert published_runs(nights.dataset)[-1] == manifest["run_id"]
    if rng.random() < 0.2:
      publish_run(Dataset.open(str(nights.dataset)), rng.choice(published_runs(nights.dataset)))
  assert unchanged > 30


# --- by input file


def test_each_input_file_is_accounted_for_over_waves_and_stages(tmp_path):
  nights = Nights(tmp_path)
  write_input(nights.inputs, rows_of(DOCUMENTS))
  (nights.inputs / "2.jsonl").write_text('{"id": "id 00", "text": "late"}\n{"id": "x", "text": " "}\nno json\n')
  (nights.inputs / "3.jsonl").write_text("")
  (nights.inputs / "4.jsonl.gz").write_bytes(b"\x1f\x8b damaged")
  read = ReadOptions(id_column="id", keep_columns=("lang",), allow_bad_files=True)
  options = NIGHT | {"read": read, "waves": 3, "beam_options": ("--direct_runner_bundle_repeat=2",)}
  manifest = embed_fake(ENCODER, nights.dataset, nights.inputs, **options).manifest
  assert [file["name"] for file in manifest["inputs"]] == [*(f"{i}.jsonl" for i in range(4)), "4.jsonl.gz"]
  assert manifest["by_input"] == [
    {"read": 10, "written": 10, "rejected": 0},
    {"read": 10, "written": 10, "rejected": 0},
    {"read": 3, "written": 0, "rejected": 3},
    {"read": 0, "written": 0, "rejected": 0},
    {"read": 0, "written": 0, "rejected": 0},
  ]
  assert manifest["counts"]["bad_files"] == 1
  assert manifest["verdicts"]["accounts"]["passed"]
  verified(nights.dataset, manifest)
