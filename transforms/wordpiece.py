"""Texts to token ids, as google-research/bert's `tokenization.py` does it, at the speed of Hugging Face's `tokenizers`.

Known to differ from `tokenization.py`: combining marks and punctuation that Unicode added after the tables of
`tokenizers` were made (rare scripts), and the ideographs U+2B820 to U+2B91F, which it does not set apart.
"""

import functools
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from transforms.errors import EncoderError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
# A text is tokenised as far as needed: English has 4 to 5 characters a token, so that this many suffice at once.
_CHARACTERS_PER_TOKEN = 8

# After one of these a new word begins, whatever follows: white space, punctuation, an ideograph.
_SEPARATORS = ' \t\n\r!"#$%&()*+,-/;<=>?@[\\]_{|}~\u3001\u3002\uff01\uff0c\uff1b\uff1f'
# So it does after these, but what follows them can decide whether a capital sigma before them ends its word.
_SEPARATORS_WITHOUT_SIGMA = ".':^`"
_IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002f800-\U0002fa1f"


@dataclass(frozen=True)
class TokenizerSettings:
  """What of `tokenization.py` belongs to a checkpoint.

  `strip_accents` goes with `lowercase` in Google's code; Hugging Face lets them differ.
  """

  lowercase: bool
  strip_accents: bool
  tokenize_chinese_chars: bool = True
  max_word_chars: int = 200


@dataclass(frozen=True)
class Tokens:
  """The tokens of N texts, one after the other, each with [CLS] and [SEP]: a text with no token of its own has 2.

  Attributes:
    input_ids: int32 [sum of the lengths].
    offsets: int64 [N + 1]; text i has `input_ids[offsets[i]:offsets[i + 1]]`.
    truncated: bool [N], more tokens than fit.
    n_unknown: int32 [N], how many of the tokens that fit are [UNK].
  """

  input_ids: np.ndarray
  offsets: np.ndarray
  truncated: np.ndarray
  n_unknown: np.ndarray

  @property
  def lengths(self) -> np.ndarray:
    """Int64 [N], with [CLS] and [SEP]."""
    return np.diff(self.offsets)


def parse_vocabulary(data: bytes, name: str) -> tuple[str, ...]:
  r"""Returns the tokens of a `vocab.txt`, checked; the line number is the id.

  Only "\n" ends a line: official vocabularies have tokens such as U+2028, where `str.splitlines` would cut.

  Raises:
    EncoderError: not UTF-8, a token twice, or a special token that is not there.
  """
  try:
    lines = data.decode("utf-8-sig").split("\n")
  except UnicodeDecodeError as error:
    raise EncoderError(
      f"{name}: not UTF-8 at byte {error.start}; a vocabulary is a UTF-8 text, a token a line"
    ) from error
  tokens = tuple(line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines))
  check_vocabulary(tokens, name)
  return tokens


def check_vocabulary(vocabulary: Sequence[str], name: str) -> None:
  """Raises EncoderError if a special token is missing or a token stands twice."""
  ids = {token: i for i, token in enumerate(vocabulary)}
  for special in SPECIAL_TOKENS:
    if special not in ids:
      trap = f" (it has {special.lower()!r}: its specials were lower-cased)" if special.lower() in ids else ""
      raise EncoderError(
        f"{name}: has no {special} among {len(vocabulary)} tokens{trap}; give the vocabulary of the weights"
      )
  if len(ids) < len(vocabulary):
    line, token = next((i, token) for i, token in enumerate(vocabulary) if ids[token] != i)
    raise EncoderError(
      f"{name}: token {token!r} stands on lines {line + 1} and {ids[token] + 1}; a token can have one id only"
    )


class Wordpiece:
  """A tokenizer for one encoder. Safe to share between threads."""

  def __init__(self, vocabulary: Sequence[str], settings: TokenizerSettings, max_seq_length: int):
    """Takes checked tokens in the order of their ids; `max_seq_length` counts [CLS] and [SEP]."""
    check_vocabulary(vocabulary, "vocabulary")
    if max_seq_length < 3:
      raise ValueError(f"max_seq_length {max_seq_length} leaves no room between [CLS] and [SEP]; choose 3 or more")
    ids = {token: i for i, token in enumerate(vocabulary)}
    self.vocab_size = len(vocabulary)
    self.settings, self.max_seq_length = settings, max_seq_length
    self.pad_id, self.unknown_id, self.cls_id, self.sep_id = (ids[token] for token in SPECIAL_TOKENS)
    self._room = max_seq_length - 2
    self._tokenizer = _make_tokenizer(ids, settings)
    ideographs = _IDEOGRAPHS if settings.tokenize_chinese_chars else ""
    self._to_boundary_with_sigma = re.compile(f"(?s).*[{re.escape(_SEPARATORS)}{ideographs}]")
    self._to_boundary = re.compile(f"(?s).*[{re.escape(_SEPARATORS + _SEPARATORS_WITHOUT_SIGMA)}{ideographs}]")

  def tokenise(self, texts: Sequence[str]) -> Tokens:
    """Returns the tokens of each text; of a long text no more is looked at than is needed.

    Raises:
      TypeError: a text has a lone surrogate.
    """
    rows: list[list[int]] = [[]] * len(texts)
    waiting, size = list(range(len(texts))), self.max_seq_length * _CHARACTERS_PER_TOKEN
    while waiting:
      prefixes = [self._prefix(texts[i], size) for i in waiting]
      encodings = self._tokenizer.encode_batch_fast(prefixes, add_special_tokens=False)
      for i, encoding in zip(waiting, encodings, strict=True):
        rows[i] = encoding.ids[: self._room + 1]  # one more than fits: that says `truncated`
      waiting = [i for i in waiting if len(rows[i]) <= self._room and len(texts[i]) > size]
      size *= 2
    return self._pack(rows)

  def _prefix(self, text: str, size: int) -> str:
    """Returns the text, cleaned, or a beginning of it whose tokens are the text's own first tokens."""
    if len(text) > size:
      # No boundary at all gives the empty prefix, and the next, twice as long, is tried.
      to_boundary = self._to_boundary_with_sigma if "Σ" in text else self._to_boundary
      match = to_boundary.match(text, 0, size)
      text = match.group() if match else ""
    text = _clean(text)
    # `tokenizers` lowers one character at a time, where Python, and so Google, knows the final sigma.
    return text.lower() if self.settings.lowercase and "Σ" in text else text

  def _pack(self, rows: Sequence[Sequence[int]]) -> Tokens:
    found = np.fromiter(map(len, rows), np.int64, len(rows))
    kept = np.minimum(found, self._room)
    offsets = np.concatenate([[0], np.cumsum(kept + 2)])
    flat = chain.from_iterable(self._framed(row) for row in rows)
    input_ids = np.fromiter(flat, np.int32, int(offsets[-1]))
    unknown = np.concatenate([[0], np.cumsum(input_ids == self.unknown_id)])
    return Tokens(input_ids, offsets, found > self._room, np.diff(unknown[offsets]).astype(np.int32))

  def _framed(self, row: Sequence[int]) -> Iterator[int]:
    return chain([self.cls_id], row[: self._room], [self.sep_id])


def _make_tokenizer(ids: dict[str, int], settings: TokenizerSettings) -> Tokenizer:
  model = WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=settings.max_word_chars)
  # No special token is added to the tokenizer: a literal "[SEP]" in a text is punctuation and letters.
  tokenizer = Tokenizer(model)
  tokenizer.normalizer = BertNormalizer(
    clean_text=False,  # it would also drop private-use and unassigned characters, which to Google are unknown words
    handle_chinese_chars=settings.tokenize_chinese_chars,
    strip_accents=settings.strip_accents,
    lowercase=settings.lowercase,
  )
  tokenizer.pre_tokenizer = BertPreTokenizer()
  return tokenizer


# A run of letters and digits longer than any word may be is one unknown token; cut short, it still is.
_LONG_RUN = re.compile(r"([A-Za-z0-9]{1000})[A-Za-z0-9]+")


def _clean(text: str) -> str:
  """Drops control and format characters and U+FFFD, as `BasicTokenizer._clean_text`."""
  if len(text) > 1000:
    text = _LONG_RUN.sub(r"\1", text)
  if text.isprintable() and "\ufffd" not in text:
    return text
  return _dropped().sub("", text)


@functools.cache
def _dropped() -> re.Pattern[str]:
  """Matches what `BasicTokenizer` drops: U+FFFD, and categories Cc and Cf without tab and line ends."""
  every = map(chr, range(sys.maxunicode + 1))
  gone = [c for c in every if unicodedata.category(c) in ("Cc", "Cf") and c not in "\t\n\r"]
  return re.compile("[" + "".join(map(re.escape, gone)) + "\ufffd]+")
