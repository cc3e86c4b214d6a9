"""Texts to token ids, as google-research/bert's `tokenization.py` does it, at the speed of Hugging Face's `tokenizers`.

No difference is known: a text with a character that `tokenizers` takes for something else is cut into words by ours
(`rare_characters.py`).
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from transforms.errors import EncoderError
from transforms.rare_characters import (
  IDEOGRAPHS,
  RareCharacters,
  basic_words,
  character_class,
  every_character,
  find_rare_characters,
)

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
# A text is tokenised as far as needed. English has 4 to 5 characters a token, so that this many suffice at once; what
# takes more bytes a character has fewer characters a token, ideographs hardly more than one.
_CHARACTERS_PER_TOKEN, _FEWEST_PER_TOKEN = 5.5, 1.5

# After one of these a new word begins, whatever follows: white space, punctuation, an ideograph.
SEPARATORS = ' \t\n\r!"#$%&()*+,-/;<=>?@[\\]_{|}~\u3001\u3002\uff01\uff0c\uff1b\uff1f'
# So it does after these, but what follows them can decide whether a capital sigma before them ends its word.
SEPARATORS_WITHOUT_SIGMA = ".':^`"
# Runs of this many characters are looked into for words that are too long for any vocabulary.
_LONG_RUN = 1000
# Of units of long texts: 20 MB at most.
_UNITS_REMEMBERED, _LONGEST_REMEMBERED = 1 << 16, 40


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
    n_tokens: int32 [N], how many tokens there are, [CLS] and [SEP] once; less than the length where a text came as
      windows, which overlap (`long_texts.py`).
  """

  input_ids: np.ndarray
  offsets: np.ndarray
  truncated: np.ndarray
  n_unknown: np.ndarray
  n_tokens: np.ndarray

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
    self.room = max_seq_length - 2
    self._tokenizer = _make_tokenizer(ids, settings)
    ideographs = IDEOGRAPHS if settings.tokenize_chinese_chars else ""
    boundaries = re.escape(SEPARATORS + SEPARATORS_WITHOUT_SIGMA) + ideographs
    self._to_boundary_with_sigma = re.compile(f"(?s).*[{re.escape(SEPARATORS)}{ideographs}]")
    self._to_boundary = re.compile(f"(?s).*[{boundaries}]")
    # Looked for where a run begins only, or runs of nearly that length would take time by their square.
    self._long_run = re.compile(f"(?<![^{boundaries}])[^{boundaries}]{{{_LONG_RUN},}}")
    self._kinds: dict[str, str] = {}
    self._seen: dict[str, list[int]] = {}

  def tokenise(self, texts: Sequence[str]) -> Tokens:
    """Returns the tokens of each text; of a long text no more is looked at than is needed.

    Raises:
      TypeError: a text has a lone surrogate.
    """
    rows: list[list[int]] = [[]] * len(texts)
    waiting = {i: self._likely_size(text) for i, text in enumerate(texts)}
    while waiting:
      prefixes = [self._prefix(texts[i], size) for i, size in waiting.items()]
      for i, row in zip(waiting, self._rows(prefixes, self.room + 1), strict=True):
        rows[i] = row
      waiting = {i: 2 * n for i, n in waiting.items() if len(rows[i]) <= self.room and len(texts[i]) > n}
    return self._pack(rows)

  def every_token(self, units: Sequence[str]) -> list[list[int]]:
    """Returns the ids of all tokens of each unit of a text, without [CLS] and [SEP].

    Those that were met lately are remembered: most words come again, and a call for each is what takes time.
    """
    seen = self._seen = self._seen if len(self._seen) < _UNITS_REMEMBERED else {}
    new = [unit for unit in dict.fromkeys(units) if unit not in seen]
    found = dict(zip(new, self._rows([self._prefix(unit, len(unit)) for unit in new], None), strict=True))
    rows = [found[unit] if unit in found else seen[unit] for unit in units]
    seen.update((unit, row) for unit, row in found.items() if len(unit) <= _LONGEST_REMEMBERED)
    return rows

  def words(self, text: str) -> Iterator[str]:
    """Yields the words and the single punctuation marks of a text, normalised: what is cut into pieces."""
    return _exact_words(_clean(text), self.settings)

  def pieces(self, text: str) -> Iterator[tuple[int, int]]:
    """Yields the id and the length of each token of a text, of which there may be more than fit.

    The lengths add up to those of the `words`. The tokens are those of `tokenise`, found slowly, a word at a time.

    Raises:
      ValueError: a word has a lone surrogate.
    """
    for word in self.words(text):
      for i, token in enumerate(self._tokenizer.model.tokenize(word)):
        is_whole = token.id == self.unknown_id
        yield token.id, len(word) if is_whole else len(token.value) - len("##" if i else "")

  def _likely_size(self, text: str) -> int:
    """Returns how many characters are likely to have all tokens that fit and one more, judging by the script."""
    fewest = int(self.max_seq_length * _FEWEST_PER_TOKEN)
    if len(text) <= fewest:
      return fewest
    start = text[: self.max_seq_length]
    # A lone surrogate has no bytes; who tokenises says so.
    width = len(start.encode(errors="replace")) / len(start) if not start.isascii() else 1.0
    return max(int(self.max_seq_length * _CHARACTERS_PER_TOKEN / width**2), fewest)

  def _prefix(self, text: str, size: int) -> str:
    """Returns the text, cleaned, or a beginning of it whose tokens are the text's own first tokens."""
    if len(text) > size:
      # No boundary at all gives the empty prefix, and the next, twice as long, is tried.
      to_boundary = self._to_boundary_with_sigma if "Σ" in text else self._to_boundary
      match = to_boundary.match(text, 0, size)
      text = match.group() if match else ""
    text = _clean(text)
    # `tokenizers` lowers one character at a time, where Python, and so Google, knows the final sigma.
    text = text.lower() if self.settings.lowercase and "Σ" in text else text
    return self._long_run.sub(self._shortened, text) if len(text) >= _LONG_RUN else text

  def _shortened(self, run: re.Match[str]) -> str:
    """Cuts the words of a run that are unknown at any length: `tokenizers` takes 110 bytes for each character."""
    text = run.group()
    if self._has_rare(run.string):
      return text  # these tables are not Google's, and such a text does not go to `tokenizers`
    kinds: dict[str, list[str]] = {"letter": [], "dropped": [], "boundary": []}
    for character in set(text):
      kinds[self._kind(character)].append(character)
    text = text.translate(dict.fromkeys(map(ord, kinds["dropped"])))
    letters = "".join(map(re.escape, kinds["letter"]))
    n_kept = max(_LONG_RUN, self.settings.max_word_chars + 1)
    return re.sub(f"([{letters}]{{{n_kept}}})[{letters}]+", r"\1", text) if letters else text

  def _kind(self, character: str) -> str:
    """Says what `tokenizers` makes of a character, by its own tables: part of a word, nothing, or a boundary."""
    if character not in self._kinds:
      normal = self._tokenizer.normalizer.normalize_str(f"q{character}q")
      words = [word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(normal)]
      self._kinds[character] = "boundary" if len(words) > 1 else "dropped" if words == ["qq"] else "letter"
    return self._kinds[character]

  def _rows(self, prefixes: Sequence[str], most: int | None) -> Iterator[list[int]]:
    """Yields the first `most` ids of each text: one more than fits says `truncated`."""
    rare = {i for i, text in enumerate(prefixes) if self._has_rare(text)}
    ordinary = ["" if i in rare else text for i, text in enumerate(prefixes)] if rare else prefixes
    encodings = self._tokenizer.encode_batch_fast(ordinary, add_special_tokens=False)
    for i, encoding in enumerate(encodings):
      yield self._exact_row(prefixes[i], most) if i in rare else encoding.ids[:most]

  def _has_rare(self, text: str) -> bool:
    return not text.isascii() and _rare_characters(self.settings).in_text(text)

  def _exact_row(self, text: str, most: int | None) -> list[int]:
    return [token_id for token_id, _ in islice(self.pieces(text), most)]

  def _pack(self, rows: Sequence[Sequence[int]]) -> Tokens:
    found = np.fromiter(map(len, rows), np.int64, len(rows))
    kept = np.minimum(found, self.room)
    offsets = np.concatenate([[0], np.cumsum(kept + 2)])
    flat = chain.from_iterable(self._framed(row) for row in rows)
    input_ids = np.fromiter(flat, np.int32, int(offsets[-1]))
    unknown = np.concatenate([[0], np.cumsum(input_ids == self.unknown_id)])
    n_unknown = np.diff(unknown[offsets]).astype(np.int32)
    return Tokens(input_ids, offsets, found > self.room, n_unknown, (kept + 2).astype(np.int32))

  def _framed(self, row: Sequence[int]) -> Iterator[int]:
    return chain([self.cls_id], row[: self.room], [self.sep_id])


def _make_tokenizer(ids: dict[str, int], settings: TokenizerSettings) -> Tokenizer:
  model = WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=settings.max_word_chars)
  # No special token is added to the tokenizer: a literal "[SEP]" in a text is punctuation and letters.
  tokenizer = Tokenizer(model)
  tokenizer.normalizer = _normalizer(settings)
  tokenizer.pre_tokenizer = BertPreTokenizer()
  return tokenizer


def _normalizer(settings: TokenizerSettings) -> BertNormalizer:
  return BertNormalizer(
    clean_text=False,  # it would also drop private-use and unassigned characters, which to Google are unknown words
    handle_chinese_chars=settings.tokenize_chinese_chars,
    strip_accents=settings.strip_accents,
    lowercase=settings.lowercase,
  )


def _exact_words(text: str, settings: TokenizerSettings) -> Iterator[str]:
  return basic_words(
    text,
    lowercase=settings.lowercase,
    strip_accents=settings.strip_accents,
    tokenize_chinese_chars=settings.tokenize_chinese_chars,
  )


@functools.cache
def _rare_characters(settings: TokenizerSettings) -> RareCharacters:
  normalizer, splitter = _normalizer(settings), BertPreTokenizer()

  def fast_words(text: str) -> list[str]:
    return [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]

  return find_rare_characters(fast_words, lambda text: _exact_words(text, settings))


def _clean(text: str) -> str:
  """Drops control and format characters and U+FFFD, as `BasicTokenizer._clean_text`."""
  if text.isprintable() and "\ufffd" not in text:
    return text
  return _dropped().sub("", text)


@functools.cache
def _dropped() -> re.Pattern[str]:
  """Matches what `BasicTokenizer` drops: U+FFFD, and categories Cc and Cf without tab and line ends."""
  gone = (c for c in every_character("Cc", "Cf") if c not in "\t\n\r")
  return re.compile(f"[{character_class(gone)}\ufffd]+")
