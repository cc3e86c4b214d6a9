"""Random Unicode through our tokenising and through Google's rules in plain Python: no difference.

Both ask the same Python what a character is, so this holds for every version of Python and of `tokenizers`.
"""

import random
import sys
import unicodedata
from collections import defaultdict
from functools import cache
from itertools import chain

import pytest

from tests.plain_wordpiece import plain_pieces, plain_words
from tests.tiny_bert import VOCABULARY
from transforms.wordpiece import TokenizerSettings, Wordpiece, _rare_characters, parse_vocabulary

N_TEXTS = 10_000
LONG = 100_000  # no text is truncated
PRIVATE = [*range(0xE000, 0xF900), *range(0xF0000, 0xF0100), *range(0x10FF00, 0x10FFFE)]
PLANES = (*range(0x40000), *range(0xE0000, 0xE0200))  # the others hold private use, or nothing
SIGNS = (
  "[CLS] [SEP] [MASK] [PAD] [UNK] [unused1] ##ing ' '' . , .. - -- _ $ ^ ` ~ = + < > | # @ 3.14 1,000 U.S.A. don't"
)
WORDS = "İstanbul ISPARTA ıI ΟΔΟΣ ΣΑΣ. ΑΣ'Α Σ ﬁne ﬃ ß ẞ ŉ Ǆ ǅ ﷺ ＡＢｃ１２！ ｶﾞ 한국어 שלום محمد हिन्दी ไทย 〆 ヶ の、。"
COMBINED = (
  "e\u0301 \u1ed9 o\u0323\u0302 A\u030a \u212b \u2126 \u212a \u05e9\u05c1\u05b8 \u0645\u064f \u1100\u1161\u11a8 I\u0307"
)
PICTURES = "\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f \U0001f44d\U0001f3fd"
IDEOGRAPHS = "\uf900 \U00020000 \U0002a6e0 \U0002b740 \U0002b820 \U0002b920 \U0002ceb0 \U0002f800"
PIECES = " ".join((SIGNS, WORDS, COMBINED, PICTURES, IDEOGRAPHS)).split(" ")
SPACES = [" ", " ", " ", "\t", "\n", "\r\n", "\u00a0", "\u2009", "\u3000", "\u2028", "\u2029", "\u1680", "\x85", "\x1f"]
DROPPED = ["\0", "\ufffd", "\x07", "\x7f", "\x9f", "\u00ad", "\u200b", "\u200d", "\u202e", "\ufeff", "\U000e0041"]
UNASSIGNED = ["\u0378", "\u05ff", "\ufdd0", "\uffff", "\U0001fffe", "\U0003fffd", "\U0010ffff", "\ua7da", "\u1c89"]


@cache
def scripts():
  """Every named character under the first word of its name, `ARABIC` or `CJK`: near enough to its script."""
  found = defaultdict(list)
  for c in map(chr, PLANES):
    if name := unicodedata.name(c, ""):
      found[name.split()[0].split("-")[0]].append(c)
  return [characters for _, characters in sorted(found.items())]


@cache
def all_of(*categories):
  return [c for script in scripts() for c in script if unicodedata.category(c) in categories]


def random_word(generator, vocabulary):
  match generator.randrange(10):
    case 0:
      return generator.choice(PIECES)
    case 1 | 2:
      return generator.choice(vocabulary).removeprefix("##")
    case 3:
      return generator.choice(vocabulary).removeprefix("##").upper() + generator.choice(PIECES)
    case 4:
      return "".join(generator.choices(all_of("Mn", "Mc", "Me"), k=2)) + generator.choice(DROPPED)
    case 5:
      return generator.choice(UNASSIGNED) + chr(generator.choice(PRIVATE))
    case 6:
      return generator.choice(all_of("Po", "Ps", "Pe", "Pd", "Pc", "Sm", "Sk", "Cf", "Lt", "Lm", "No"))
    case _:
      return "".join(generator.choices(generator.choice(scripts()), k=generator.randrange(1, 6)))


def random_text(generator, vocabulary):
  words = [random_word(generator, vocabulary) for _ in range(generator.randrange(16))]
  if generator.random() < 0.06:
    alphabet = generator.choice(["x", "éa", "का", "ab\u0301", "q\u200b", "ΣΑ", "\u1734x", generator.choice(scripts())])
    words.append("".join(generator.choices(alphabet, k=generator.randrange(90, 211))))
  generator.shuffle(words)
  return "".join(word + generator.choice(["", "", *SPACES]) for word in words)


def token_ids(wordpiece, texts):
  """Returns the ids of each text without [CLS] and [SEP], and whether there were more."""
  tokens = wordpiece.tokenise(texts)
  bounds = zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
  return [tokens.input_ids[start + 1 : end - 1].tolist() for start, end in bounds], tokens.truncated.tolist()


def compare(vocabulary, lowercase):
  """Asserts no difference in 10,000 texts, whole and cut; returns how many words there were and how many unknown."""
  generator, ids = random.Random(lowercase), {token: i for i, token in enumerate(vocabulary)}
  texts = [random_text(generator, vocabulary) for _ in range(N_TEXTS)]
  settings = TokenizerSettings(lowercase, lowercase)
  whole, _ = token_ids(Wordpiece(vocabulary, settings, LONG), texts)
  cut, truncated = token_ids(Wordpiece(vocabulary, settings, 8), texts)
  pieces = cache(lambda word: [ids[piece] for piece in plain_pieces(word, ids)])
  n_tokens = n_unknown = 0
  for text, ours, beginning, more in zip(texts, whole, cut, truncated, strict=True):
    plain = [i for word in plain_words(text, lowercase=lowercase) for i in pieces(word)]
    assert ours == plain, ascii(text)
    assert (beginning, more) == (plain[:6], len(plain) > 6), ascii(text)
    n_tokens, n_unknown = n_tokens + len(plain), n_unknown + plain.count(ids["[UNK]"])
  return n_tokens, n_unknown


@pytest.mark.parametrize(
  ("name", "lowercase"),
  [("uncased", True), ("cased", False), ("chinese", True), ("multilingual-cased", False)],
)
def test_no_difference_with_the_official_vocabularies(shared_data, name, lowercase):
  path = shared_data / f"vocab/bert-base-{name}.vocab.txt"
  n_tokens, n_unknown = compare(parse_vocabulary(path.read_bytes(), path.name), lowercase)
  assert n_tokens > 100_000 and 0.1 < n_unknown / n_tokens < 0.7  # neither all known nor all strange


@pytest.mark.parametrize("lowercase", [True, False])
def test_no_difference_with_a_vocabulary_of_letters(lowercase):
  letters = sorted({c for piece in PIECES for c in piece + piece.lower()} - set(VOCABULARY))
  compare([*VOCABULARY, *letters, *(f"##{c}" for c in letters if f"##{c}" not in VOCABULARY)], lowercase)


@pytest.mark.parametrize("lowercase", [True, False])
def test_every_character_between_two_letters(lowercase):
  """Each that is its own word, a part of one, or vanishes: told apart by a vocabulary of nearly nothing but them."""
  settings = TokenizerSettings(lowercase, lowercase)
  points = (*range(0x40000), *range(0xE0000, 0xE0200), *range(0x40000, sys.maxunicode + 1, 997))
  characters = [chr(i) for i in points if not 0xD800 <= i < 0xE000]
  for start in range(0, len(characters), 256):
    text = "\n".join(f"a{c}b" for c in characters[start : start + 256])
    words = plain_words(text, lowercase=lowercase)
    vocabulary = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]))
    [found], _ = token_ids(Wordpiece(vocabulary, settings, LONG), [text])
    assert [vocabulary[i] for i in found] == words, hex(ord(characters[start]))


def test_few_characters_are_rare_and_none_is_of_a_living_languages_common_text():
  rare = _rare_characters(TokenizerSettings(True, True)).characters
  assert 0 < len(rare) < 2000
  assert {"\u2e43", "\u1734", "\U0002b820"} <= rare  # newer punctuation, a mark that is one no more, an ideograph
  ordinary = "".join(PIECES).replace("\U0002b820", "") + "¿¡«»“”„‘’–—…€£°§çñøåłżğşœæþðșțőű№"
  blocks = (
    range(0x20, 0x180),
    range(0x370, 0x530),
    range(0x3040, 0x3100),
    range(0x4E00, 0xA000),
    range(0xAC00, 0xD7A4),
  )
  assert not rare & {*ordinary, *map(chr, chain(*blocks))}


@pytest.mark.parametrize("unit", ["q\u2e43", "q\U0002b820", "q\u1734", "q\u0301\u166d", "é\u07fd", "\u2e43Σ"])
def test_a_text_of_megabytes_with_rare_characters_is_cut_as_google_cuts_it(unit):
  vocabulary = [*VOCABULARY, *{*unit, *unit.lower()} - set(VOCABULARY)]
  wordpiece = Wordpiece(vocabulary, TokenizerSettings(True, True), 3000)
  for text in (unit * 1200, unit * 300_000):
    plain = [p for word in plain_words(text[:10_000], lowercase=True) for p in plain_pieces(word, {*vocabulary})]
    [found], _ = token_ids(wordpiece, [text])
    assert [vocabulary[i] for i in found] == plain[:2998]
