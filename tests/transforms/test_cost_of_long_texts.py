"""What a long text costs, by what SentencePiece is asked: as much as it has characters, whatever they are."""

import math
import random

import numpy as np
import pytest

from tests.tiny_sentence_piece import XLNET, tiny_model
from transforms.long_texts import CHUNKS, HEAD_TAIL, WINDOWS, LongTexts
from transforms.long_tokens import tokenise_long
from transforms.rows import Row
from transforms.sentence_piece import SentencePiece
from transforms.text_chunks import cut_rows
from transforms.text_units import find_units

N = 1 << 12
SHAPES = {
  "one word": "abcdefghinorstu",
  "blanks": " \n\u3000",
  "words": "in the sun ",
  "ideographs": "天地人大中文上海",
  "unknown": "\u0e01\u0e02\u0e03\u0e31",
  "emoji": "\U0001f468\u200d\U0001f467\U0001f3fd",
  "null": "\0",
  "marks": "\u0301\u0323",
  "quotes": "`'",
  "numbers": "1995,",
  "four words each": "\ufdfa",
  "right to left": "\u202eאב ",
}


class Counted:
  """Google's processor, with how often it was called, and for how many characters."""

  def __init__(self, processor):
    self._processor, self.calls, self.characters = processor, 0, 0

  def encode(self, texts, **options):
    self.calls += 1
    self.characters += len(texts) if isinstance(texts, str) else sum(map(len, texts))
    return self._processor.encode(texts, **options)

  def __getattr__(self, name):
    return getattr(self._processor, name)


def made(shape):
  return "red" + "".join(random.Random(0).choices(SHAPES[shape], k=N))


def counted(max_seq_length):
  tokenizer = SentencePiece(tiny_model(), XLNET, max_seq_length)
  tokenizer._processor = Counted(tokenizer._processor)
  return tokenizer


@pytest.mark.parametrize("max_seq_length", [4, 128])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_text_is_tokenised_more_often_than_it_can_be_halved(shape, max_seq_length):
  text = made(shape)
  longest = N * (18 if shape == "four words each" else 1)  # of what is made of the text
  for mode in (CHUNKS, WINDOWS, HEAD_TAIL):
    tokenizer, asked = counted(max_seq_length), LongTexts.asked(mode, None, max_seq_length)
    if mode == CHUNKS:
      cut_rows([Row(0, "a", text)], tokenizer, asked)
    else:
      tokenise_long(tokenizer, [text], asked)
    assert tokenizer._processor.characters <= longest * (math.log2(N) + 4), mode
    assert tokenizer._processor.calls <= 100, mode
  for way in (lambda tokenizer: find_units(tokenizer, text), lambda tokenizer: tokenizer.locate(text)):
    way(tokenizer := counted(max_seq_length))
    assert tokenizer._processor.characters <= 2 * longest and tokenizer._processor.calls <= 20


@pytest.mark.parametrize("max_seq_length", [4, 128])
@pytest.mark.parametrize("shape", SHAPES)
def test_chunks_are_all_of_a_text_that_has_a_token(shape, max_seq_length):
  text, tokenizer = made(shape), SentencePiece(tiny_model(), XLNET, max_seq_length)
  [chunks] = cut_rows([Row(0, "a", text)], tokenizer, LongTexts.asked(CHUNKS, None, max_seq_length))
  assert all(chunk.text == text[slice(*chunk.kept[-2:])] for chunk in chunks)
  tokens = tokenizer.tokenise([chunk.text for chunk in chunks])
  assert all(len(chunk.text) == 1 for chunk, is_cut in zip(chunks, tokens.truncated, strict=True) if is_cut)
  starts, ends = np.array([chunk.kept[-2:] for chunk in chunks]).T
  gaps = [text[a:b] for a, b in zip([0, *ends], [*starts, len(text)], strict=True)]
  assert (tokenizer.tokenise(gaps).lengths == 2).all() and (tokens.lengths > 2).all()
