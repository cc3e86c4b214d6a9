"""The rare characters that `tokenizers` takes for something else than Google's code does, and texts that have them.

Google's `BasicTokenizer` asks Python what a character is. `tokenizers` has tables of its own: older ones for
punctuation and combining marks (Unicode 8), newer ones for lower case, and its ideographs leave out U+2B820 to U+2B91F.
Some 800 characters are concerned, all of rare scripts. Which ones depends on both versions, so both are asked.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

# The blocks that Google's code calls Chinese.
IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f"
_IDEOGRAPH = re.compile(f"[{IDEOGRAPHS}]")
# Not looked at: ASCII, and what both sides take alike, by the block: ideographs, Hangul syllables, private use,
# planes without a character.
_PROBED = (
  range(0x80, 0x3400),
  range(0xA000, 0xAC00),
  range(0xD7B0, 0xD800),
  range(0xF900, 0x20000),
  range(0x2A6E0, 0x2FA20),
  range(0xE0000, 0xE0200),
)
_AT_ONCE = 32

Words = Callable[[str], Iterable[str]]


def basic_words(text: str, *, lowercase: bool, strip_accents: bool, tokenize_chinese_chars: bool) -> Iterator[str]:
  """Yields the words and the single punctuation marks of a cleaned text, as `BasicTokenizer` cuts it.

  No list of characters is made on the way, so that a text of megabytes takes a few copies of itself.
  """
  if tokenize_chinese_chars:
    text = _IDEOGRAPH.sub(r" \g<0> ", text)
  if lowercase:
    text = text.lower()
  if strip_accents:
    text = _marks().sub("", unicodedata.normalize("NFD", text))
  text = _punctuation().sub(r" \g<0> ", text)
  return (match.group() for match in re.finditer(r"\S+", text))


@dataclass(frozen=True)
class RareCharacters:
  """A set of characters that is quickly seen not to be in an ordinary text."""

  characters: frozenset[str]

  def in_text(self, text: str) -> bool:
    """Says whether one of them is in the text."""
    # A class within the first plane is a table look-up for `re`; further ranges are tried one after the other.
    return not text.isascii() and bool(self._perhaps.search(text)) and not self.characters.isdisjoint(text)

  @functools.cached_property
  def _perhaps(self) -> re.Pattern[str]:
    low = character_class(c for c in self.characters if c <= "\uffff")
    return re.compile(f"[{low}\U00010000-\U0010ffff]")


def find_rare_characters(fast: Words, exact: Words) -> RareCharacters:
  """Returns the characters around which the two cut a text into other words; takes about half a second."""
  chunks = (range(start, min(start + _AT_ONCE, block.stop)) for block in _PROBED for start in block[::_AT_ONCE])
  suspects = (map(chr, chunk) for chunk in chunks if _differ(fast, exact, map(chr, chunk)))
  return RareCharacters(frozenset(c for chunk in suspects for c in chunk if _differ(fast, exact, c)))


def character_class(characters: Iterable[str]) -> str:
  """Returns what stands between the brackets of a pattern that matches any of them, in as few ranges as there are."""
  return "".join(f"{re.escape(first)}-{re.escape(last)}" for first, last in _ranges(sorted(characters)))


def every_character(*categories: str) -> Iterator[str]:
  """Yields every character of the Unicode categories, by their first letters; not for Co and Cn."""
  points = chain(range(0x40000), range(0xE0000, 0xE1000))  # the other planes hold private use, or nothing
  return (c for c in map(chr, points) if unicodedata.category(c).startswith(categories))


def _differ(fast: Words, exact: Words, characters: Iterable[str]) -> bool:
  # The marks around it, of combining classes 224 and 9, change places unless it stands between them as a base: so the
  # class that each side gives it shows too.
  text = "\n".join(f"\u302e{c}\ua9c0" for c in characters)
  return list(fast(text)) != list(exact(text))


def _ranges(characters: Iterable[str]) -> Iterator[tuple[str, str]]:
  first = last = ""
  for c in characters:
    if last and ord(c) == ord(last) + 1:
      last = c
      continue
    if last:
      yield first, last
    first = last = c
  if last:
    yield first, last


@functools.cache
def _marks() -> re.Pattern[str]:
  return re.compile(f"[{character_class(every_character('Mn'))}]+")


@functools.cache
def _punctuation() -> re.Pattern[str]:
  ascii_marks = "!-/:-@\\[-`{-~"  # with $, +, <, =, >, ^, `, | and ~, which are symbols to Unicode
  return re.compile(f"[{ascii_marks}{character_class(every_character('P'))}]")
