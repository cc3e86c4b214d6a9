import string

import pytest

from transforms.casing import CasingFit, casing_warning, fit_casing, is_cased, other_casing
from transforms.sentence_piece import SentencePieceSettings, parse_model
from transforms.wordpiece import TokenizerSettings, parse_vocabulary

UNCASED, CASED = TokenizerSettings(True, True), TokenizerSettings(False, False)
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<S>")
LETTERS = tuple(string.ascii_lowercase) + tuple(f"##{c}" for c in string.ascii_lowercase)
CAPITALS = tuple(string.ascii_uppercase)


def official(shared_data, name):
  path = shared_data / "vocab" / f"bert-base-{name}.vocab.txt"
  return parse_vocabulary(path.read_bytes(), path.name)


# For each official vocabulary and casing: tokens that can never occur, percent of words unknown, percent in pieces.
OFFICIAL = {
  "uncased": {UNCASED: (0, 0, 0), CASED: (0, 100, 0)},
  "chinese": {UNCASED: (0, 0, 0), CASED: (0, 100, 0)},
  "cased": {UNCASED: (8826, 0, 20.6), CASED: (0, 0.7, 0)},
  "multilingual-cased": {UNCASED: (39713, 0.1, 29.0), CASED: (0, 0.7, 0)},
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_vocabularies_fit_their_own_casing_and_no_other(shared_data, name):
  vocabulary = official(shared_data, name)
  for settings, expected in OFFICIAL[name].items():
    fit = fit_casing(vocabulary, settings)
    assert (fit.unused, round(100 * fit.unknown, 1), round(100 * fit.in_pieces, 1)) == expected
    assert fit.fits == (settings.lowercase != is_cased(vocabulary)) == (casing_warning(fit, settings) is None)


def test_accents_that_are_stripped_from_a_cased_vocabulary_are_warned_of(shared_data):
  settings = TokenizerSettings(lowercase=False, strip_accents=True)
  for name, unused in (("cased", "593 of the vocabulary's 28,996"), ("multilingual-cased", "22,729 of the")):
    warning = casing_warning(fit_casing(official(shared_data, name), settings), settings)
    assert f"not lower-cased, their accents stripped, but {unused}" in warning and "--no-strip-accents" in warning


def test_a_small_vocabulary():
  uncased, cased = SPECIALS + LETTERS + ("rain",), SPECIALS + LETTERS + CAPITALS + ("rain", "Paris")
  assert fit_casing(uncased, UNCASED) == CasingFit(len(uncased), 0, 0.0, 0.0)
  assert fit_casing(uncased, CASED) == CasingFit(len(uncased), 0, 1.0, 0.0)
  assert fit_casing(cased, CASED) == CasingFit(len(cased), 0, 0.0, 0.0)
  fit = fit_casing(cased, UNCASED)  # of a to z, A to Z, rain and Paris only "paris" is more than one token
  assert fit == CasingFit(len(cased), 27, 0.0, 1 / 54)
  assert casing_warning(fit, UNCASED) == (
    "texts are lower-cased, their accents stripped, but 27 of the vocabulary's 85 tokens have capitals and can then "
    "never occur: 1.9% of its words fall into pieces, 0.0% become [UNK] where they begin a sentence; "
    "is --no-lowercase meant?"
  )


def test_a_vocabulary_without_capitals_to_speak_of_has_nothing_to_say():
  vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "白", "##白", "。", "1", "", " ", "\u2028")
  assert fit_casing(vocabulary, CASED).fits and fit_casing(vocabulary, UNCASED).fits


def test_the_other_casing_is_googles():
  assert other_casing(UNCASED) == CASED and other_casing(CASED) == UNCASED
  assert other_casing(TokenizerSettings(True, False, False)) == TokenizerSettings(False, False, False)


def test_casing_is_read_from_the_vocabulary(shared_data):
  assert {name: is_cased(official(shared_data, name)) for name in OFFICIAL} == {
    "uncased": False,
    "chinese": False,
    "cased": True,
    "multilingual-cased": True,
  }


# As OFFICIAL; of an XLNet's model.
XLNETS = {(False, False): (0, 0.0, 0.0), (True, False): (11000, 0.0, 23.3), (False, True): (0, 0.0, 0.0)}


@pytest.mark.parametrize(("lowercase", "keep_accents"), XLNETS)
def test_googles_xlnet_fits_texts_as_they_stand(shared_data, lowercase, keep_accents):
  model = parse_model((shared_data / "vocab" / "xlnet.spiece.model").read_bytes(), "xlnet.spiece.model")
  settings = SentencePieceSettings(lowercase, keep_accents, remove_space=True)
  fit = fit_casing(model, settings)
  assert (fit.unused, round(100 * fit.unknown, 1), round(100 * fit.in_pieces, 1)) == XLNETS[lowercase, keep_accents]
  assert is_cased(model) and fit.fits != lowercase and other_casing(settings).lowercase != lowercase
  warning = casing_warning(fit, settings)
  remedy = "become <unk> where they begin a sentence; is --no-lowercase meant?"
  assert warning is None if fit.fits else remedy in warning
