"""Long texts by an XLNet's tokens: the invariants that `test_text_units.py` and the like hold for a BERT's."""

import random
from itertools import pairwise

import numpy as np
import pytest

from tests.plain_sentence_piece import plain_ids
from tests.tiny_sentence_piece import XLNET, made_texts, tiny_model
from tests.transforms.test_sentence_piece import EVERY_SETTING, make, texts_of_all_scripts
from transforms import sentence_piece
from transforms.long_texts import CHUNKS, HEAD_TAIL, WINDOWS, LongTexts
from transforms.long_tokens import tokenise_long
from transforms.text_chunks import chunk_spans
from transforms.text_units import find_units, last_tokens

ROOM = 20
SEP, CLS = 4, 3


def long_texts(seed, n):
  """Words of all scripts, sentences, and runs of ideographs without a blank that are longer than fits."""
  generator, odd = random.Random(seed), texts_of_all_scripts(seed, n)
  made = list(made_texts(4 * n, seed))
  for i in range(n):
    run = "".join(generator.choices("天地人大中文上海，。！”", k=generator.randrange(60)))
    yield generator.choice(["\n", " ", ""]).join([*made[4 * i : 4 * i + 4], run, odd[i]])


def ids_of(text, settings=XLNET):
  return plain_ids(tiny_model().processor, text, settings)


@pytest.mark.parametrize("settings", EVERY_SETTING, ids=str)
def test_the_tokens_of_a_text_are_those_of_its_units(settings):
  tokenizer, n_units = make(settings), 0
  for text in long_texts(1, 30):
    pairs, found = list(tokenizer.units(text)), find_units(tokenizer, text)
    assert "".join(unit for unit, _ in pairs) == text
    assert found.input_ids.tolist() == [i for _, row in pairs for i in row] == ids_of(text, settings), ascii(text)
    assert found.characters.tolist() == np.cumsum([0, *(len(unit) for unit, _ in pairs)]).tolist()
    n_units += len(pairs)
  assert n_units > 1_500


@pytest.mark.parametrize("settings", EVERY_SETTING, ids=str)
def test_in_whatever_segments_a_text_is_tokenised(settings, monkeypatch):
  texts = list(long_texts(2, 30))
  tokenizer = make(settings)
  expected = [find_units(tokenizer, text) for text in texts]
  monkeypatch.setattr(sentence_piece, "_SEGMENT", 16)
  for text, whole in zip(texts, expected, strict=True):
    found = find_units(tokenizer, text)
    assert found.input_ids.tolist() == whole.input_ids.tolist(), ascii(text)
    assert found.characters[-1] == len(text)


def test_a_character_that_becomes_several_words_stays_with_the_word_that_it_is_in():
  text = "the\ufdfa sun \ufdfa 白\ufdfaka"  # a blessing of four words that Arabic has as one character
  pairs = list(make().units(text))
  assert [unit for unit, _ in pairs] == ["the\ufdfa ", "sun ", "\ufdfa ", "白\ufdfaka"]
  assert all(len(ids_of(unit)) == len(row) for unit, row in pairs)


def test_a_word_is_a_unit_and_so_is_an_ideograph_that_a_token_begins_with():
  units = [unit for unit, _ in make().units(" the sun1995,  me\n1995, 天地，大行文 x天")]
  assert units == [" ", "the ", "sun1995,  ", "me\n", "1995, ", "天", "地，", "大行", "文 ", "x", "天"]


@pytest.mark.parametrize(
  ("text", "sentences"),
  [
    ("the sun. the me! in", ["the sun. ", "the me! ", "in"]),
    ("天地。人大！”上海？天", ["天地。", "人大！”", "上海？", "天"]),
  ],
)
def test_where_sentences_end(text, sentences):
  units = find_units(make(), text)
  cuts = [0, *units.characters[units.is_end].tolist(), len(text)]
  found = [text[a:b] for a, b in pairwise(cuts)]
  assert [sentence for sentence in found if sentence] == sentences


@pytest.mark.parametrize("settings", EVERY_SETTING, ids=str)
def test_the_last_tokens(settings):
  tokenizer, compared = make(settings), 0
  for text in long_texts(3, 30):
    whole = ids_of(text, settings)
    for n in (1, 5, 40, len(whole)):
      assert n > len(whole) or last_tokens(tokenizer, text, n) == whole[-n:], ascii(text)
      compared += n <= len(whole)
  assert compared > 100


def test_the_last_tokens_begin_where_a_word_does():
  """A word of one token that is longer than what is looked at first: from its middle on it would be others."""
  longest = max(tiny_model().pieces, key=len)
  assert len(longest) > 9  # 8 characters for a token, and the blank
  assert last_tokens(make(), f"the sun {longest[1:]}", 1) == [tiny_model().pieces.index(longest)]


@pytest.mark.parametrize("stride", [None, ROOM, 5])
def test_every_token_is_in_a_window(stride):
  tokenizer = make(max_seq_length=ROOM + 2)
  texts = list(long_texts(4, 40))
  tokens = tokenise_long(tokenizer, texts, LongTexts.asked(WINDOWS, stride, ROOM + 2))
  assert not tokens.truncated.any()
  for i, text in enumerate(texts):
    row, every, stop = tokens.input_ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist(), ids_of(text), 0
    for window in "".join(map(chr, row)).split(chr(SEP) + chr(CLS))[:-1]:
      assert 0 < len(window) <= ROOM
      at = "".join(map(chr, every)).rfind(window, 0, stop + len(window))  # the largest step that leaves no gap
      assert at >= 0, ascii(text)
      stop = at + len(window)
    assert stop == len(every) and row[-2:] == [SEP, CLS]
    assert (tokens.n_tokens[i], tokens.n_unknown[i]) == (len(every) + 2, every.count(0))


def test_head_and_tail():
  tokenizer, texts = make(max_seq_length=ROOM + 2), list(long_texts(5, 40))
  tokens = tokenise_long(tokenizer, texts, LongTexts.asked(HEAD_TAIL, None, ROOM + 2))
  for i, text in enumerate(texts):
    row, every = tokens.input_ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist(), ids_of(text)
    kept = every if len(every) <= ROOM else every[:5] + every[5 - ROOM :]
    assert row == [*kept, SEP, CLS]
  assert tokens.truncated.sum() > 30


def test_chunks_fit_and_are_the_whole_text():
  tokenizer, asked = make(max_seq_length=ROOM + 2), LongTexts.asked(CHUNKS, None, ROOM + 2)
  n_chunks = 0
  for text in long_texts(6, 60):
    spans = chunk_spans(tokenizer, text, asked)
    tokens = tokenizer.tokenise([text[start:end] for start, end in spans])
    assert not tokens.truncated.any() and (tokens.lengths > 2).all(), ascii(text)
    gaps = zip([0, *(end for _, end in spans)], [*(start for start, _ in spans), len(text)], strict=True)
    assert not ids_of(" ".join(text[a:b] for a, b in gaps)), ascii(text)  # nothing there has a token
    n_chunks += len(spans)
  assert n_chunks > 500


def test_a_run_of_ideographs_is_cut_so_that_the_blank_before_a_chunk_fits_too():
  tokenizer = make(max_seq_length=6)  # 4 tokens fit; those of the text are one blank and 8 ideographs
  assert len(ids_of("件" * 8)) == 9 and len(ids_of("件" * 3)) == 4
  assert chunk_spans(tokenizer, "件" * 8, LongTexts.asked(CHUNKS, None, 6)) == [(0, 2), (2, 5), (5, 8)]
