"""An encoder: its spec, its tokenizer, and a function from token batches to raw vectors.

TensorFlow is imported only when a real one is loaded. Tests and benchmarks make an `Encoder` with a function of
their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from transforms.batching import pad_batch, token_budget_batches
from transforms.encoder_spec import (
  FORMAT_VERSION,
  GRAPH_FILE,
  EncoderSpec,
  SelfTest,
  check_sha256,
  load_wordpiece,
  read_bytes,
  read_spec,
  read_vocabulary,
)
from transforms.errors import EncoderError
from transforms.wordpiece import Wordpiece

__all__ = [
  "FORMAT_VERSION",
  "Encoder",
  "EncoderSpec",
  "check_encoder",
  "load_encoder",
  "load_wordpiece",
  "read_spec",
  "read_vocabulary",
]


@dataclass(frozen=True)
class Encoder:
  """What turns texts into raw vectors. Safe to share between threads.

  Attributes:
    encode: (input_ids, input_mask), both int32 [B, T] → float32 [B, W], with W the spec's `vector_size`.
  """

  spec: EncoderSpec
  wordpiece: Wordpiece
  encode: Callable[[np.ndarray, np.ndarray], np.ndarray]

  def encode_texts(self, texts: Sequence[str], token_budget: int = 2048) -> np.ndarray:
    """Returns raw vectors float32 [N, W] of N texts, in their order.

    Raises:
      ValueError: a text has no token but the specials.
    """
    tokens = self.wordpiece.tokenise(texts)
    if len(empty := np.flatnonzero(tokens.lengths == 2)):
      raise ValueError(
        f"text {empty[0]} ({texts[empty[0]][:40]!r}) has no token but [CLS] and [SEP], so it has no vector"
      )
    return self._encode_tokens(tokens.input_ids, tokens.offsets, token_budget)

  def _encode_tokens(self, input_ids: np.ndarray, offsets: np.ndarray, token_budget: int) -> np.ndarray:
    vectors = np.empty((len(offsets) - 1, self.spec.vector_size), np.float32)
    for rows in token_budget_batches(np.diff(offsets), token_budget):
      vectors[rows] = self.encode(*pad_batch(input_ids, offsets, rows))
    return vectors


def load_encoder(encoder_dir: str, threads: int | None = None) -> Encoder:
  """Loads an encoder folder (a path or any fsspec URL) and runs its self-test.

  Args:
    encoder_dir: what `sorbus freeze` wrote.
    threads: for one operation; every core by default.

  Raises:
    EncoderError: a file is missing, changed or not sound, or the vectors are not those that the encoder should give.
  """
  from transforms.frozen_graph import FrozenGraph

  spec = read_spec(encoder_dir)
  wordpiece = load_wordpiece(encoder_dir, spec)
  graph = read_bytes(encoder_dir, GRAPH_FILE)
  check_sha256(graph, spec.graph_sha256, f"{encoder_dir}/{GRAPH_FILE}")
  names = spec.tensors
  frozen = FrozenGraph(
    graph, input_ids=names.input_ids, input_mask=names.input_mask, output=names.output, threads=threads
  )
  encoder = Encoder(spec, wordpiece, frozen.encode)
  check_encoder(encoder)
  return encoder


def check_encoder(encoder: Encoder) -> float:
  """Runs the self-test and returns the largest error found.

  Why at every start: TensorFlow's oneDNN kernels have given wrong layer normalisations without a word, and a worker's
  machine is not the one that froze the encoder.

  Raises:
    EncoderError: an error is larger than the tolerance, or not a number.
  """
  test = encoder.spec.self_test
  error = max(_error_alone(encoder, test), _error_together(encoder, test))
  if not error <= test.tolerance:  # so that NaN fails
    raise EncoderError(
      f"encoder {encoder.spec.fingerprint[:12]}: self-test off by {error:.3g}, more than {test.tolerance:.3g}: this "
      "machine computes other vectors than those it was frozen with; try TF_ENABLE_ONEDNN_OPTS=0, or another TensorFlow"
    )
  return error


def _error_alone(encoder: Encoder, test: SelfTest) -> float:
  """Each case as a batch of its own, without padding."""
  pairs = zip(test.cases, test.vectors, strict=True)
  return max(_error(encoder, np.array([case], np.int32), np.ones((1, len(case)), np.int32), [v]) for case, v in pairs)


def _error_together(encoder: Encoder, test: SelfTest) -> float:
  """All cases in one batch: padding must change nothing."""
  offsets = np.cumsum([0, *map(len, test.cases)])
  flat = np.concatenate([np.array(case, np.int32) for case in test.cases])
  return _error(encoder, *pad_batch(flat, offsets, np.arange(len(test.cases))), test.vectors)


def _error(
  encoder: Encoder, input_ids: np.ndarray, input_mask: np.ndarray, expected: Sequence[Sequence[float]]
) -> float:
  vectors, wanted = encoder.encode(input_ids, input_mask), np.array(expected)
  if vectors.shape != wanted.shape:
    raise EncoderError(f"encoder {encoder.spec.fingerprint[:12]}: gives vectors {vectors.shape}, not {wanted.shape}")
  return float(np.abs(vectors - wanted).max())
