"""Texts to token ids, as google-research/bert's `tokenization.py` does it, at the speed of Hugging Face's `tokenizers`.

No difference is known: a text with a character that `tokenizers` takes for something else is cut into words by ours
(`rare_characters.py`).
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from tokenizers import Tokenizer as FastTokenizer
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
from transforms.text_units import BLANKS, CLOSERS
from transforms.tokenizer import N_SPECIAL, Tokens, first_rows, pack

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

# After one of these a new word begins, whatever follows: white space, punctuation, an ideograph.
SEPARATORS = ' \t\n\r!"#$%&()*+,-/;<=>?@[\\]_{|}~\u3001\u3002\uff01\uff0c\uff1b\uff1f'
# So it does after these, but what follows them can decide whether a capital sigma before them ends its word.
SEPARATORS_WITHOUT_SIGMA = ".':^`"
# Runs of this many characters are looked into for words that are too long for any vocabulary.
_LONG_RUN = 1000
_UNITS_AT_ONCE = 8192
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
  """BERT's tokenizer. Safe to share between threads."""

  extra = 0

  def __init__(self, vocabulary: Sequence[str], settings: TokenizerSettings, max_seq_length: int):
    """Takes checked tokens in the order of their ids; `max_seq_length` counts [CLS] and [SEP]."""
    check_vocabulary(vocabulary, "vocabulary")
    if max_seq_length < 3:
      raise ValueError(f"max_seq_length {max_seq_length} leaves no room between [CLS] and [SEP]; choose 3 or more")
    ids = {token: i for i, token in enumerate(vocabulary)}
    self.vocab_size = len(vocabulary)
    self.settings, self.max_seq_length = settings, max_seq_length
    self.pad_id, self.unknown_id, self.cls_id, self.sep_id = (ids[token] for token in SPECIAL_TOKENS)
    self.room = max_seq_length - N_SPECIAL
    self.before: tuple[int, ...] = (self.cls_id,)
    self.after: tuple[int, ...] = (self.sep_id,)
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
    rows = first_rows(texts, self.max_seq_length, self._first_rows)
    return pack(rows, self)

  def units(self, text: str, start: int = 0) -> Iterator[tuple[str, Sequence[int]]]:
    """Yields the units of a text, each with the ids of its tokens, without [CLS] and [SEP].

    A unit is a word, or what stands between blanks. Between two units a new word begins whatever stands before and
    behind, so that the tokens of a text are those of its units, and a piece of the text between two such places has the
    very tokens that it has in the text.
    """
    matches = _unit_pattern(self.settings.tokenize_chinese_chars, "Σ" in text).finditer(text, start)
    # The first may have begun before: it is whole only where the text begins.
    units = (match.group() for match in islice(matches, int(start > 0), None) if match.group())
    while some := list(islice(units, _UNITS_AT_ONCE)):
      yield from zip(some, self.every_token(some), strict=True)

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

  def locate(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ids, starts and ends, int64 [n], of the tokens that fit and one more, without [CLS] and [SEP].

    Cutting a text into tokens lowers, decomposes and drops characters, so a token's place in the text has to be found
    again. It can be, character by character: how many characters of the words a character of the text becomes does not
    depend on those around it. A capital sigma's form does, but not its length; marks may change places, but only within
    what one letter and its marks have become. The tests hold this for every character of Unicode.

    Raises:
      ValueError: the text has a lone surrogate.
    """
    found = list(islice(self.pieces(text), self.room + 1))
    ids, lengths = np.array(found, np.int64).reshape(-1, 2).T
    stops, origins = np.cumsum(lengths), self._origins(text)
    return ids, origins[stops - lengths], origins[stops - 1] + 1

  def _origins(self, text: str) -> np.ndarray:
    """Int64, an item for each character of the words: the position in the text of that which it was made from."""
    n_made = {c: sum(map(len, self.words(c))) for c in set(text)}
    return np.repeat(np.arange(len(text)), np.fromiter((n_made[c] for c in text), np.int64, len(text)))

  def _first_rows(self, texts: Sequence[tuple[str, int]]) -> Iterator[list[int]]:
    return self._rows([self._prefix(text, size) for text, size in texts], self.room + 1)

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


def _make_tokenizer(ids: dict[str, int], settings: TokenizerSettings) -> FastTokenizer:
  model = WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=settings.max_word_chars)
  # No special token is added to the tokenizer: a literal "[SEP]" in a text is punctuation and letters.
  tokenizer = FastTokenizer(model)
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


@functools.cache
def _unit_pattern(has_ideographs: bool, has_sigma: bool) -> re.Pattern[str]:
  """Matches some characters of a word, one behind which a new word begins, and what closes behind that.

  Of the separators some are looked through to see whether a capital sigma ends a word.
  """
  separators = re.escape(SEPARATORS + ("" if has_sigma else SEPARATORS_WITHOUT_SIGMA)) + "\u2026"
  separators += IDEOGRAPHS if has_ideographs else ""
  return re.compile(f"[^{separators}]*[{separators}]?[{CLOSERS}]*[{BLANKS}]*")


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
