import numpy as np
import pytest

from pipeline.sampled_corpus import look_into, take
from tests.tiny_bert import VOCABULARY
from transforms.digests import digest_array
from transforms.long_texts import CHUNKS, WINDOWS, LongTexts
from transforms.rows import Row
from transforms.spread_sample import SpreadSample
from transforms.wordpiece import TokenizerSettings, Wordpiece

WORDPIECE = Wordpiece(VOCABULARY, TokenizerSettings(False, False), 6)
TEXTS = ["the rain", "the sun", "the rain", "  ", "the sun and the rain", "É"]


def sampled(texts, rejected=0, share=1.0):
  rows = [Row(i, str(i), text) for i, text in enumerate(texts)]
  n = len(texts) + rejected
  return SpreadSample(rows, np.array([n]), np.array([100.0 * share]), 100, share == 1)


def held(*texts):
  return lambda digests: np.isin(digests, digest_array(texts))


def test_a_corpus_that_was_read_whole():
  corpus = look_into(sampled(TEXTS, rejected=2), WORDPIECE, held(), None)
  assert (corpus.documents.number, corpus.n_sampled, corpus.accepted) == (8, 8, 5)
  assert corpus.rejected == 3 / 8
  assert (corpus.n_distinct, corpus.n_new, corpus.to_encode, corpus.known) == (4, 4, 4, 0)
  assert corpus.mean_tokens == (4 + 4 + 4 + 6 + 3) / 5
  assert corpus.truncated == 1 / 5 and corpus.unknown == 1 / 21


def test_what_the_store_has_is_taken_off():
  corpus = look_into(sampled(TEXTS), WORDPIECE, held("the rain", "something else"), None)
  assert (corpus.known, corpus.n_distinct, corpus.n_new, corpus.to_encode) == (2 / 5, 4, 3, 3)
  everything = look_into(sampled(TEXTS), WORDPIECE, held(*TEXTS), None)
  assert (everything.known, everything.to_encode) == (1, 0)
  assert everything.batches(1, 2048) == [] and everything.computed_tokens([]) == 0


def test_a_part_stands_for_the_corpus():
  corpus = look_into(sampled(TEXTS * 10, share=0.5), WORDPIECE, held(), None)
  assert (corpus.documents.number, corpus.accepted, corpus.to_encode) == (120, 100, 8)
  assert look_into(sampled(TEXTS * 10, share=0.5), WORDPIECE, held(), 30).documents.number == 30


def test_batches_have_every_new_text_of_a_whole_corpus_once():
  corpus = look_into(sampled([*TEXTS, "rain rain", "a b c"]), WORDPIECE, held("the sun"), None)
  batches = corpus.batches(2, 2048)
  assert sorted(int(row) for rows in batches for row in rows) == [0, 1, 2, 3, 4]
  lengths = corpus.windows.lengths
  computed = sum(len(rows) * lengths[rows].max() for rows in batches)
  assert corpus.computed_tokens(batches) == pytest.approx(computed)


def test_batches_are_of_windows():
  long_texts = LongTexts.asked(WINDOWS, None, 6)
  corpus = look_into(sampled(TEXTS), WORDPIECE, held(), None, long_texts)
  assert (corpus.to_encode, corpus.truncated) == (4, 0)
  assert corpus.mean_tokens == (4 + 4 + 4 + 7 + 3) / 5  # all tokens, once
  assert corpus.windows.lengths.sum() == corpus.tokens_to_encode > 4 + 4 + 7 + 3
  rows = np.concatenate(corpus.batches(2, 2048))
  assert sorted(rows.tolist()) == list(range(len(corpus.windows.lengths))) and len(rows) > 4


def test_rows_are_chunks_of_documents():
  texts = [*TEXTS, "the sun and the rain the rain"]
  corpus = look_into(
    sampled(texts * 10, rejected=10, share=0.5), WORDPIECE, held(), None, LongTexts.asked(CHUNKS, None, 6)
  )
  assert (corpus.documents.number, corpus.rejected) == (160, 20 / 80)
  # "the sun and the" and "rain", "the sun and the" and "rain the rain", and four that fit
  assert (corpus.n_accepted, corpus.accepted, corpus.n_new, corpus.truncated) == (80, 160, 6, 0)


def test_no_documents():
  nothing = SpreadSample([], np.array([], int), np.array([]), 0, True)
  corpus = look_into(nothing, WORDPIECE, held(), None)
  assert (corpus.documents.number, corpus.accepted, corpus.to_encode, corpus.rejected) == (0, 0, 0, 0)
  assert corpus.batches(1, 2048) == []


def test_tokens_of_some_texts():
  every = WORDPIECE.tokenise(TEXTS)
  some = take(every, np.array([4, 3, 0]))
  expected = WORDPIECE.tokenise([TEXTS[4], TEXTS[3], TEXTS[0]])
  for name in ("input_ids", "offsets", "truncated", "n_unknown"):
    np.testing.assert_array_equal(getattr(some, name), getattr(expected, name))
