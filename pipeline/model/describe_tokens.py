"""What a vocabulary and a casing make of texts: the part that descriptions of checkpoints and encoders share."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from transforms.casing import casing_warning, fit_casing, is_cased, strips_accents
from transforms.encoder_spec import AnyTokenizerSettings, Vocabulary, make_tokenizer
from transforms.errors import SorbusError
from transforms.text_sample import Sample, measure, read_sample


def describe_vocabulary(vocabulary: Vocabulary, casings: Sequence[AnyTokenizerSettings]) -> dict[str, Any]:
  """Returns the size of a vocabulary, whether it has capitals, and how it fares under each casing."""
  return {
    "tokens": len(vocabulary),
    "cased": is_cased(vocabulary),
    "casings": [
      _casing(settings) | asdict(fit := fit_casing(vocabulary, settings)) | {"fits": fit.fits} for settings in casings
    ],
  }


def casing_warnings(vocabulary: Vocabulary, settings: AnyTokenizerSettings) -> list[str]:
  """Returns what to tell a person if the casing does not go with the vocabulary."""
  warning = casing_warning(fit_casing(vocabulary, settings), settings)
  return [warning] if warning else []


def describe_sample(
  sample: Sample, vocabulary: Vocabulary, casings: Sequence[AnyTokenizerSettings], max_seq_length: int
) -> dict[str, Any]:
  """Returns how many tokens of the first texts of a file are unknown, and how many texts truncated, by casing.

  If they cannot be read, it returns why, as `problem`: it is none of the model's, which is described all the same.
  """
  try:
    texts = read_sample(sample)
  except SorbusError as error:
    return {"file": sample.pattern, "problem": str(error)}
  rates = [measure(texts, make_tokenizer(vocabulary, settings, max_seq_length)) for settings in casings]
  return {
    "file": sample.pattern,
    "texts": len(texts),
    "max_seq_length": max_seq_length,
    "casings": [_casing(settings) | asdict(rate) for settings, rate in zip(casings, rates, strict=True)],
  }


def _casing(settings: AnyTokenizerSettings) -> dict[str, Any]:
  return {"lowercase": settings.lowercase, "strip_accents": strips_accents(settings)}
