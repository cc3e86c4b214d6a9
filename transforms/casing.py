"""Whether lower-casing goes with a vocabulary, seen from the vocabulary alone.

A wrong setting raises no error anywhere: the vectors are just worse. An uncased vocabulary without lower-casing makes
[UNK] of every word with a capital; a cased one with it has a third of its tokens never used, and names in pieces.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from transforms.encoder_spec import AnyTokenizerSettings, Vocabulary, make_tokenizer
from transforms.rare_characters import basic_words
from transforms.sentence_piece import BLANK, SentencePieceSettings, preprocess

# Official vocabularies under their own casing have at most 0.8 % and nothing. Under another, an uncased one has 100 %
# unknown; of a cased one 16 to 33 % are unused, or 2 % where nothing but English accents is stripped.
MAX_UNKNOWN = 0.05
MAX_UNUSED = 0.01
# As many words, evenly spaced, say the same as all 60,000 of a multilingual vocabulary.
_N_WORDS = 5000
_LONGEST_WORD = 100


@dataclass(frozen=True)
class CasingFit:
  """How a vocabulary's own tokens fare under a casing.

  Attributes:
    n_tokens: in the vocabulary.
    unused: tokens that no text can have, for they have capitals or accents which are taken away.
    unknown: share of the vocabulary's words that become the unknown token, or have one, where they begin a sentence.
    in_pieces: share of the vocabulary's words, as they stand there, that are no longer one token.
  """

  n_tokens: int
  unused: int
  unknown: float
  in_pieces: float

  @property
  def fits(self) -> bool:
    """Says whether the casing can be the one that the vocabulary was made for."""
    return self.unknown <= MAX_UNKNOWN and self.unused <= MAX_UNUSED * self.n_tokens


@functools.lru_cache(maxsize=2)
def fit_casing(vocabulary: Vocabulary, settings: AnyTokenizerSettings) -> CasingFit:
  """Measures how a checked vocabulary fares under the settings; takes a second for the largest."""
  unused = sum(not _is_reachable(token, settings) for token in vocabulary if not _is_special(token))
  words = [word for word in _words(vocabulary, settings) if _is_word_with_case(word)]
  words = words[:: -(-len(words) // _N_WORDS) or 1]
  tokenizer = make_tokenizer(vocabulary, settings, 2 * _LONGEST_WORD)
  beginning = tokenizer.tokenise([word[0].upper() + word[1:] for word in words])
  standing = tokenizer.tokenise(words)
  return CasingFit(len(vocabulary), unused, _share(beginning.n_unknown > 0), _share(standing.lengths > 3))


def is_cased(vocabulary: Iterable[str]) -> bool:
  """Says whether tokens tell upper case from lower: any but the bracketed specials has a capital."""
  return any(token != token.lower() and token[0] not in "[<" for token in vocabulary)


def other_casing(settings: AnyTokenizerSettings) -> AnyTokenizerSettings:
  """Returns what Google's code would do for a model of the other casing."""
  if isinstance(settings, SentencePieceSettings):
    return replace(settings, lowercase=not settings.lowercase)
  return replace(settings, lowercase=not settings.lowercase, strip_accents=not settings.lowercase)


def casing_warning(fit: CasingFit, settings: AnyTokenizerSettings) -> str | None:
  """Returns what to tell a person if the casing does not go with the vocabulary, with the option that mends it."""
  if fit.fits:
    return None
  done = "lower-cased" if settings.lowercase else "not lower-cased"
  unknown = "<unk>" if isinstance(settings, SentencePieceSettings) else "[UNK]"
  if fit.unknown > MAX_UNKNOWN:
    remedy = "--no-lowercase" if settings.lowercase else "--lowercase"
    return (
      f"texts are {done}, but then {fit.unknown:.1%} of the vocabulary's words become {unknown} where they begin a "
      f"sentence; is {remedy} meant?"
    )
  what, remedy = ("capitals", "--no-lowercase") if settings.lowercase else ("accents", "--no-strip-accents")
  return (
    f"texts are {done}{', their accents stripped' if strips_accents(settings) else ''}, but {fit.unused:,} of the "
    f"vocabulary's {fit.n_tokens:,} tokens have {what} and can then never occur: {fit.in_pieces:.1%} of its words fall "
    f"into pieces, {fit.unknown:.1%} become {unknown} where they begin a sentence; is {remedy} meant?"
  )


def strips_accents(settings: AnyTokenizerSettings) -> bool:
  """Says whether texts lose their accents."""
  return not settings.keep_accents if isinstance(settings, SentencePieceSettings) else settings.strip_accents


def _words(vocabulary: Vocabulary, settings: AnyTokenizerSettings) -> Iterable[str]:
  """Returns the tokens that a word can begin with, as they stand in a text."""
  if isinstance(settings, SentencePieceSettings):
    return (piece[1:] for piece in vocabulary if piece.startswith(BLANK))
  return vocabulary


def _is_reachable(token: str, settings: AnyTokenizerSettings) -> bool:
  """Says whether a text can have this token, by its capitals and accents alone."""
  if token.isascii():
    return not settings.lowercase or token == token.lower()
  if isinstance(settings, SentencePieceSettings):
    return preprocess(token, settings) == token
  words = basic_words(
    token, lowercase=settings.lowercase, strip_accents=settings.strip_accents, tokenize_chinese_chars=False
  )
  return "".join(words) == "".join(token.split())


def _is_word_with_case(token: str) -> bool:
  return len(token) <= _LONGEST_WORD and token.isalpha() and token.lower() != token.upper()


def _is_special(token: str) -> bool:
  return token[:1] in ("[", "<")


def _share(flags: np.ndarray) -> float:
  return float(flags.mean()) if len(flags) else 0.0
