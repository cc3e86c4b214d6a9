import random
import unicodedata

import numpy as np
import pytest

from tests.tiny_bert import VOCABULARY
from tests.transforms.test_wordpiece_fuzz import PLANES, random_text
from transforms.token_spans import locate_tokens, span_vectors, tokens_of_spans
from transforms.wordpiece import TokenizerSettings, Wordpiece, parse_vocabulary

UNCASED, CASED = TokenizerSettings(True, True), TokenizerSettings(False, False)
EVERY_CASING = [TokenizerSettings(lower, strip) for lower in (True, False) for strip in (True, False)]
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LONG = 100_000  # no text is truncated
ALIKE = ("CJK", "HANGUL SYLLABLE", "TANGUT", "CUNEIFORM", "EGYPTIAN", "ANATOLIAN", "NUSHU", "KHITAN")  # thousands each


def located(text, settings=UNCASED, max_seq_length=LONG, vocabulary=(*VOCABULARY, "\u1112", "##\u1161\u11ab", "##$")):
  """Returns each token beside what of the text it comes from, without [CLS] and [SEP]."""
  tokens = locate_tokens(Wordpiece(vocabulary, settings, max_seq_length), text)
  whence = [text[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)]
  pairs = list(zip((vocabulary[i] for i in tokens.input_ids), whence, strict=True))
  assert (pairs[0], pairs[-1]) == (("[CLS]", ""), ("[SEP]", ""))
  return pairs[1:-1]


def assert_words_come_from_where_they_stand(wordpiece, text):
  """With no vocabulary, each word is an [UNK]: what it comes from must give the word again, and nothing else."""
  tokens, words = locate_tokens(wordpiece, text), list(wordpiece.words(text))
  assert len(tokens.input_ids) == len(words) + 2
  for word, start, end in zip(words, tokens.starts[1:], tokens.ends[1:], strict=False):
    again = "".join(wordpiece.words(text[start:end]))
    assert again.replace("ς", "σ") == word.replace("ς", "σ"), ascii(text[start:end])  # a final sigma needs its context


def characters():
  """Every named character, and one in a hundred of the ideographs, the Hangul syllables and those that have no name."""
  points = (i for i in PLANES if not 0xD800 <= i < 0xE000)
  return [c for c in map(chr, points) if ord(c) % 100 == 0 or not unicodedata.name(c, "CJK").startswith(ALIKE)]


@pytest.mark.parametrize("settings", [UNCASED, TokenizerSettings(True, False)])
def test_every_character_is_found_among_others(settings):
  """Beside it a capital sigma and marks that change places with one another, and perhaps with it."""
  wordpiece, every = Wordpiece(SPECIALS, settings, LONG), characters()
  assert len(every) > 30_000
  for start in range(0, len(every), 1024):
    text = "\n".join(f"A{c}\u0301Σ{c}b \u302e{c}\ua9c0" for c in every[start : start + 1024])
    assert_words_come_from_where_they_stand(wordpiece, text)


@pytest.mark.parametrize("settings", EVERY_CASING)
def test_words_of_random_texts_come_from_where_they_stand(settings):
  generator, wordpiece = random.Random(1), Wordpiece(SPECIALS, settings, LONG)
  for _ in range(400):
    assert_words_come_from_where_they_stand(wordpiece, random_text(generator, VOCABULARY))


@pytest.mark.parametrize(
  ("name", "settings"), [("uncased", UNCASED), ("chinese", UNCASED), ("multilingual-cased", CASED)]
)
def test_tokens_are_those_of_tokenise(shared_data, name, settings):
  path = shared_data / f"vocab/bert-base-{name}.vocab.txt"
  vocabulary, generator = parse_vocabulary(path.read_bytes(), path.name), random.Random(2)
  texts = [random_text(generator, vocabulary) for _ in range(300)]
  for max_seq_length in (LONG, 8):
    wordpiece = Wordpiece(vocabulary, settings, max_seq_length)
    expected = wordpiece.tokenise(texts)
    for i, text in enumerate(texts):
      ids = expected.input_ids[expected.offsets[i] : expected.offsets[i + 1]]
      tokens = locate_tokens(wordpiece, text)
      np.testing.assert_array_equal(tokens.input_ids, ids, ascii(text))
      assert (tokens.n_kept < len(text)) == expected.truncated[i]
      assert (np.diff(tokens.starts) >= 0).all() and (tokens.starts[1:-1] < tokens.ends[1:-1]).all()


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("  The rain.", [("the", "The"), ("rain", "rain"), (".", ".")]),
    ("raining Suner", [("rain", "rain"), ("##ing", "ing"), ("sun", "Sun"), ("##er", "er")]),
    ("su\u200bn\u0301 of", [("sun", "su\u200bn"), ("of", "of")]),  # dropped within a word, and at its end
    ("İT 白面", [("it", "İT"), ("白", "白"), ("面", "面")]),
    ("[SEP]", [("[", "["), ("s", "S"), ("##e", "E"), ("##p", "P"), ("]", "]")]),
    ("한a", [("\u1112", "한"), ("##\u1161\u11ab", "한"), ("##a", "a")]),  # both pieces come from the whole syllable
    ("a" * 200 + " " + "b" * 201, [("a", "a"), *[("##a", "a")] * 199, ("[UNK]", "b" * 201)]),
    ("ß ô\ufffd", [("[UNK]", "ß"), ("o", "ô")]),
    (" \0\n", []),
    ("", []),
  ],
)
def test_each_token_comes_from_its_characters(text, expected):
  assert located(text) == expected


def test_lower_case_that_is_longer_stays_with_its_character():
  vocabulary = (*SPECIALS, "i", "##\u0307", "##t")
  found = located("İT", TokenizerSettings(True, False), vocabulary=vocabulary)
  assert found == [("i", "İ"), ("##\u0307", "İ"), ("##t", "T")]


def test_chinese_is_a_token_a_character_and_the_rest_by_the_official_vocabulary(shared_data):
  """The table of docs/words.md."""
  path = shared_data / "vocab/bert-base-chinese.vocab.txt"
  wordpiece = Wordpiece(vocabulary := parse_vocabulary(path.read_bytes(), path.name), UNCASED, 128)
  text = "他在上海的银行里打开 MacBook，查了一下 TensorFlow 的文档。"
  found = {}
  for word in ("上海", "银行", "MacBook", "TensorFlow", "文档"):
    start = text.index(word)
    tokens = locate_tokens(wordpiece, text)
    [members] = tokens_of_spans(tokens, [(start, start + len(word))])
    found[start, start + len(word)] = [vocabulary[i] for i in tokens.input_ids[members]]
  assert found == {
    (2, 4): ["上", "海"],
    (5, 7): ["银", "行"],
    (11, 18): ["macbook"],
    (24, 34): ["te", "##ns", "##or", "##flow"],
    (36, 38): ["文", "档"],
  }


def test_what_does_not_fit_is_cut_off():
  wordpiece = Wordpiece(VOCABULARY, UNCASED, 5)
  tokens = locate_tokens(wordpiece, "the  sun, raining")
  assert [VOCABULARY[i] for i in tokens.input_ids] == ["[CLS]", "the", "sun", ",", "[SEP]"]
  assert tokens.n_kept == 10
  assert locate_tokens(wordpiece, "the sun, \n").n_kept == 10  # all of it


@pytest.mark.parametrize(
  ("span", "expected"),
  [
    ((0, 3), [1]),
    ((3, 8), [2]),  # with white space around it
    ((5, 6), [2]),  # a part of a piece
    ((7, 9), [2, 3]),
    ((8, 10), [3]),
    ((0, 15), [1, 2, 3, 4, 5]),
  ],
)
def test_a_span_has_every_token_that_it_touches(span, expected):
  tokens = locate_tokens(Wordpiece(VOCABULARY, UNCASED, 8), "the raining, it")
  [members] = tokens_of_spans(tokens, [span])
  assert np.flatnonzero(members).tolist() == expected


def test_no_spans_have_no_tokens():
  assert tokens_of_spans(locate_tokens(Wordpiece(VOCABULARY, UNCASED, 8), "the sun"), []).shape == (0, 4)


@pytest.mark.parametrize(
  ("spans", "message"),
  [
    ([(0, 3), (-3, 3)], r"^span \(-3, 3\): expected 0 <= start < end <= 18, the length of the text$"),
    ([(3, 3)], r"^span \(3, 3\): expected 0 <="),
    ([(5, 3)], r"^span \(5, 3\): expected 0 <="),
    ([(4, 19)], r"^span \(4, 19\): expected 0 <="),
    ([(3, 5)], r"^span \(3, 5\): ' \\n' has no token; white space"),
    ([(0, 3), (13, 18)], r"^span \(13, 18\): only the first 16 of 18 characters were kept, as 6 tokens; give the par"),
    ([(0, 17)], r"^span \(0, 17\): only the first 16 of 18"),
    ((0, 3), r"^spans: expected integers \[\(start, end\), …\], got \(0, 3\); one span is"),
    ([(0.0, 3.0)], r"^spans: expected integers"),
  ],
)
def test_a_span_that_has_no_vector_is_named(spans, message):
  tokens = locate_tokens(Wordpiece(VOCABULARY, UNCASED, 6), "the \nsuning the it")
  with pytest.raises(ValueError, match=message):
    tokens_of_spans(tokens, spans)


def test_a_lone_surrogate_is_refused():
  with pytest.raises(ValueError, match="surrogates not allowed"):
    locate_tokens(Wordpiece(VOCABULARY, UNCASED, 6), "a \ud800")


def test_a_span_is_the_mean_of_its_tokens_and_compared_by_angle():
  members = np.array([[0, 1, 1, 0], [0, 0, 1, 0], [1, 1, 1, 1]], bool)
  hidden = np.array([[9, 9], [4, 0], [0, 2], [-9, -9]], np.float32)
  found = span_vectors(members, hidden, np.array([0, 5], np.float32))
  assert found.vectors.dtype == found.similarities.dtype == np.float32
  np.testing.assert_allclose(found.vectors, [[2, 1], [0, 2], [1, 0.5]])
  np.testing.assert_allclose(found.similarities, [1 / 5**0.5, 1, 1 / 5**0.5], rtol=1e-6)
