import datetime
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pipeline.dataset import Dataset, to_json
from pipeline.report_facts import Reason, find_stages, gather
from pipeline.report_page import render, shorten, show_bytes, show_duration, show_share, show_time
from tests.manifests import manifest
from tests.report_runs import HOSTILE

NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC)
SECTIONS = {"counts", "speed", "tokens", "rejected", "vectors", "last", "ran"}


class Page(HTMLParser):
  """What a browser would see: the tags with their attributes, and the text."""

  def __init__(self, page):
    super().__init__()
    self.tags, self.text = [], ""
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_data(self, data):
    self.text += data

  def names(self):
    return {tag for tag, _ in self.tags}

  def ids(self, tag):
    return {attributes["id"] for name, attributes in self.tags if name == tag and "id" in attributes}


@pytest.fixture(scope="module")
def facts(reported):
  return gather(reported, reported.run_ids()[-1], NOON, with_texts=True)


@pytest.fixture(scope="module")
def page(facts):
  return render(facts)


def test_every_section_is_there_and_linked(page, facts):
  seen = Page(page)
  assert seen.ids("section") == SECTIONS | {"texts"}
  assert {a["href"] for tag, a in seen.tags if tag == "a"} == {f"#{name}" for name in SECTIONS | {"texts"}}
  assert Page(render(replace(facts, with_texts=False))).ids("section") == SECTIONS


def test_examples_that_were_not_looked_for_are_told(page, facts):
  short = replace(facts, reasons=(Reason("null", 3, facts.reasons[0].examples[:1]), Reason("too long", 1, ())))
  seen, more = Page(render(short)).text, "looked for in the first 16 MB of rejected/ only"
  assert f"There are more; examples are {more}" in seen and f"None is shown; examples are {more}" in seen
  assert more not in Page(page).text


def test_a_strangers_text_is_never_markup(page):
  seen = Page(page)
  assert not seen.names() & {"script", "img", "link", "iframe", "object", "form", "base"}
  assert not [a for _, a in seen.tags if any(name.startswith("on") for name in a)]
  assert HOSTILE in seen.text and "alert('x')" not in page  # shown, and escaped


def test_nothing_is_asked_of_the_network(page):
  asked = {value for _, a in Page(page).tags for name, value in a.items() if name in ("src", "href", "xlink:href")}
  assert asked and all(value.startswith("#") for value in asked)
  assert "@import" not in page and not re.search(r"url\((?!#)", page)
  policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
  assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page


def test_no_text_is_in_it_unless_asked_for(reported):
  page = render(gather(reported, reported.run_ids()[-1], NOON))
  facts = gather(reported, reported.run_ids()[-1], NOON, with_texts=True)
  assert "secret" not in page and "no text of a document is in it" in page
  shown = {text for n in facts.neighbours for text in (n.text, *(text for _, _, text in n.nearest))}
  assert not [text for text in shown if text in page]
  assert "bad 0" in page and "title 35" not in page  # ids, but no column


def test_the_same_facts_give_the_same_page_of_bounded_size(page, facts):
  assert render(facts) == page and len(page) < 300_000


def test_what_it_says(page):
  text = " ".join(Page(page).text.split())
  assert "371 of 395 documents encoded by fake, whitened 16 → 15, in" in text
  assert "395 read = 371 written + 24 rejected" in text and "does not add up" not in text
  assert "NUL character · 15" in text and "null · 9" in text
  assert "0 documents are new, 0 changed" not in text and "30 gone" in text
  assert "vectors of both runs can be compared" in text


def test_options_are_those_that_were_given_as_they_are_typed(facts):
  text = " ".join(Page(render(facts)).text.split())
  options = text[text.index("Options") : text.index("Versions")]
  assert "--id-columnid --input/" in options and "--keep-columnstitle, text --max-" in options
  assert "--max-rejected0.2" in options and "--no-header" not in options and "--allow-bad-files" not in options


def test_a_run_of_nothing_is_told_without_a_plot(tmp_path):
  dataset = Dataset.open_or_create(str(tmp_path / "ds"), {"fingerprint": "ab", "tokenizer": {}})
  counts = dict.fromkeys(manifest()["counts"], 0) | {"rejected": {}}
  value = manifest(counts=counts, seconds=dict.fromkeys(("read", "encode", "write"), 0.0))
  value |= {"whitening": {"asked": "fit", "refused": "0 documents are too few"}, "changes": None}
  dataset.storage.write("runs/r1/manifest.json", to_json(value | {"verdicts": {}}))
  for with_texts in (False, True):
    page = Page(render(gather(dataset, "r1", NOON, with_texts=with_texts)))
    assert "svg" not in page.names() and "The input had no document" in page.text
    assert "No whitening could be fitted: 0 documents are too few" in page.text


def test_a_sum_that_does_not_add_up_is_told(facts):
  wrong = replace(facts, sums=(replace(facts.sums[0], total=1),))
  assert "does not add up" in Page(render(wrong)).text


@pytest.mark.parametrize(
  ("mode", "says"),
  [
    ("head-tail", "of which the first and the last were taken."),
    ("windows", "Long texts windows: 93 are averages over windows of at most 30 tokens, one every 20."),
  ],
)
def test_what_became_of_long_texts_is_told(facts, mode, says):
  long_texts = {"mode": mode, "room": 30, "stride": 20, "long": 93, "chunks": None}
  text = " ".join(Page(render(replace(facts, manifest={**facts.manifest, "long_texts": long_texts}))).text.split())
  assert says in text and "what is behind the first" not in text
  assert "what is behind the first 32 tokens is not in their vectors" in Page(render(facts)).text


def test_chunks_are_called_so_wherever_rows_are_chunks(facts):
  long_texts = {"mode": "chunks", "room": 30, "stride": 30, "long": 5, "chunks": 100}
  value = {**facts.manifest, "long_texts": long_texts}
  text = " ".join(Page(render(replace(facts, manifest=value, stages=find_stages(value)))).text.split())
  assert "371 of 395 chunks of 300 documents encoded by" in text and "chunks written" in text
  for chunks in ("Half of the chunks have at most", "All 371 chunks.", "of 395 chunks (", " chunks are new, "):
    assert chunks in text, chunks
  assert "tokens of a chunk" in text and "A map of 371 chunks" in text
  assert not re.findall(r"\d documents", text.partition("Input files")[2])  # but for gates, whose words are the run's


def test_clipped_values_are_told_where_the_type_is(facts):
  def what_ran(clipped):
    vectors = {"type": "int8", "clipped": clipped}
    return " ".join(Page(render(replace(facts, manifest={**facts.manifest, "vectors": vectors}))).text.split())

  assert "int8, 15 numbers each; 1,234 lay beyond their range and were clipped kept columns" in what_ran(1234)
  assert "int8, 15 numbers each kept columns" in what_ran(0)


@pytest.mark.parametrize(
  ("show", "values", "shown"),
  [
    (show_share, (0, 10), "0%"),
    (show_share, (1, 0), "0%"),
    (show_share, (1, 100_000), "<0.1%"),
    (show_share, (1, 3), "33.3%"),
    (show_bytes, (999,), "999 bytes"),
    (show_bytes, (1500,), "1.5 kB"),
    (show_bytes, (2_340_000_000,), "2.3 GB"),
    (show_duration, (0.155,), "0.2 s"),
    (show_duration, (17,), "17 s"),
    (show_duration, (90,), "1 min 30 s"),
    (show_duration, (3599.7,), "1 h 0 min"),
    (shorten, ("a\n b\0",), "a b\\x00"),
    (shorten, ("x" * 500,), f"{'x' * 400}…"),
  ],
)
def test_how_numbers_and_texts_are_shown(show, values, shown):
  assert show(*values) == shown


@pytest.mark.parametrize(
  ("zone", "shown"),
  [
    ("UTC", "Thu 29 Feb 2024, 23:30:00 UTC"),
    ("Asia/Tokyo", "Fri 1 Mar 2024, 08:30:00 JST (29 Feb, 23:30:00 UTC)"),
    ("America/New_York", "Thu 29 Feb 2024, 18:30:00 EST (23:30:00 UTC)"),
  ],
)
def test_times_are_local_with_utc_beside(monkeypatch, zone, shown):
  import time

  monkeypatch.setenv("TZ", zone)
  time.tzset()
  try:
    assert show_time(NOON.replace(hour=23, minute=30)) == shown
  finally:
    monkeypatch.undo()
    time.tzset()
