import io
import json

import pytest
from rich.cells import cell_len
from rich.console import Console

from pipeline.search import Hit
from pipeline.show_hits import hits_to_json, show_hits

CHINESE = "梧桐树的叶子， 在秋天落下，" * 30
PLACE = {"parent_id": "a", "chunk_start": 120, "chunk_end": 480}


def printed(*hits, width=40):
  console = Console(file=io.StringIO(), width=width)
  show_hits(hits, console)
  return console.file.getvalue().splitlines()


def test_short_columns_stand_beside_each_other_and_what_is_empty_is_left_out():
  hits = [
    Hit(0.98765, "a#0", {"lang": "en", "n": 1, "title": "A day by the sea and more"}),
    Hit(-0.5, "b", {"n": None}),
  ]
  assert printed(*hits) == [
    "0.9877  a#0",
    "        lang: en · n: 1",
    "        title: A day by the sea and more",
    "",
    "-0.5000 b",
  ]


def test_a_long_text_is_folded_to_three_lines_between_words():
  text = "the quick brown fox jumps over the lazy dog " * 9
  assert printed(Hit(1.0, "a", {"text": text})) == [
    "1.0000  a",
    "        text: the quick brown fox jumps",
    "        over the lazy dog the quick",
    "        brown fox jumps over the lazy…",
  ]


def test_a_word_that_ends_with_the_line_stays_on_it():
  assert printed(Hit(1.0, "a", {"t": f"{'a' * 20} {'b' * 8} c"}))[1:] == [
    f"        t: {'a' * 20} {'b' * 8}",
    "        c",
  ]


@pytest.mark.parametrize("width", [30, 41, 80, 200])
def test_chinese_fills_each_line_and_only_the_last_is_cut(width):
  _, *lines = printed(Hit(1.0, "a", {"text": CHINESE}), width=width)
  assert len(lines) == 3 and all(width - 2 <= cell_len(line) <= width for line in lines[:2])
  assert cell_len(lines[2]) <= width and "".join(lines).count("…") == 1
  shown = "".join(line.strip() for line in lines).removesuffix("…").removeprefix("text: ")
  assert CHINESE.replace(" ", "").startswith(shown.replace(" ", ""))


def test_characters_without_a_width_do_not_hide_that_a_text_goes_on():
  assert printed(Hit(1.0, "a", {"text": "e" + "\u0301" * 5000}))[-1].endswith("…")


def test_a_chunk_says_where_it_stands_once_and_not_whose_it_is():
  assert printed(Hit(1.0, "a#3", {"text": "x", **PLACE})) == ["1.0000  a#3  at 120–480", "        text: x"]


def test_columns_of_that_name_of_what_is_no_chunk_are_shown():
  assert printed(Hit(1.0, "b", PLACE))[1:] == ["        parent_id: a · chunk_start: 120", "        chunk_end: 480"]


def test_a_long_id_is_folded_and_stays_whole():
  assert printed(Hit(1.0, "0123456789" * 5, {})) == [
    "1.0000  " + "01234567890123456789012345678901",
    "        " + "234567890123456789",
  ]


def test_ids_alone_are_a_list_without_gaps():
  assert printed(Hit(1.0, "a", {}), Hit(0.5, "b", {})) == ["1.0000  a", "0.5000  b"]


def test_nothing_is_printed_that_a_terminal_obeys():
  hit = Hit(1.0, "[b]a", {"[red]t": "two\nlines\x1b[31m [/]"})
  assert printed(hit) == ["1.0000  [b]a", r"        [red]t: two lines\x1b[31m [/]"]


def test_labels_are_shown_where_the_encoder_has_some():
  hits = [Hit(1.0, "a", {}, ["joy", "pride"]), Hit(0.5, "b", {}, [])]
  assert printed(*hits) == ["1.0000  a", "        labels: joy, pride", "", "0.5000  b", "        labels: none"]
  assert [hit["labels"] for hit in json.loads(hits_to_json(hits))] == [["joy", "pride"], []]


def test_no_hits_are_told():
  assert printed() == ["no documents"]


def test_json_has_no_nan():
  hit = Hit(1.0, "白", {"a": float("nan"), "b": {"c": float("inf")}, "d": 2.5})
  text = hits_to_json([hit])
  assert json.loads(text) == [{"doc_id": "白", "score": 1.0, "kept": {"a": None, "b": {"c": None}, "d": 2.5}}]
  assert "白" in text
