import pytest

from pipeline.command_line import make_parser
from pipeline.compare_manifests import as_typed, compare, show_value
from pipeline.dataset import Dataset, to_json
from pipeline.options import EmbedOptions
from pipeline.planning import absolute, describe
from tests.manifests import manifest


@pytest.fixture
def dataset(tmp_path):
  dataset = Dataset.open_or_create(str(tmp_path / "ds"), {"fingerprint": "ab", "tokenizer": {}})
  then = manifest(run_id="r0", counts={"read": 12_000, "rejected": {"no tokens": 5}}, options={"max_rejected": 0.01})
  dataset.storage.write("runs/r0/manifest.json", to_json(then | {"versions": {"numpy": "2.4.5", "python": "3.11"}}))
  return dataset


def now(**changes):
  value = manifest(options={"keep_columns": ["a", "b"]}, **changes)
  return value | {"versions": {"numpy": "2.4.6", "python": "3.11"}}


def test_what_is_other_since_the_run_before(dataset):
  found = compare(dataset, now())
  assert (found.run_id, found.comparable, found.problem) == ("r0", True, None)
  counts = {what: (then, today) for what, then, today in found.counts}
  assert counts["read"] == (12_000, 12_345) and counts["rejected"] == (5, 345) and counts["tokens"] == (240_000,) * 2
  assert found.settings == (
    ("--keep-columns", "–", "a, b"),
    ("--max-rejected", "0.01", "–"),
    ("numpy", "2.4.5", "2.4.6"),
  )


@pytest.mark.parametrize("part", ["encoder", "whitening"])
def test_another_map_makes_vectors_that_cannot_be_compared(dataset, part):
  found = compare(dataset, now(**{part: {"fingerprint": "ab" * 32}}))
  assert found.comparable is False
  ((what, then, today),) = [row for row in found.settings if row[0] in ("encoder", "whitening")]
  assert (what, today) == (part, "abababababab") and len(then) == 12


def test_a_first_run_has_none_before_and_gc_may_have_removed_it(dataset):
  assert compare(dataset, now(changes={"against": None})) is None
  assert compare(dataset, {**now(), "changes": None}) is None
  gone = compare(dataset, now(changes={"against": "r9"}))
  assert "no run 'r9'" in gone.problem and gone.comparable is None and not gone.counts


def test_options_stand_under_the_flags_of_embed():
  options = vars(make_parser().parse_args(["embed"])).keys()
  typed = as_typed({**describe(EmbedOptions(inputs=("a",), encoder="e", dataset="d")), "threshold": 0.5})
  assert {flag.removeprefix("--").replace("-", "_") for flag in typed} <= options
  assert typed["--input"] == [absolute("a")] and typed["--no-header"] is False and typed["--max-rejected"] == 0.01


def test_settings_as_people_read_them():
  values = [None, True, False, 0.01, [], ["a", 2], "ab" * 32, "name"]
  assert list(map(show_value, values)) == ["–", "yes", "no", "0.01", "–", "a, 2", "abababababab", "name"]
