import random

import pytest

from tests.run_parts import make_encoder
from tests.transforms.test_text_units import CASES, ids_of, make_wordpiece, random_texts
from transforms.errors import UsageError
from transforms.input_types import ReadOptions
from transforms.long_texts import CHUNKS, LongTexts
from transforms.rows import Row
from transforms.text_chunks import check_kept_with_chunks, chunk_spans, cut_rows

ROOM = 38
LONG_TEXTS = LongTexts.asked(CHUNKS, None, ROOM + 2)


@pytest.mark.parametrize(("lowercase", "chinese"), CASES)
def test_chunks_fit_and_their_tokens_are_those_of_the_text(lowercase, chinese):
  wordpiece, whole = make_wordpiece(lowercase, chinese, ROOM + 2), make_wordpiece(lowercase, chinese)
  n_chunks = n_cut_words = 0
  for text in (f"red {text}" for text in random_texts(7, 100)):  # there is a token in any case
    spans = chunk_spans(wordpiece, text, LONG_TEXTS)
    pieces = [text[start:end] for start, end in spans]
    tokens = wordpiece.tokenise(pieces)
    assert not tokens.truncated.any() and (tokens.lengths > 2).all()
    assert all(piece == piece.strip() for piece in pieces)
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges)
    found = [i for piece in pieces for i in ids_of(whole, piece)]
    if found != ids_of(whole, text):  # only the pieces of a word that does not fit itself have others
      assert max(len(ids_of(whole, word)) for word in text.split()) > ROOM, ascii(text)
      n_cut_words += 1
    left_out = [text[a:b] for a, b in zip([0, *edges[1::2]], [*edges[::2], len(text)], strict=True)]
    assert all(ids_of(whole, piece) == [] for piece in left_out), ascii(text)
    n_chunks += len(spans)
  assert n_chunks > 150 and n_cut_words < 40


def test_chunks_overlap_by_the_stride():
  wordpiece = make_encoder().load_tokenizer()  # 14 tokens fit
  text = " ".join(["red"] * 30)
  spans = chunk_spans(wordpiece, text, LongTexts.asked(CHUNKS, 10, 16))
  assert [(start // 4, (end + 1) // 4) for start, end in spans] == [(0, 14), (10, 24), (20, 30)]


def test_a_word_that_does_not_fit_is_cut_and_nothing_of_it_is_lost():
  wordpiece = make_encoder().load_tokenizer()
  word = "".join(random.Random(0).choices("0123456789", k=99))
  text = f"red {word} house"
  spans = chunk_spans(wordpiece, text, LongTexts.asked(CHUNKS, None, 16))
  pieces = [text[start:end] for start, end in spans]
  assert pieces[0] == "red" and pieces[-1] == "house" and "".join(pieces[1:-1]) == word
  assert not wordpiece.tokenise(pieces).truncated.any()


def test_rows():
  wordpiece = make_encoder().load_tokenizer()
  text = "red house. " * 9  # 14 tokens fit, 3 a sentence
  rows = [Row(7, "a", text, ("title", text)), Row(99, "b", " red ", (None, " red ")), Row(120, "c", "", ("", ""))]
  sentences = "red house. red house. red house. red house."
  assert cut_rows(rows, wordpiece, LongTexts.asked(CHUNKS, None, 16)) == [
    [
      Row(7, "a#0", sentences, ("title", sentences, "a", 0, 43)),
      Row(7, "a#1", sentences, ("title", sentences, "a", 44, 87)),
      Row(7, "a#2", "red house.", ("title", "red house.", "a", 88, 98)),
    ],
    [Row(99, "b#0", " red ", (None, " red ", "b", 0, 5))],
    [Row(120, "c#0", "", ("", "", "c", 0, 0))],
  ]


def test_a_kept_text_is_compared_once_and_not_for_every_chunk():
  class Compared(str):
    times = 0

    def __eq__(self, other):
      Compared.times += 1
      return str(self) == other

    __hash__ = str.__hash__

  text = "red house. " * 90
  [chunks] = cut_rows(
    [Row(0, "a", text, (Compared(text),))], make_encoder().load_tokenizer(), LongTexts.asked(CHUNKS, None, 16)
  )
  assert len(chunks) > 20 and all(chunk.kept[0] == chunk.text for chunk in chunks) and Compared.times == 1


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (ReadOptions(keep_columns=("chunk_start",)), "chunk_start: .* a column of that name itself; rename"),
    (ReadOptions(text_columns=("title", "body"), keep_columns=("body",)), "body: .* carry the whole of it; drop"),
  ],
)
def test_columns_that_cannot_be_kept(options, message):
  with pytest.raises(UsageError, match=message):
    check_kept_with_chunks(options)
  check_kept_with_chunks(ReadOptions(keep_columns=("title", "text")))
