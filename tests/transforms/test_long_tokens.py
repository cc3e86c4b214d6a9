from itertools import pairwise

import numpy as np
import pytest

from tests.run_parts import make_encoder
from tests.transforms.test_text_units import CASES, ids_of, make_wordpiece, random_texts
from transforms.long_texts import CHUNKS, HEAD_TAIL, MODES, TRUNCATE, WINDOWS, LongTexts
from transforms.long_tokens import tokenise_long

ROOM = 38


def asked(mode, stride=None, room=ROOM):
  return LongTexts.asked(mode, stride, room + 2)


def windows_of(wordpiece, row):
  """The windows of a row of tokens, without [CLS] and [SEP]."""
  edges = [*np.flatnonzero(row == wordpiece.cls_id), len(row)]
  found = [row[a:b] for a, b in pairwise(edges)]
  assert all(window[-1] == wordpiece.sep_id and len(window) <= wordpiece.max_seq_length for window in found)
  return [window[1:-1].tolist() for window in found]


def is_covered(windows, whole):
  """Says whether windows, each a stretch of all tokens, follow on one another without a gap, to the end."""
  stop = start = 0
  for window in windows:
    places = [i for i in range(start, stop + 1) if whole[i : i + len(window)] == window]
    if not places:
      return False
    start = places[-1]  # the largest step that leaves no gap
    stop = start + len(window)
  return stop == len(whole)


@pytest.mark.parametrize(("lowercase", "chinese"), CASES)
@pytest.mark.parametrize("stride", [None, ROOM, 12])
def test_every_token_is_in_a_window(lowercase, chinese, stride):
  wordpiece, whole = make_wordpiece(lowercase, chinese, ROOM + 2), make_wordpiece(lowercase, chinese)
  texts = list(random_texts(11, 60))
  tokens, plain = tokenise_long(wordpiece, texts, asked(WINDOWS, stride)), wordpiece.tokenise(texts)
  n_windows = 0
  for i, text in enumerate(texts):
    row, every = tokens.input_ids[tokens.offsets[i] : tokens.offsets[i + 1]], ids_of(whole, text)
    windows = windows_of(wordpiece, row)
    assert is_covered(windows, every), ascii(text)
    assert (tokens.n_tokens[i], tokens.n_unknown[i]) == (len(every) + 2, every.count(wordpiece.unknown_id))
    if not plain.truncated[i]:
      assert row.tolist() == plain.input_ids[plain.offsets[i] : plain.offsets[i + 1]].tolist()
    n_windows += len(windows)
  assert not tokens.truncated.any() and n_windows > len(texts) + 30


def test_a_word_longer_than_a_window_is_cut():
  wordpiece = make_encoder().load_tokenizer()  # 14 tokens fit
  text = "red " + "7" * 50
  tokens = tokenise_long(wordpiece, [text], asked(WINDOWS, 14, 14))
  assert [len(window) for window in windows_of(wordpiece, tokens.input_ids)] == [1, 14, 14, 14, 8]


@pytest.mark.parametrize(("lowercase", "chinese"), CASES)
def test_head_and_tail(lowercase, chinese):
  wordpiece, whole = make_wordpiece(lowercase, chinese, ROOM + 2), make_wordpiece(lowercase, chinese)
  texts = list(random_texts(12, 60))
  tokens, plain = tokenise_long(wordpiece, texts, asked(HEAD_TAIL)), wordpiece.tokenise(texts)
  for i, text in enumerate(texts):
    row, every = tokens.input_ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist(), ids_of(whole, text)
    kept = every if len(every) <= ROOM else every[:10] + every[10 - ROOM :]
    assert row == [wordpiece.cls_id, *kept, wordpiece.sep_id]
    assert tokens.n_unknown[i] == kept.count(wordpiece.unknown_id)
  assert tokens.truncated.tolist() == plain.truncated.tolist() and plain.truncated.sum() > 10
  assert tokens.n_tokens.tolist() == plain.lengths.tolist() == tokens.lengths.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_texts_that_fit_are_as_ever(mode):
  wordpiece = make_encoder().load_tokenizer()
  texts = ["red house", "", "green " * 14, "7"]
  plain, tokens = wordpiece.tokenise(texts), tokenise_long(wordpiece, texts, asked(mode, room=14))
  for name in ("input_ids", "offsets", "truncated", "n_unknown", "n_tokens"):
    assert getattr(plain, name).tolist() == getattr(tokens, name).tolist()


@pytest.mark.parametrize("mode", [TRUNCATE, CHUNKS])
def test_other_modes_take_the_first_tokens(mode):
  wordpiece = make_encoder().load_tokenizer()
  tokens = tokenise_long(wordpiece, ["red " * 40, "7"], asked(mode, room=14))
  assert tokens.lengths.tolist() == [16, 3] and tokens.truncated.tolist() == [True, False]
