"""Google's tokenising in plain Python, a character at a time, from its published rules: what ours must equal.

Written for the tests from the behaviour of google-research/bert's `tokenization.py`. It is meant to be read, not to be
fast, and shares nothing with `transforms/wordpiece.py`.
"""

import unicodedata
from collections.abc import Container

MAX_WORD_CHARS = 200
# The blocks that `tokenization.py` calls Chinese: the ideographs of all of East Asia, neither Hangul nor kana.
IDEOGRAPHS = (
  (0x3400, 0x4DBF),
  (0x4E00, 0x9FFF),
  (0xF900, 0xFAFF),
  (0x20000, 0x2A6DF),
  (0x2A700, 0x2B73F),
  (0x2B740, 0x2B81F),
  (0x2B820, 0x2CEAF),
  (0x2F800, 0x2FA1F),
)


def plain_tokens(text: str, vocabulary: Container[str], *, lowercase: bool, strip_accents: bool | None = None) -> list:
  """Tokens without [CLS] and [SEP]; `strip_accents` goes with `lowercase` unless it is given."""
  words = plain_words(text, lowercase=lowercase, strip_accents=strip_accents)
  return [piece for word in words for piece in plain_pieces(word, vocabulary)]


def plain_words(text: str, *, lowercase: bool, strip_accents: bool | None = None) -> list[str]:
  """What `BasicTokenizer` gives: words and single punctuation marks."""
  words = []
  for word in "".join(map(_clean, text)).split():
    word = word.lower() if lowercase else word
    if lowercase if strip_accents is None else strip_accents:
      word = "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn")
    words += "".join(f" {c} " if is_punctuation(c) else c for c in word).split()
  return words


def plain_pieces(word: str, vocabulary: Container[str]) -> list[str]:
  """What `WordpieceTokenizer` gives: the longest piece that fits, again and again, or [UNK] for the whole word."""
  if len(word) > MAX_WORD_CHARS:
    return ["[UNK]"]
  pieces, start = [], 0
  while start < len(word):
    heads = ((("##" if start else "") + word[start:end], end) for end in range(len(word), start, -1))
    piece, start = next(((head, end) for head, end in heads if head in vocabulary), (None, start))
    if piece is None:
      return ["[UNK]"]
    pieces.append(piece)
  return pieces


def is_punctuation(c: str) -> bool:
  """All of ASCII that is no letter, digit, space or control, `$` and `^` too; elsewhere the categories P."""
  if c.isascii():
    return 32 < ord(c) < 127 and not c.isalnum()
  return unicodedata.category(c).startswith("P")


def _clean(c: str) -> str:
  """A character as it is after cleaning: dropped, a space, set apart, or itself."""
  category = unicodedata.category(c)
  if c in "\t\n\r" or category == "Zs":
    return " "
  if c in "\0\ufffd" or category in ("Cc", "Cf"):
    return ""
  return f" {c} " if any(first <= ord(c) <= last for first, last in IDEOGRAPHS) else c
