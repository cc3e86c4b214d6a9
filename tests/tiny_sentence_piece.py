"""A SentencePiece model as XLNet's are, but tiny: trained where it is needed, in a second, always the same."""

import functools
import io
import random

from sentencepiece import SentencePieceTrainer

from transforms.sentence_piece import SentencePieceModel, SentencePieceSettings, parse_model

XLNET = SentencePieceSettings(lowercase=False, keep_accents=False, remove_space=True)
# XLNet's own, in its order: ids 3 to 8, behind <unk>, <s> and </s>.
CONTROL = ("<cls>", "<sep>", "<pad>", "<mask>", "<eod>")
_SYLLABLES = ("ra", "in", "the", "sun", "to", "me", "Pa", "ris", "un", "ing", "er", "мо", "ре", "ка")
_IDEOGRAPHS = "天地人大中文上海银行打开文件怎样一个"
_NUMBERS = ("1995,", "2,", "12,000", "3.5", "1995", "7")


def train(texts, vocab_size, **options):
  """Returns the bytes of a model; keeps silent."""
  file = io.BytesIO()
  SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_writer=file,
    vocab_size=vocab_size,
    minloglevel=2,
    num_threads=1,
    **({"control_symbols": list(CONTROL), "user_defined_symbols": ["<eop>"]} | options),
  )
  return file.getvalue()


def made_texts(n=600, seed=0):
  """English, Russian and Chinese in no language: words, numbers with commas, and runs of ideographs."""
  generator = random.Random(seed)
  words = ["".join(generator.choices(_SYLLABLES, k=generator.randrange(1, 4))) for _ in range(80)]
  words += ["".join(generator.choices(_IDEOGRAPHS, k=generator.randrange(1, 3))) for _ in range(40)]
  for _ in range(n):
    parts = []
    for _ in range(generator.randrange(1, 25)):
      parts.append(generator.choice(words if generator.random() < 0.85 else _NUMBERS))
      parts.append(generator.choice(["", " ", " ", " ", ", ", ". ", "。", '" ', "ï "]))
    yield "".join(parts).strip() or "sun"


@functools.cache
def tiny_bytes():
  """The bytes of the model."""
  return train(made_texts(), 220)


def tiny_model() -> SentencePieceModel:
  """The model, checked."""
  return parse_model(tiny_bytes(), "tiny")
