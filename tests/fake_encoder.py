"""An encoder without a network, for tests of the loop and for benchmarks of everything but encoding.

A text's vector is the mean of its tokens' rows in a random table: it depends on the text, and on nothing else.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from pipeline.graph import Loaders
from transforms.encoder import Encoder, EncoderSpec
from transforms.encoder_spec import BertConfig, Head, SelfTest, Source, TensorNames
from transforms.errors import EncoderError
from transforms.storage import sha256
from transforms.wordpiece import SPECIAL_TOKENS, TokenizerSettings, Wordpiece

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"-()"


def make_vocabulary(texts: Iterable[str], words: int = 5000) -> tuple[str, ...]:
  """Returns specials, letters, and the most frequent words of some texts, so that tokens are as long as real ones."""
  counts = Counter(word for text in texts for word in re.findall(r"[a-z]{2,}", text.lower()))
  frequent = sorted(counts, key=lambda word: (-counts[word], word))[:words]
  return tuple(dict.fromkeys([*SPECIAL_TOKENS, *LETTERS, *(f"##{c}" for c in LETTERS), *frequent]))


def make_spec(vocabulary: Sequence[str], hidden_size: int, max_seq_length: int, name: str = "fake") -> EncoderSpec:
  """Returns the spec that a fake encoder goes by."""
  config = BertConfig(
    vocab_size=len(vocabulary),
    hidden_size=hidden_size,
    layers=1,
    heads=1,
    intermediate_size=1,
    max_position_embeddings=512,
    type_vocab_size=2,
    activation="gelu_erf",
    layer_norm_eps=1e-12,
  )
  return EncoderSpec(
    fingerprint="",
    source=Source("fake", name),
    config=config,
    layers=(1,),
    pooling="mean",
    max_seq_length=max_seq_length,
    tokenizer=TokenizerSettings(True, True),
    tensors=TensorNames("input_ids", "input_mask", "output"),
    weights_sha256=name,
    vocab_sha256=sha256("\n".join(vocabulary).encode()),
    graph_sha256="",
    self_test=SelfTest((), (), 0.0),
    versions={},
  ).with_fingerprint()


class FakeEncoder:
  """A table of random rows, made where it is used: a pickled copy is small."""

  def __init__(
    self,
    vocabulary: Sequence[str],
    hidden_size: int = 64,
    max_seq_length: int = 128,
    name: str = "fake",
    labels: Sequence[str] = (),
  ):
    self.vocabulary, self.hidden_size = tuple(vocabulary), hidden_size
    self.spec = make_spec(vocabulary, hidden_size, max_seq_length, name)
    if labels:
      self.spec = replace(self.spec, head=Head("sigmoid", tuple(labels))).with_fingerprint()

  @functools.cached_property
  def _table(self) -> np.ndarray:
    # A decaying scale, so that the components differ in variance as real ones do.
    scale = np.linspace(1.0, 0.1, self.hidden_size)
    return (np.random.default_rng(7).normal(0.3, 1, (len(self.vocabulary), self.hidden_size)) * scale).astype(
      np.float32
    )

  def encode(self, input_ids: np.ndarray, input_mask: np.ndarray) -> np.ndarray:
    """(int32 [B, T], int32 [B, T]) → float32 [B, H]."""
    lengths = input_mask.sum(axis=1)
    starts = np.cumsum(lengths) - lengths
    # Summed within each row's own tokens, in their order: no row can depend on another, or on padding.
    sums = np.add.reduceat(self._table[input_ids[input_mask > 0]], starts, axis=0)
    return np.asarray(sums / lengths[:, None].astype(np.float32))

  def encode_and_predict(self, input_ids: np.ndarray, input_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, with a probability for each label that is the sigmoid of one of the vector's numbers."""
    vectors = self.encode(input_ids, input_mask)
    return vectors, 1 / (1 + np.exp(-vectors[:, : len(self.spec.labels)]))

  def load(self) -> Encoder:
    """Returns the Encoder."""
    return Encoder(self.spec, self.load_tokenizer(), self.encode, self.encode_and_predict if self.spec.head else None)

  def load_tokenizer(self) -> Wordpiece:
    """Returns its tokeniser."""
    return Wordpiece(self.vocabulary, self.spec.tokenizer, self.spec.max_seq_length)

  def loaders(self) -> Loaders:
    """Returns what `embed` takes."""
    return Loaders(self.load_tokenizer, self.load)


class FailingEncoder(FakeEncoder):
  """Cannot compute a batch with the word `red` in it while it is broken, nor one of more than `most` rows."""

  def __init__(self, texts: Iterable[str], *, broken: bool = True, most: int = 1000):
    super().__init__(make_vocabulary([*texts, "red"]), 16)
    self.broken, self.most = broken, most

  def encode(self, input_ids: np.ndarray, input_mask: np.ndarray) -> np.ndarray:
    """Raises EncoderError, or does as ever."""
    if self.broken and (input_ids == self.vocabulary.index("red")).any():
      raise EncoderError("graph: node 'x' cannot be computed (red); freeze again")
    if len(input_ids) > self.most:
      raise EncoderError("graph: cannot be computed (out of memory); give a smaller --token-budget")
    return super().encode(input_ids, input_mask)
