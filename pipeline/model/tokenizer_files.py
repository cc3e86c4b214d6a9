"""What lies beside weights and says how texts become tokens: a vocabulary, and in some folders settings."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.model.config_values import read_json
from transforms.casing import is_cased
from transforms.encoder_spec import SPIECE_FILE, VOCAB_FILE, AnyTokenizerSettings, Vocabulary
from transforms.errors import EncoderError
from transforms.sentence_piece import SentencePieceModel, SentencePieceSettings, parse_model
from transforms.wordpiece import TokenizerSettings, check_vocabulary, parse_vocabulary

# Tokenizers that are `tokenization.py` under another name; BertJapaneseTokenizer, for one, is not.
_LIKE_BERTS = re.compile(r"(Distil)?Bert(WordPiece)?Tokenizer(Fast)?|PreTrainedTokenizerFast|TokenizersBackend")
_LIKE_XLNETS = re.compile(r"XLNetTokenizer(Fast)?|PreTrainedTokenizerFast|TokenizersBackend")

# Settings that are either on or off. Null is off, as to transformers, but for `strip_accents`: then it goes with case.
_SWITCHES = {"do_lower_case", "strip_accents", "tokenize_chinese_chars", "keep_accents", "remove_space"}


@dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
  """How one kind of tokenizer is read.

  Attributes:
    file: its vocabulary's name.
    parse: that file's (bytes, name for messages) → vocabulary, checked.
    default_settings: the vocabulary, where there was one → settings where no file says any, as Google's checkpoints.
    default_casing: how those know the casing, as in `Stated`.
    folder_vocabulary: a Hugging Face folder → its vocabulary, from `file` or another.
    folder_settings: a Hugging Face folder → settings, and whether it states the casing.
  """

  file: str
  parse: Callable[[bytes, str], Vocabulary]
  default_settings: Callable[[Vocabulary], AnyTokenizerSettings]
  default_casing: Literal["guessed", "default"]
  folder_vocabulary: Callable[[Path], Vocabulary]
  folder_settings: Callable[[Path], tuple[AnyTokenizerSettings, bool]]

  def read_vocabulary(self, path: Path) -> Vocabulary:
    """Returns the vocabulary in a file of this kind, checked."""
    return self.parse(_read_bytes(path), str(path))


def read_vocab_file(path: Path) -> tuple[str, ...]:
  """Returns the tokens of a `vocab.txt`, checked."""
  return parse_vocabulary(_read_bytes(path), str(path))


def vocabulary_bytes(vocabulary: Vocabulary) -> bytes:
  """Returns the content of the file that an encoder folder has the vocabulary in."""
  if isinstance(vocabulary, SentencePieceModel):
    return vocabulary.data
  return "".join(f"{token}\n" for token in vocabulary).encode()


def _read_bytes(path: Path) -> bytes:
  try:
    return path.read_bytes()
  except FileNotFoundError as error:
    raise EncoderError(f"{path}: not there; give the vocabulary with --vocab") from error
  except OSError as error:
    raise EncoderError(
      f"{path}: cannot be read ({error.strerror or error}); give the vocabulary with --vocab"
    ) from error


def _by_letters(vocabulary: Vocabulary) -> TokenizerSettings:
  """A vocabulary without a capital letter is taken to be of an uncased model."""
  lowercase = not is_cased(vocabulary)
  return TokenizerSettings(lowercase=lowercase, strip_accents=lowercase)


def _wordpiece_vocabulary(folder: Path) -> Vocabulary:
  if (folder / VOCAB_FILE).exists():
    return read_vocab_file(folder / VOCAB_FILE)
  tokenizer = folder / "tokenizer.json"
  if not tokenizer.exists():
    raise EncoderError(f"{folder}: has neither vocab.txt nor tokenizer.json; give the vocabulary with --vocab")
  value = read_json(tokenizer)
  model = value.get("model", {})
  if model.get("type", "WordPiece") != "WordPiece":
    raise EncoderError(f"{tokenizer}: its model is {model.get('type')}, not the WordPiece of a BERT")
  ids = dict(model.get("vocab", {})) | {token["content"]: token["id"] for token in value.get("added_tokens", [])}
  vocabulary = tuple(sorted(ids, key=ids.__getitem__))
  if [ids[token] for token in vocabulary] != list(range(len(vocabulary))):
    raise EncoderError(
      f"{tokenizer}: its token ids are not 0 to {len(vocabulary) - 1}; give the vocabulary with --vocab"
    )
  check_vocabulary(vocabulary, str(tokenizer))
  return vocabulary


def _wordpiece_settings(folder: Path) -> tuple[TokenizerSettings, bool]:
  """What `tokenizer_config.json` says, else `tokenizer.json`, else BERT's defaults: the order that transformers has."""
  stated = _stated(folder, _LIKE_BERTS, "BertTokenizer", "BERT")
  normalizer = (
    read_json(folder / "tokenizer.json").get("normalizer") if (folder / "tokenizer.json").exists() else None
  ) or {}
  if normalizer.get("type", "BertNormalizer") != "BertNormalizer":
    raise EncoderError(f"{folder / 'tokenizer.json'}: its normalizer is {normalizer['type']}, not BertNormalizer")
  lowercase = bool(stated.get("do_lower_case", normalizer.get("lowercase", True)))
  accents = stated.get("strip_accents", normalizer.get("strip_accents"))
  chinese = stated.get("tokenize_chinese_chars", normalizer.get("handle_chinese_chars", True))
  settings = TokenizerSettings(lowercase, lowercase if accents is None else bool(accents), bool(chinese))
  return settings, "do_lower_case" in stated or "lowercase" in normalizer


def _piece_vocabulary(folder: Path) -> Vocabulary:
  if not (folder / SPIECE_FILE).exists():
    found = "tokenizer.json but no" if (folder / "tokenizer.json").exists() else "no"
    raise EncoderError(
      f"{folder}: has {found} spiece.model, by which texts are cut; copy it from the model that this one was trained "
      "from, or give it with --vocab"
    )
  return SENTENCE_PIECE.read_vocabulary(folder / SPIECE_FILE)


def _piece_settings(folder: Path) -> tuple[SentencePieceSettings, bool]:
  """What `tokenizer_config.json` says, else the defaults of both Google and transformers."""
  stated = _stated(folder, _LIKE_XLNETS, "XLNetTokenizer", "XLNet")
  settings = SentencePieceSettings(
    lowercase=bool(stated.get("do_lower_case", False)),
    keep_accents=bool(stated.get("keep_accents", False)),
    remove_space=bool(stated.get("remove_space", True)),
  )
  return settings, "do_lower_case" in stated


def _stated(folder: Path, known: re.Pattern[str], default: str, name: str) -> Mapping[str, Any]:
  """The content of `tokenizer_config.json`, of a class that is known."""
  path = folder / "tokenizer_config.json"
  stated = read_json(path) if path.exists() else {}
  kind = stated.get("tokenizer_class") or default
  if not isinstance(kind, str) or not known.fullmatch(kind) or stated.get("do_basic_tokenize") is False:
    raise EncoderError(f"{path}: {kind} does not tokenise as {name} does; it cannot be frozen")
  for switch in sorted(_SWITCHES & stated.keys()):
    if not isinstance(stated[switch], bool | None):
      raise EncoderError(f"{path}: {switch} is {stated[switch]!r}; write true or false, without quotation marks")
  return stated


WORDPIECE = TokenizerFiles(
  file=VOCAB_FILE,
  parse=parse_vocabulary,
  default_settings=_by_letters,
  default_casing="guessed",
  folder_vocabulary=_wordpiece_vocabulary,
  folder_settings=_wordpiece_settings,
)
SENTENCE_PIECE = TokenizerFiles(
  file=SPIECE_FILE,
  parse=parse_model,
  default_settings=lambda _: SentencePieceSettings(lowercase=False, keep_accents=False, remove_space=True),
  default_casing="default",
  folder_vocabulary=_piece_vocabulary,
  folder_settings=_piece_settings,
)
