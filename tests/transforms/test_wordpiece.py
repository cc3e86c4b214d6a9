import json
import random
import re

import numpy as np
import pytest

from tests.plain_wordpiece import plain_tokens
from tests.tiny_bert import VOCABULARY
from transforms.errors import EncoderError
from transforms.wordpiece import TokenizerSettings, Wordpiece, parse_vocabulary

UNCASED = TokenizerSettings(lowercase=True, strip_accents=True)


def make(max_seq_length=64, vocabulary=VOCABULARY, **settings):
  given = {"lowercase": True, "strip_accents": True} | settings
  return Wordpiece(vocabulary, TokenizerSettings(**given), max_seq_length)


def words(wordpiece, text, vocabulary=VOCABULARY):
  return [vocabulary[i] for i in wordpiece.tokenise([text]).input_ids]


def strange_text(generator, length):
  letters = [
    "abc",
    "the ",
    " ",
    "\n",
    "Σα",
    "ΑΣ",
    ".",
    ",",
    "'",
    "中",
    "白",
    "é",
    "\u0301",
    "\u200b",
    "\x07",
    "\ue000",
    "😀",
    "Ω",
  ]
  return "".join(generator.choice(letters) for _ in range(length))


def test_tokens_are_googles(shared_data):
  oracle = json.loads((shared_data / "reference/bert_tiny_google_tf115.json").read_text())
  vocabulary = parse_vocabulary((shared_data / "vocab/bert-base-uncased.vocab.txt").read_bytes(), "vocab.txt")
  wordpiece = Wordpiece(vocabulary, UNCASED, oracle["max_seq_length"])
  tokens = wordpiece.tokenise(oracle["sentences"])
  found = [[vocabulary[i] for i in row] for row in np.split(tokens.input_ids, tokens.offsets[1:-1])]
  assert found == oracle["tokens"]
  full = Wordpiece(vocabulary, UNCASED, 512).tokenise(oracle["sentences"]).lengths
  assert tokens.truncated.tolist() == (full > 64).tolist() and tokens.truncated.any()
  assert tokens.n_unknown.tolist() == [row.count("[UNK]") for row in oracle["tokens"]]


def test_tokens_are_those_of_a_plain_reading_of_googles_rules():
  generator, ids = random.Random(0), set(VOCABULARY)
  wordpiece = make(max_seq_length=512)
  for _ in range(300):
    text = strange_text(generator, generator.randrange(60))
    assert words(wordpiece, text) == ["[CLS]", *plain_tokens(text, ids, lowercase=True), "[SEP]"], repr(text)


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("The RAIN", ["the", "rain"]),
    ("[SEP] [mask]", ["[", "s", "##e", "##p", "]", "[", "m", "##a", "##s", "##k", "]"]),
    ("Éa", ["e", "##a"]),
    ("a白b", ["a", "白", "b"]),
    ("a\ue000b c", ["[UNK]", "c"]),  # private use: a character like any other to Google, and not in the vocabulary
    ("a\u200bb\x07c", ["a", "##b", "##c"]),
    ("a\u2028b", ["a", "b"]),
    ("", []),
    (" \u200b\ufffd\n", []),
    ("x" * 200, ["x"] + ["##x"] * 199),
    ("x" * 201, ["[UNK]"]),
  ],
)
def test_single_texts(text, expected):
  assert words(make(max_seq_length=512), text) == ["[CLS]", *expected, "[SEP]"]


def test_settings_decide_casing_accents_and_ideographs():
  vocabulary = [*VOCABULARY, "A", "é", "白面"]
  assert words(make(vocabulary=vocabulary, lowercase=False), "A", vocabulary)[1:-1] == ["A"]
  assert words(make(vocabulary=vocabulary, strip_accents=False), "É", vocabulary)[1:-1] == ["é"]
  assert words(make(vocabulary=vocabulary, tokenize_chinese_chars=False), "白面", vocabulary)[1:-1] == ["白面"]


def test_final_sigma_is_lowered_as_python_does():
  vocabulary = [*VOCABULARY, "σ", "##ς", "##σ"]
  assert words(make(vocabulary=vocabulary), "ΣΣΣ", vocabulary)[1:-1] == ["σ", "##σ", "##ς"]


def test_truncation_keeps_the_first_tokens_and_counts_unknown_ones_among_them():
  tokens = make(max_seq_length=5).tokenise(["a b c", "a b c d", "Ω b c Ω", ""])
  assert tokens.offsets.tolist() == [0, 5, 10, 15, 17]
  assert tokens.truncated.tolist() == [False, True, True, False]
  assert tokens.n_unknown.tolist() == [0, 0, 1, 0]
  assert tokens.input_ids.dtype == np.int32 and tokens.n_unknown.dtype == np.int32
  assert [VOCABULARY[i] for i in tokens.input_ids[5:10]] == ["[CLS]", "a", "b", "c", "[SEP]"]


def test_no_texts():
  tokens = make().tokenise([])
  assert tokens.offsets.tolist() == [0] and len(tokens.input_ids) == len(tokens.truncated) == len(tokens.n_unknown) == 0


# About 8 characters a token, so that the end of the first prefix falls where the tokens that fit end.
SPARSE = ["ΑΣ", "Σ.α", "Ω" * 13, "\u0301" * 6, "\u200b" * 5, "\u3000" * 9, "白", ".", ",", "a", " ", "q" * 250]


@pytest.mark.parametrize("chinese", [True, False])
def test_a_long_text_gives_the_tokens_of_the_whole(chinese):
  generator, vocabulary = random.Random(1), [*VOCABULARY, "α", "σ", "##α", "##σ", "##ς"]
  whole, cut = (make(length, vocabulary, tokenize_chinese_chars=chinese) for length in (100_000, 6))
  for _ in range(3000):
    text = "".join(generator.choices(SPARSE, weights=[5] * 11 + [1], k=100))
    every, first = whole.tokenise([text]).input_ids, cut.tokenise([text])
    assert first.input_ids[:-1].tolist() == every[:5].tolist(), repr(text)
    assert first.truncated[0] == (len(every) > 6)


SCRIPTS = {
  "latin": ["the", "abc", "don't", "é", "U.S.", "“a”"],
  "greek": ["ΟΔΟΣ", "Σ.α", "σας", "ά"],
  "cyrillic": ["Москва", "й", "ёж"],
  "chinese": ["中", "白", "。", "，"],
  "arabic": ["محمد", "\u064f", "،"],
  "thai": ["ไทย", "ภาษา"],
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("lowercase", [True, False])
def test_how_much_of_a_text_is_looked_at_changes_no_token(script, lowercase):
  # The text begins in one script and goes on in another, so that the guess of how far to look is wrong both ways.
  generator, extra = random.Random(script), [*"中。，σмไ", "##σ", "##ς", "##о", "##ท"]
  vocabulary = list(dict.fromkeys([*VOCABULARY, *extra]))
  whole, cut = (make(length, vocabulary, lowercase=lowercase) for length in (100_000, 24))
  for _ in range(200):
    words = generator.choices(SCRIPTS[script], k=generator.randrange(30))
    words += generator.choices([word for words in SCRIPTS.values() for word in words], k=generator.randrange(80))
    text = "".join(word + generator.choice(["", " ", "\n", ". "]) for word in words)
    every, first = whole.tokenise([text]).input_ids, cut.tokenise([text])
    assert first.input_ids[:-1].tolist() == every[:-1][:23].tolist(), repr(text)
    assert first.truncated[0] == (len(every) > 24)


@pytest.mark.parametrize(
  ("unit", "expected"),
  [("ab, ", 64), ("x", 3), (" ", 2), ("中", 64), ("a.b", 64), ("\u0301", 2)],
)
def test_a_text_of_megabytes_is_tokenised_in_bounded_time_and_space(unit, expected):
  assert make().tokenise([unit * (2_000_000 // len(unit))]).lengths.tolist() == [expected]


# Characters of words without an end, and what may stand between: marks that vanish, ideographs, signs that become "=".
UNITS = ["x", "é", "e\u0301", "ไทย\u0e31", "क\u093f", "❤\ufe0f", "\ue000", "Σ", "αΣ", "ʰ", "\u0301", "q\u200b"]
BREAKS = ["", *" .。中\u2260\u1fef\u166d\u0964\u2028\u3000\u0301\u302eΣa"]


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("chinese", [True, False])
def test_overlong_words_are_cut_and_no_token_changes(chinese, lowercase):
  generator, settings = random.Random(2), {"tokenize_chinese_chars": chinese, "lowercase": lowercase}
  vocabulary = [*VOCABULARY, "α", "σ", "##σ", "##ς", "=", "Σ", "##Σ", "ไ", "##ไ"]
  whole, cut = (make(10_000, vocabulary, strip_accents=lowercase, **settings) for _ in range(2))
  whole._long_run = re.compile(r"(?!)")  # that never matches
  for _ in range(300):
    pieces = [
      generator.choice(UNITS) * generator.choice((1, 150, 400, 1100)) + generator.choice(BREAKS) for _ in range(5)
    ]
    text = "Σ" + "".join(pieces)
    assert cut.tokenise([text]).input_ids.tolist() == whole.tokenise([text]).input_ids.tolist(), pieces


@pytest.mark.parametrize("unit", UNITS)
def test_of_a_word_of_megabytes_little_reaches_the_tokeniser(unit):
  for wordpiece in (make(), make(lowercase=False, strip_accents=False)):
    assert len(wordpiece._prefix(unit * 100_000, 1 << 30)) < 3000


def test_vocabulary_lines_end_with_a_line_feed_only():
  data = "[PAD]\n[UNK]\r\n[CLS]\n[SEP]\n\u2028\n\x85x".encode()
  assert parse_vocabulary(data, "v") == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2028", "\x85x")
  assert parse_vocabulary(data + b"\n", "v") == parse_vocabulary(data, "v")


@pytest.mark.parametrize(
  ("tokens", "message"),
  [
    (["[PAD]", "[UNK]", "[SEP]"], r"v: has no \[CLS\] among 3 tokens"),
    (["[pad]", "[unk]", "[cls]", "[sep]"], r"its specials were lower-cased"),
    (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "a"], "'a' stands on lines 5 and 6"),
  ],
)
def test_bad_vocabularies_are_refused(tokens, message):
  with pytest.raises(EncoderError, match=message):
    parse_vocabulary("\n".join(tokens).encode(), "v")


def test_a_vocabulary_that_is_not_utf8_is_refused():
  with pytest.raises(EncoderError, match="not UTF-8 at byte 6"):
    parse_vocabulary(b"[PAD]\n\xff", "v")


def test_official_vocabularies_are_read_and_the_trap_is_refused(shared_data):
  sizes = {}
  for path in (shared_data / "vocab").glob("bert-*.vocab.txt"):
    sizes[path.name] = len(parse_vocabulary(path.read_bytes(), path.name))
  assert sizes == {
    "bert-base-uncased.vocab.txt": 30522,
    "bert-base-cased.vocab.txt": 28996,
    "bert-base-chinese.vocab.txt": 21128,
    "bert-base-multilingual-cased.vocab.txt": 119547,
  }
  trap = next((shared_data / "vocab").glob("VARIANT_*"))
  with pytest.raises(EncoderError, match=r"VARIANT.* has no \[UNK\].*lower-cased"):
    parse_vocabulary(trap.read_bytes(), trap.name)
