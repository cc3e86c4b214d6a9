import random
from itertools import pairwise

import numpy as np
import pytest

from tests.tiny_bert import VOCABULARY
from tests.transforms.test_wordpiece_fuzz import PIECES, random_text
from transforms import wordpiece as wordpiece_module
from transforms.text_units import find_units, last_tokens
from transforms.wordpiece import TokenizerSettings, Wordpiece

LETTERS = sorted({c for piece in PIECES for c in piece + piece.lower()} - set(VOCABULARY))
SEPARATED = [f"##{c}" for c in LETTERS if f"##{c}" not in VOCABULARY]
CASES = [(True, True), (False, True), (False, False)]


def make_wordpiece(lowercase=True, chinese=True, max_seq_length=1_000_000):
  settings = TokenizerSettings(lowercase, lowercase, chinese)
  return Wordpiece([*VOCABULARY, *LETTERS, *SEPARATED], settings, max_seq_length)


def random_texts(seed, n):
  """Of words of every script, marks, quotes, and what ends a sentence in English and Chinese."""
  generator = random.Random(seed)
  for _ in range(n):
    parts = []
    for _ in range(generator.randrange(8)):
      parts += [
        random_text(generator, VOCABULARY),
        generator.choice([". ", "。", "！”", "?’ ", "…", "\n", ".", "Σ. ", "’"]),
      ]
    yield "".join(parts)


def ids_of(wordpiece, text):
  return wordpiece.tokenise([text]).input_ids[1:-1].tolist()


@pytest.mark.parametrize(("lowercase", "chinese"), CASES)
def test_the_tokens_of_a_text_are_those_of_its_units(lowercase, chinese):
  wordpiece, n_units = make_wordpiece(lowercase, chinese), 0
  for text in random_texts(1, 150):
    units = [unit for unit, _ in wordpiece.units(text)]
    found, whole = find_units(wordpiece, text), ids_of(wordpiece, text)
    assert "".join(units) == text
    assert found.input_ids.tolist() == whole, ascii(text)
    assert found.characters.tolist() == np.cumsum([0, *map(len, units)]).tolist()
    assert found.tokens[-1] == len(whole) and len(found.is_end) == len(found.tokens) == len(found.characters)
    n_units += len(units)
  assert n_units > 2_000


@pytest.mark.parametrize(("lowercase", "chinese"), CASES)
def test_any_piece_between_two_units_has_the_tokens_that_it_has_in_the_text(lowercase, chinese):
  wordpiece, generator = make_wordpiece(lowercase, chinese), random.Random(5)
  for text in random_texts(2, 100):
    units = find_units(wordpiece, text)
    first, stop = sorted(generator.choices(range(len(units.tokens)), k=2))
    piece = text[units.characters[first] : units.characters[stop]]
    expected = units.input_ids[units.tokens[first] : units.tokens[stop]].tolist()
    assert ids_of(wordpiece, piece) == ids_of(wordpiece, piece.strip()) == expected, ascii(text)


@pytest.mark.parametrize(("lowercase", "chinese"), CASES)
def test_the_last_tokens(lowercase, chinese):
  wordpiece, compared = make_wordpiece(lowercase, chinese), 0
  for text in random_texts(3, 100):
    whole = ids_of(wordpiece, text)
    for n in (n for n in (1, 5, 40, len(whole)) if 0 < n <= len(whole)):
      assert last_tokens(wordpiece, text, n) == whole[-n:], ascii(text)
      compared += 1
  assert compared > 150


@pytest.mark.parametrize(
  ("text", "sentences"),
  [
    ("It rained. He sang! Did she? No", ["It rained. ", "He sang! ", "Did she? ", "No"]),
    ("Pi is 3.14, e.g., and 1.5.\nA line\n\nanother", ["Pi is 3.14, e.g., and 1.5.\n", "A line\n\n", "another"]),
    ("“No!” he said. ‘Yes.’ (Well.) So", ["“No!” ", "he said. ", "‘Yes.’ ", "(Well.) ", "So"]),
    ("天晴。他说：“人人大。”中文！地大？子", ["天晴。", "他说：“人人大。”", "中文！", "地大？", "子"]),
    ("天……大 wait… what", ["天…", "…", "大 wait… ", "what"]),
    ("ΟΔΟΣ. Α", ["ΟΔΟΣ. ", "Α"]),
    ("no end", ["no end"]),
    ("", []),
  ],
)
def test_where_sentences_end(text, sentences):
  units = find_units(make_wordpiece(), text)
  cuts = [0, *units.characters[units.is_end].tolist(), len(text)]
  found = [text[a:b] for a, b in pairwise(cuts)]
  assert [sentence for sentence in found if sentence] == sentences


def test_what_is_remembered_changes_nothing_and_is_bounded(monkeypatch):
  monkeypatch.setattr(wordpiece_module, "_UNITS_REMEMBERED", 50)
  wordpiece, sizes = make_wordpiece(), []
  for text in [*random_texts(4, 40)] * 2:
    assert find_units(wordpiece, text).input_ids.tolist() == ids_of(wordpiece, text)
    sizes.append(len(wordpiece._seen))
  assert 0 < max(sizes) < 1000
