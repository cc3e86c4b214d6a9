import itertools
import json
import random
import threading
import unicodedata

import numpy as np
import pytest

from tests.plain_sentence_piece import plain_ids, plain_pieces, plain_text
from tests.tiny_sentence_piece import CONTROL, XLNET, made_texts, tiny_bytes, tiny_model, train
from tests.transforms.test_wordpiece_fuzz import random_text
from transforms.errors import EncoderError
from transforms.sentence_piece import SentencePiece, SentencePieceSettings, parse_model, preprocess

LONG = 100_000  # no text is truncated
EVERY_SETTING = [SentencePieceSettings(*some) for some in itertools.product([False, True], repeat=3)]
# What has rules of its own: a comma behind a digit, quotes, marks, white space of other kinds.
ODD = ("1995,", "12,000,", "x9,", "²,", "٣,", "1,,", "9,9,", "``", "''", "a''b", "'''", "e\u0301", "\u00a8", "㍿", "ﷺ")
ODD += (
  "▁",
  "▁1995,",
  "<cls>",
  "<sep>",
  "<eop>",
  "天地，",
  "。”",
  "\u3000",
  "\x1c",
  "\x85",
  "\u200b",
  "İ",
  "Σ",
  "1995,。",
)


def texts_of_all_scripts(seed, n):
  """Of the model's own words, of those that have rules of their own, and of any characters at all."""
  generator, words = random.Random(seed), [piece.strip("▁") for piece in tiny_model().pieces[9:]] + [*ODD] * 4
  return [random_text(generator, words) for _ in range(n)]


def make(settings=XLNET, max_seq_length=LONG):
  return SentencePiece(tiny_model(), settings, max_seq_length)


def pieces_of(tokenizer, text):
  ids, _, _ = tokenizer.locate(text)
  return [tiny_model().pieces[i] for i in ids]


def rows_of(tokens):
  return [row.tolist() for row in np.split(tokens.input_ids, tokens.offsets[1:-1])]


@pytest.mark.parametrize("settings", EVERY_SETTING, ids=str)
def test_tokens_are_those_of_a_plain_reading_of_googles_rules(settings):
  texts = texts_of_all_scripts(1, 400) + list(made_texts(100, 1))
  expected = [plain_ids(tiny_model().processor, text, settings) for text in texts]
  tokens = make(settings).tokenise(texts)
  assert rows_of(tokens) == [[*row, 4, 3] for row in expected]  # <sep> and <cls> behind
  assert tokens.n_unknown.tolist() == [row.count(0) for row in expected] and not tokens.truncated.any()
  assert tokens.n_tokens.tolist() == [len(row) + 2 for row in expected]


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("the sun", ["▁the", "▁sun"]),
    ("1995,", ["▁1995", ","]),  # the model has ▁1995,
    ("sun1995,", ["▁sun", "1995", ","]),  # and 1995,
    ("12,000,", ["▁12,000", ","]),
    ("²,", ["▁", "2", ","]),
    ("``the''", ["▁", '"', "the", '"']),
    ("sún", ["▁sun"]),
    ("  the\u3000\n sun ", ["▁the", "▁sun"]),
    ("天地人大。", ["▁天", "地", "人", "大", "。"]),
    ("<eop>", ["▁", "<eop>"]),  # as Google's: a symbol that its users may write
    ("<sep>", ["▁", "<unk>", "s", "e", "<unk>"]),  # these they may not
  ],
)
def test_single_texts(text, expected):
  assert (
    pieces_of(make(), text)
    == expected
    == [
      piece if piece in tiny_model().pieces else "<unk>" for piece in plain_pieces(tiny_model().processor, text, XLNET)
    ]
  )


@pytest.mark.parametrize("settings", EVERY_SETTING, ids=str)
def test_no_text_has_a_control_symbol(settings):
  """<cls> tells windows apart; whatever casing, marks, width and what stands around make of one is letters."""
  processor = tiny_model().processor
  control = [i for i in range(len(tiny_model())) if processor.is_control(i)]
  assert len(control) == 7
  for piece in (processor.id_to_piece(i) for i in control):
    texts = [piece, piece.upper(), f"x{piece}▁{piece}", f"{piece[:3]}\u0301{piece[3:]}", piece.replace("<", "＜")]
    assert set(control).isdisjoint(i for row in rows_of(make(settings).tokenise(texts)) for i in row[:-2])


@pytest.mark.parametrize("settings", EVERY_SETTING, ids=str)
def test_a_run_of_marks_is_no_slower_than_letters(settings, monkeypatch):
  # Python sorts marks, also those that two of these become, by insertion; as long as many pieces of ours.
  text = "e" + "\u0301\u0323\u0f73" * 1000 + "in\u0323\u0301g"
  expected, lengths, normalize = plain_ids(tiny_model().processor, text, settings), [], unicodedata.normalize
  tokenizer = make(settings)
  monkeypatch.setattr(unicodedata, "normalize", lambda form, x: (lengths.append(len(x)), normalize(form, x))[1])
  assert rows_of(tokenizer.tokenise([text])) == [[*expected, 4, 3]]
  assert sum(n**2 for n in lengths) <= 1000 * len(text)


def test_settings_decide_casing_accents_and_white_space():
  def text(lowercase, keep_accents, remove_space):
    return preprocess(" Né\n½ ", SentencePieceSettings(lowercase, keep_accents, remove_space))

  assert text(False, False, True) == "Ne 1⁄2" and text(True, True, True) == "né ½"
  assert text(False, True, False) == " Né\n½ "


@pytest.mark.parametrize("text", ["", " \n\u3000", "\u0301", "\u200b", "\x1c"])
def test_a_text_without_a_token_has_the_specials_alone(text):
  tokens = make().tokenise([text])
  assert tokens.input_ids.tolist() == [4, 3] and tokens.lengths.tolist() == [2]


def test_no_texts():
  tokens = make().tokenise([])
  assert tokens.input_ids.tolist() == [] and tokens.offsets.tolist() == [0]


def test_a_lone_surrogate_is_an_error():
  with pytest.raises(TypeError):
    make().tokenise(["the \ud800"])
  with pytest.raises(ValueError, match="surrogates"):
    make().locate("the \ud800")


def test_truncation_keeps_the_first_tokens_of_the_whole_text():
  """Of a long text only a beginning is tokenised, which ends where a word does."""
  texts = [f"{a} {b} {c}" for a, b, c in zip(*[iter(texts_of_all_scripts(2, 300))] * 3, strict=True)] + [
    "天" * 500,
    "x" * 500,
  ]
  for settings in (XLNET, SentencePieceSettings(True, True, False)):
    whole = [row[:-2] for row in rows_of(make(settings).tokenise(texts))]
    for max_seq_length in (3, 7, 20):
      tokens, room = make(settings, max_seq_length).tokenise(texts), max_seq_length - 2
      assert rows_of(tokens) == [[*row[:room], 4, 3] for row in whole]
      assert tokens.truncated.tolist() == [len(row) > room for row in whole]
      assert tokens.n_unknown.tolist() == [row[:room].count(0) for row in whole]
      assert np.count_nonzero(tokens.truncated) > 60


def test_a_beginning_ends_with_a_word_and_is_no_longer_than_it_may_be():
  tokenizer = make()
  assert [tokenizer._prefix("the  sun \n", n) for n in (2, 3, 4, 8, 9)] == ["", "", "the", "the", "the  sun"]
  assert len(tokenizer._prefix("the sun " * 1_000_000, 1000)) == 999


@pytest.mark.parametrize("settings", EVERY_SETTING, ids=str)
def test_each_token_comes_from_its_characters(settings):
  tokenizer, model, compared = make(settings), tiny_model(), 0
  for text in texts_of_all_scripts(3, 200) + list(made_texts(50, 3)):
    ids, starts, ends = tokenizer.locate(text)
    assert ids.tolist() == plain_ids(model.processor, text, settings)
    assert (np.diff(starts) >= 0).all() and (starts <= ends).all() and (ends <= len(text)).all()
    for token_id, start, end in zip(ids, starts, ends, strict=True):
      piece = model.pieces[token_id].removeprefix("▁")
      if piece and token_id:  # neither a blank nor unknown
        assert piece in unicodedata.normalize("NFKC", plain_text(text[start:end], settings)), ascii(text)
        compared += 1
  assert compared > 2000


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    (
      "sun1995, ``I''",
      [("▁sun", "sun"), ("1995", "1995"), (",", ","), ("▁", ""), ('"', "``"), ("<unk>", "I"), ('"', "''")],
    ),
    (" sún\n ", [("▁sun", "sún")]),
    ("su\u0301n the", [("▁sun", "su\u0301n"), ("▁the", "the")]),
    ("天地", [("▁天", "天"), ("地", "地")]),
    ("½,", [("▁", ""), ("1", "½"), ("<unk>", "½"), ("2", "½"), (",", ",")]),
    ("", []),
  ],
)
def test_places_of_single_texts(text, expected):
  ids, starts, ends = make().locate(text)
  assert [(tiny_model().pieces[i], text[a:b]) for i, a, b in zip(ids, starts, ends, strict=True)] == expected


def test_of_the_places_those_that_fit_and_one_more_are_given():
  ids, starts, _ = make(max_seq_length=4).locate("the sun " * 500)
  assert [tiny_model().pieces[i] for i in ids] == ["▁the", "▁sun", "▁the"] and starts.tolist() == [0, 4, 8]
  ids, starts, _ = make(max_seq_length=4).locate("\u0301 " * 100 + "the sun")  # far into the text
  assert [tiny_model().pieces[i] for i in ids] == ["▁the", "▁sun"] and starts.tolist() == [200, 204]


def test_threads_share_one():
  tokenizer, texts = make(), list(made_texts(300, 5))
  expected, found = tokenizer.tokenise(texts).input_ids.tolist(), []
  threads = [
    threading.Thread(target=lambda: found.append(tokenizer.tokenise(texts).input_ids.tolist())) for _ in range(4)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert found == [expected] * 4


def model_without(control=CONTROL, **options):
  return lambda: train(made_texts(), 220, control_symbols=list(control), **options)


@pytest.mark.parametrize(
  ("data", "expected"),
  [
    (lambda: b"", r"spiece.model: is no SentencePiece model \(it is empty\); give the spiece.model of the weights"),
    (lambda: b"[PAD]\n[UNK]\n", "spiece.model: is no SentencePiece model"),
    (lambda: tiny_bytes()[:1000], "spiece.model: is no SentencePiece model"),
    (model_without(("<sep>", "<pad>")), "spiece.model: has no <cls> among 220 pieces, so it is not an XLNet's"),
    (
      model_without(("<cls>", "<pad>"), user_defined_symbols=["<sep>"]),
      "spiece.model: <sep> is no control symbol, so that a text with it would be cut there",
    ),
    (
      model_without(split_by_whitespace=False),
      r"spiece.model: piece '.+▁.*' reaches over white space, which no XLNet's does",
    ),
    (lambda: tiny_bytes().replace("天".encode(), b"\xff\xfe\xfd", 1), "is no SentencePiece model .'utf-8' codec can't"),
    (model_without(add_dummy_prefix=False), "a word has other tokens behind others than alone, which no XLNet's does"),
    (model_without(model_type="word", hard_vocab_limit=False), "a word has other tokens behind others than alone"),
  ],
)
def test_models_of_something_else_are_refused(data, expected):
  with pytest.raises(EncoderError, match=expected):
    parse_model(data(), "spiece.model")


def test_no_room_for_a_token_is_refused():
  with pytest.raises(ValueError, match="choose 3 or more"):
    make(max_seq_length=2)


# By hand, from the rules and the pieces that there are.
OFFICIAL = {
  "In 1995, he paid 12,000, x9,": "▁In ▁1995 , ▁he ▁paid ▁12,000 , ▁x 9 ,",
  "``Naïve'' café": '▁ " Na ive " ▁cafe',
  "<cls> <sep>": "▁< cl s > ▁< s ep >",
  "1995,1995,": "▁1995 , 1995 ,",
}


def official(shared_data):
  return parse_model((shared_data / "vocab" / "xlnet.spiece.model").read_bytes(), "xlnet.spiece.model")


def test_googles_model(shared_data):
  model = official(shared_data)
  tokenizer = SentencePiece(model, XLNET, LONG)
  rows = rows_of(tokenizer.tokenise(list(OFFICIAL)))
  assert [" ".join(model.pieces[i] for i in row[:-2]) for row in rows] == list(OFFICIAL.values())
  assert (tokenizer.before, tokenizer.after, tokenizer.unknown_id, len(model)) == ((), (4, 3), 0, 32000)


@pytest.mark.parametrize("settings", EVERY_SETTING, ids=str)
def test_googles_model_on_real_texts_and_any_others(shared_data, settings):
  model = official(shared_data)
  novels = (shared_data / "corpora" / "en_novel_paragraphs.txt").read_text(encoding="utf-8").splitlines()[:200]
  with (shared_data / "corpora" / "zh_articles.jsonl").open(encoding="utf-8") as file:
    articles = [json.loads(line)["text"] for line in itertools.islice(file, 20)]
  texts = novels + articles + texts_of_all_scripts(7, 300)
  expected = [[*plain_ids(model.processor, text, settings), 4, 3] for text in texts]
  assert rows_of(SentencePiece(model, settings, LONG).tokenise(texts)) == expected
