"""Texts to token ids, as google-research/xlnet's `prepro_utils.py` does it, by Google's own `sentencepiece`.

Words are cut one by one: no piece of the vocabulary reaches over white space, which is checked. So a text that is cut
where white space stands has the tokens of its parts, and of a long one no more is looked at than is needed.
"""

import functools
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from sentencepiece import SentencePieceProcessor

from transforms.errors import EncoderError
from transforms.rare_characters import IDEOGRAPHS, character_class
from transforms.tokenizer import N_SPECIAL, Tokens, first_rows, likely_size, pack

SEP, CLS, PAD = "<sep>", "<cls>", "<pad>"
# Stands for the white space before a word, in pieces.
BLANK = "\u2581"
# A character that no text has, and so no model.
_UNKNOWN = "\U0010fffd"
_QUOTES = re.compile("``|''")
_IDEOGRAPH = re.compile(f"[{IDEOGRAPHS}]")
# Characters of a long text that are tokenised at once.
_SEGMENT = 1 << 16
_DECOMPOSED_AT_ONCE = 512


@dataclass(frozen=True)
class SentencePieceSettings:
  """What of `prepro_utils.py` belongs to a checkpoint.

  Attributes:
    lowercase: texts are lower-cased.
    keep_accents: else they are decomposed (NFKD), and combining marks dropped.
    remove_space: runs of white space, of any kind, become one blank.
  """

  lowercase: bool
  keep_accents: bool
  remove_space: bool


@dataclass(frozen=True)
class SentencePieceModel:
  """A `spiece.model` that has been checked; made by `parse_model`.

  Attributes:
    data: the file's bytes.
  """

  data: bytes

  @functools.cached_property
  def processor(self) -> Any:
    """What cuts texts; safe to share between threads."""
    return SentencePieceProcessor(model_proto=self.data)

  @functools.cached_property
  def pieces(self) -> tuple[str, ...]:
    """The pieces in the order of their ids."""
    return tuple(map(self.processor.id_to_piece, range(len(self))))

  def __len__(self) -> int:
    """Returns the number of pieces."""
    return int(self.processor.vocab_size())

  def __iter__(self) -> Iterator[str]:
    """Yields the pieces in the order of their ids."""
    return iter(self.pieces)


def parse_model(data: bytes, name: str) -> SentencePieceModel:
  """Returns the model of a `spiece.model`, checked.

  Raises:
    EncoderError: no SentencePiece model, or not one that an XLNet can have been trained with.
  """
  remedy = "give the spiece.model of the weights"
  try:
    model = SentencePieceModel(data)
    if not data or not model.pieces:
      raise RuntimeError("it is empty")
  except (RuntimeError, UnicodeDecodeError) as error:
    raise EncoderError(f"{name}: is no SentencePiece model ({' '.join(str(error).split())}); {remedy}") from error
  found = model.processor
  for special in (SEP, CLS, PAD):
    token_id = found.piece_to_id(special)
    if found.is_unknown(token_id):
      raise EncoderError(f"{name}: has no {special} among {len(model)} pieces, so it is not an XLNet's; {remedy}")
    if not found.is_control(token_id):
      raise EncoderError(f"{name}: {special} is no control symbol, so that a text with it would be cut there; {remedy}")
  if piece := next((piece for piece in model.pieces if BLANK in piece.lstrip(BLANK)), None):
    raise EncoderError(f"{name}: piece {piece!r} reaches over white space, which no XLNet's does; {remedy}")
  # Models can be trained to cut the first word otherwise, or to make one unknown token of several words.
  known = next((piece.strip(BLANK) for piece in model.pieces if piece.startswith(BLANK) and piece != BLANK), "a")
  words = [known, _UNKNOWN, _UNKNOWN, known]
  if found.encode(" ".join(words)) != [i for row in found.encode(words) for i in row]:
    raise EncoderError(f"{name}: a word has other tokens behind others than alone, which no XLNet's does; {remedy}")
  return model


class SentencePiece:
  """XLNet's tokenizer: <sep> and <cls> stand behind a text. Safe to share between threads."""

  extra = 1  # the blank before a word, where a run of ideographs is cut

  def __init__(self, model: SentencePieceModel, settings: SentencePieceSettings, max_seq_length: int):
    """Takes a checked model; `max_seq_length` counts <sep> and <cls>."""
    if max_seq_length < 3:
      raise ValueError(f"max_seq_length {max_seq_length} leaves no room before <sep> and <cls>; choose 3 or more")
    self._processor, self.settings, self.max_seq_length = model.processor, settings, max_seq_length
    self.vocab_size, self.room = len(model), max_seq_length - N_SPECIAL
    self.unknown_id = self._processor.unk_id()
    self.before: tuple[int, ...] = ()
    self.after: tuple[int, ...] = tuple(map(self._processor.piece_to_id, (SEP, CLS)))
    self._splits = {i: self._split(piece) for i, piece in enumerate(model.pieces) if _ends_in_comma(piece)}
    blank = r"\s" if settings.remove_space else " "
    self._to_blank = re.compile(rf"(?s).*[^{blank}](?={blank})")
    self._behind_blank = re.compile(rf"(?s).*{blank}(?!{blank})")
    self._blanks = re.compile(f"{blank}+")

  def tokenise(self, texts: Sequence[str]) -> Tokens:
    """Returns the tokens of each text; of a long text no more is looked at than is needed.

    Raises:
      TypeError: a text has a lone surrogate.
    """
    return pack(first_rows(texts, self.max_seq_length, self._first_rows), self)

  def units(self, text: str, start: int = 0) -> Iterator[tuple[str, Sequence[int]]]:
    """Yields the units of a text, each with the ids of its tokens, without <sep> and <cls>.

    A unit is a word with the blanks behind it, or from one ideograph to the next, as far as tokens begin with them.
    """
    at = start and self._word_behind(text, start)
    while at < len(text):
      stop = self._segment_end(text, at)
      yield from self._units_of(text[at:stop])
      at = stop

  def locate(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns ids, starts and ends, int64 [n], of the tokens that fit and one more, without <sep> and <cls>.

    Raises:
      ValueError: the text has a lone surrogate.
    """
    size, most = likely_size(text, self.max_seq_length), self.room + 1
    while True:
      found = self._places(self._prefix(text, size))
      if len(found.ids) >= most or len(text) <= size:
        return np.array(found.ids[:most], np.int64), found.starts[:most], found.ends[:most]
      size *= 2

  def _first_rows(self, texts: Sequence[tuple[str, int]]) -> list[Sequence[int]]:
    beginnings = [preprocess(self._prefix(*text), self.settings) for text in texts]
    # On one thread: bundles work side by side already.
    return [self._with_commas_apart(row) for row in self._processor.encode(beginnings, num_threads=1)]

  def _prefix(self, text: str, size: int) -> str:
    """Returns the text, or a beginning of it that ends where a word does."""
    if len(text) <= size:
      return text
    match = self._to_blank.match(text, 0, size)
    return match.group() if match else ""  # the next, twice as long, is tried

  def _with_commas_apart(self, row: Sequence[int]) -> Sequence[int]:
    if self._splits.keys().isdisjoint(row):
      return row
    return [part for i in row for part, _ in self._splits.get(i, ((i, 0),))]

  def _split(self, piece: str) -> list[tuple[int, int]]:
    """Returns the parts of a piece that ends in a comma behind a digit, as `encode_pieces` cuts it: (id, length)."""
    parts = self._processor.encode(piece[:-1].replace(BLANK, ""), out_type=str)
    if not piece.startswith(BLANK) and parts[0].startswith(BLANK):
      parts = [part for part in (parts[0][1:], *parts[1:]) if part]
    return [(self._processor.piece_to_id(part), len(part.lstrip(BLANK))) for part in (*parts, piece[-1])]

  def _word_behind(self, text: str, start: int) -> int:
    """Returns where a word surely begins, at `start` or behind it."""
    blanks = self._blanks.search(text, start)
    return blanks.end() if blanks else len(text)

  def _segment_end(self, text: str, at: int) -> int:
    """Returns where a word begins, so that not much is between there and `at`."""
    if len(text) - at <= _SEGMENT:
      return len(text)
    match = self._behind_blank.match(text, at, at + _SEGMENT)
    return match.end() if match else self._word_behind(text, at + _SEGMENT)

  def _units_of(self, segment: str) -> Iterator[tuple[str, list[int]]]:
    places = self._places(segment)
    # One character may become several words, of which only the first begins a unit, and that not within a token.
    is_apart = np.append(0, places.ends)[:-1] <= places.starts
    can_begin = np.flatnonzero((places.begins_word | _ideographs(segment)[places.starts]) & is_apart)
    begins, which = np.unique(places.starts[can_begin], return_index=True)
    firsts = can_begin[which]
    begins, firsts = begins[begins > 0].tolist(), firsts[begins > 0].tolist()
    characters, tokens = pairwise([0, *begins, len(segment)]), pairwise([0, *firsts, len(places.ids)])
    for (start, end), (first, stop) in zip(characters, tokens, strict=True):
      yield segment[start:end], places.ids[first:stop]

  def _places(self, text: str) -> "_Places":
    """Returns the tokens of a text, with their places in it."""
    clean = preprocess(text, self.settings)
    starts, ends = self._origins(text)
    assert len(starts) == len(clean), (len(starts), len(clean))
    found = self._processor.encode(clean, return_type="offset_mapping")
    rows = list[tuple[int, int, int, bool]]()
    for token_id, piece, (first, stop) in zip(found["ids"], found["pieces"], found["offsets"], strict=True):
      while first < stop and clean[first].isspace():  # none of the word that it is before
        first += 1
      if first == stop < len(clean) and piece != BLANK:
        stop += 1  # one character that has become several pieces
      if token_id in self._splits:
        rows += self._parts(token_id, first, stop)
      else:
        rows.append((token_id, first, stop, piece[0] == BLANK))
    ids, firsts, stops, begins_word = np.array(rows, np.int64).reshape(-1, 4).T
    begin = np.append(starts, len(text))[firsts]
    return _Places(ids.tolist(), begin, np.where(stops > firsts, np.append(0, ends)[stops], begin), begins_word > 0)

  def _parts(self, token_id: int, first: int, stop: int) -> Iterator[tuple[int, int, int, bool]]:
    """Yields (id, first, stop, whether it begins a word) of what a piece is cut to.

    A part has the place of the whole if its own cannot be told.
    """
    is_told = sum(length for _, length in self._splits[token_id]) == stop - first
    begins_word = self._processor.id_to_piece(token_id)[0] == BLANK
    for part, length in self._splits[token_id]:
      yield (part, first, first + length if is_told else stop, begins_word)
      first, begins_word = first + length if is_told else first, False

  def _origins(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Int64 each: from where to where in the text each character of the preprocessed text comes.

    Nothing there depends on what stands around, but for blanks and quotes; not even the order of marks, which are all
    dropped where a text is decomposed.
    """
    codes, places = np.unique(np.frombuffer(text.encode("utf-32-le"), np.uint32), return_inverse=True)
    n_made = np.array([len(preprocess(chr(code), self.settings)) for code in codes], np.int64)[places]
    starts = np.arange(len(text))
    ends = starts + 1
    if self.settings.remove_space:
      is_blank = np.array([chr(code).isspace() for code in codes], bool)[places]
      begins_blank = is_blank & ~np.append(True, is_blank[:-1])[: len(text)]
      n_made[begins_blank] = 1  # alone it is stripped
      if len(text.rstrip()) < len(text):
        n_made[len(text.rstrip())] = 0
    for quotes in _QUOTES.finditer(text):
      n_made[quotes.start() + 1] = 0
      ends[quotes.start()] += 1
    return np.repeat(starts, n_made), np.repeat(ends, n_made)


@dataclass(frozen=True)
class _Places:
  """The n tokens of a text; token i comes from `text[starts[i]:ends[i]]`, ascending, and may begin a word."""

  ids: list[int]
  starts: np.ndarray
  ends: np.ndarray
  begins_word: np.ndarray


def preprocess(text: str, settings: SentencePieceSettings) -> str:
  """Does as `preprocess_text`."""
  if settings.remove_space:
    text = " ".join(text.split())
  text = text.replace("``", '"').replace("''", '"')
  if not settings.keep_accents and not text.isascii():
    text = _combining().sub("", _decompose(text))
  return text.lower() if settings.lowercase else text


def _decompose(text: str) -> str:
  """Decomposes a text (NFKD) but for the order of marks, by which only what is dropped would differ.

  Python sorts a run of marks in time by the square of its length, and a text may be nothing else.
  """
  pieces = (text[i : i + _DECOMPOSED_AT_ONCE] for i in range(0, len(text), _DECOMPOSED_AT_ONCE))
  return "".join(unicodedata.normalize("NFKD", piece) for piece in pieces)


def _ends_in_comma(piece: str) -> bool:
  return piece.endswith(",") and piece[-2:-1].isdigit()


@functools.cache
def _combining() -> re.Pattern[str]:
  """Matches what Google drops: characters that have a combining class."""
  return re.compile(f"[{character_class(filter(unicodedata.combining, map(chr, range(sys.maxunicode + 1))))}]+")


def _ideographs(text: str) -> np.ndarray:
  """Bool [n + 1] of a text of n characters: which are ideographs."""
  found = np.zeros(len(text) + 1, dtype=bool)
  found[[match.start() for match in _IDEOGRAPH.finditer(text)] if not text.isascii() else []] = True
  return found
