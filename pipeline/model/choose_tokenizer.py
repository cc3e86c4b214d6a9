"""How texts are cut into tokens: a person's wishes and what the folder or the vocabulary says, resolved."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from transforms.casing import casing_warning, fit_casing, strips_accents
from transforms.encoder_spec import AnyTokenizerSettings, Vocabulary
from transforms.errors import UsageError
from transforms.sentence_piece import SentencePieceSettings
from transforms.wordpiece import TokenizerSettings

CASING_WHY = {
  "stated": "stated by the folder",
  "guessed": "by the vocabulary's letters",
  "default": "the model's default, for the folder says nothing",
}


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
  """How texts are cut into tokens, where it is not as the folder or the vocabulary says.

  Attributes:
    lowercase: of a BERT together with `strip_accents`, unless that is given too.
  """

  lowercase: bool | None = None
  strip_accents: bool | None = None
  tokenize_chinese_chars: bool | None = None


def choose_tokenizer(
  settings: AnyTokenizerSettings, why: str, options: TokenizerOptions
) -> tuple[AnyTokenizerSettings, str]:
  """Returns what was asked for, else `settings`, and the line that says so; `why` says where these are from.

  Raises:
    UsageError: an option that such a tokenizer does not have.
  """
  if isinstance(settings, SentencePieceSettings):
    chosen: AnyTokenizerSettings = _piece_settings(settings, options)
  else:
    chosen = _wordpiece_settings(settings, options)
  asked = any(getattr(options, field.name) is not None for field in fields(TokenizerOptions))
  return chosen, f"casing: {_describe(chosen)} ({'asked for' if asked else why})"


def casing_warnings(vocabulary: Vocabulary, settings: AnyTokenizerSettings) -> Iterator[str]:
  """Yields the line that says so where a casing does not go with a vocabulary."""
  if warning := casing_warning(fit_casing(vocabulary, settings), settings):
    yield f"warning: {warning}"


def _wordpiece_settings(settings: TokenizerSettings, options: TokenizerOptions) -> TokenizerSettings:
  if options.lowercase is not None:
    settings = replace(settings, lowercase=options.lowercase, strip_accents=options.lowercase)
  if options.strip_accents is not None:
    settings = replace(settings, strip_accents=options.strip_accents)
  if options.tokenize_chinese_chars is not None:
    settings = replace(settings, tokenize_chinese_chars=options.tokenize_chinese_chars)
  return settings


def _piece_settings(settings: SentencePieceSettings, options: TokenizerOptions) -> SentencePieceSettings:
  """XLNet's two do not go together: cased models lose accents, too."""
  if options.tokenize_chinese_chars is not None:
    flag = "--tokenize-chinese-chars" if options.tokenize_chinese_chars else "--no-tokenize-chinese-chars"
    raise UsageError(f"{flag} is for a BERT's WordPiece; SentencePiece has no such rule: leave it out")
  if options.lowercase is not None:
    settings = replace(settings, lowercase=options.lowercase)
  if options.strip_accents is not None:
    settings = replace(settings, keep_accents=not options.strip_accents)
  return settings


def _describe(settings: AnyTokenizerSettings) -> str:
  words = [
    "lower-cased" if settings.lowercase else "as it stands",
    "accents stripped" if strips_accents(settings) else "accents kept",
  ]
  if isinstance(settings, TokenizerSettings):
    words.append("Chinese characters apart" if settings.tokenize_chinese_chars else "Chinese characters in words")
  return ", ".join(words)
