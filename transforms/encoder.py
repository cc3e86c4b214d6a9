"""An encoder: its spec, its tokenizer, and a function from token batches to raw vectors.

TensorFlow is imported only when a real one is loaded. Tests and benchmarks make an `Encoder` with a function of
their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from transforms.batching import pad_batch, token_budget_batches
from transforms.encoder_files import read_checked
from transforms.encoder_spec import (
  FORMAT_VERSION,
  GRAPH_FILE,
  POOLINGS_LIKE_TOKENS,
  EncoderSpec,
  load_tokenizer,
  read_spec,
  read_vocabulary,
)
from transforms.errors import UsageError
from transforms.long_texts import TRUNCATED, LongTexts
from transforms.long_tokens import tokenise_long
from transforms.self_test import check_probabilities, check_vectors
from transforms.token_arrays import check_token_arrays
from transforms.token_spans import Spans, SpanVectors, locate_tokens, span_vectors, tokens_of_spans
from transforms.tokenizer import Tokenizer
from transforms.window_pool import WindowPool, Windows

__all__ = [
  "FORMAT_VERSION",
  "Encoder",
  "EncoderSpec",
  "SpanVectors",
  "check_encoder",
  "load_encoder",
  "load_tokenizer",
  "read_spec",
  "read_vocabulary",
]


@dataclass(frozen=True)
class Encoder:
  """What turns texts into raw vectors. Safe to share between threads.

  Attributes:
    run: (input_ids, input_mask), both int32 [B, T] → float32 [B, W], with W the spec's `vector_size`.
    run_head: the same → (float32 [B, W], float32 [B, n_labels]), where the spec has a head.
    run_tokens: the same → float32 [B, T, C], what is pooled; not every graph has it.
    self_test_error: the largest error of a vector that its self-test found when it was loaded, absolute in float32 and
      1 - cosine in bfloat16; None where none was run.
  """

  spec: EncoderSpec
  tokenizer: Tokenizer
  run: Callable[[np.ndarray, np.ndarray], np.ndarray]
  run_head: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None
  run_tokens: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
  self_test_error: float | None = None

  @classmethod
  def open(cls, encoder_dir: str, threads: int | None = None, *, precision: str = "float32") -> "Encoder":
    """Loads an encoder folder; takes and raises what `load_encoder` does."""
    return load_encoder(encoder_dir, threads, precision=precision)

  def encode(self, input_ids: np.ndarray, input_mask: np.ndarray) -> np.ndarray:
    """Returns the raw vectors float32 [B, W] of a batch of token sequences.

    Args:
      input_ids: any integers [B, T], each sequence with the specials around it, then padding of whatever id.
      input_mask: [B, T], 1 on tokens and 0 on padding.

    Raises:
      ValueError: the arrays are not that (`token_arrays.py`).
      EncoderError: they cannot be computed, or not in the memory that there is.
    """
    return self.run(*check_token_arrays(self.spec, input_ids, input_mask))

  def encode_and_predict(self, input_ids: np.ndarray, input_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns raw vectors and the head's probabilities, float32 [B, n_labels]; n_labels is 0 without a head.

    Takes and raises what `encode` does.
    """
    if self.run_head is None:
      return self.encode(input_ids, input_mask), np.empty((len(input_ids), 0), np.float32)
    return self.run_head(*check_token_arrays(self.spec, input_ids, input_mask))

  def encode_texts(self, texts: Sequence[str], token_budget: int = 2048) -> np.ndarray:
    """Returns raw vectors float32 [N, W] of N texts, in their order, of long ones as `spec.long_texts` says.

    Raises:
      ValueError: a text has no token but the specials.
    """
    return self._encode_texts(texts, token_budget)[0]

  def predict(self, texts: Sequence[str], token_budget: int = 2048) -> np.ndarray:
    """Returns the head's probabilities, float32 [N, n_labels], of N texts; their names are `spec.labels`.

    Raises:
      ValueError: a text has no token but the specials.
      UsageError: the encoder has no head.
    """
    if self.run_head is None:
      raise UsageError("this encoder has no head to predict with; freeze its checkpoint with --head softmax or sigmoid")
    return self._encode_texts(texts, token_budget)[1]

  def encode_spans(self, text: str, spans: Spans) -> SpanVectors:
    """Returns the vectors of words or phrases in their text, and how similar each is to the text as a whole.

    Args:
      text: what stands beyond `max_seq_length` tokens is cut off, as ever.
      spans: (start, end) of each in characters, as in `text[start:end]`. A span has every token that it touches.

    Raises:
      ValueError: a span is not one of the text, has no token, or has one that was cut off.
      UsageError: the encoder gives no vectors of tokens, or a text's vector is not of their kind.
    """
    if self.run_tokens is None:
      raise UsageError(
        "this encoder gives no vectors of tokens: its graph gives one vector a text, or an earlier sorbus froze it; "
        "freeze the checkpoint again"
      )
    self._check_texts_are_like_tokens()
    tokens = locate_tokens(self.tokenizer, text)
    members = tokens_of_spans(tokens, spans)
    batch = tokens.input_ids[None], np.ones((1, len(tokens.input_ids)), np.int32)
    hidden = self.run_tokens(*batch)[0, : len(tokens.input_ids)]  # a graph of fixed T may give padding with it
    return span_vectors(members, hidden, self.encode(*batch)[0])

  def _check_texts_are_like_tokens(self) -> None:
    if self.spec.pooling not in POOLINGS_LIKE_TOKENS:
      raise UsageError(
        f"pooling {self.spec.pooling} gives a text a vector of another kind than its tokens have, so they cannot be "
        f"compared; freeze again with --pooling {', '.join(POOLINGS_LIKE_TOKENS[:-1])} or {POOLINGS_LIKE_TOKENS[-1]}"
      )

  def _encode_texts(self, texts: Sequence[str], token_budget: int) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(texts, str):  # a sequence of texts too, a letter each
      raise ValueError(f"texts: expected several, got {texts[:40]!r}; one text is [text]")
    tokens = tokenise_long(self.tokenizer, texts, self.spec.long_texts)
    if len(empty := np.flatnonzero(tokens.lengths == 2)):
      raise ValueError(
        f"text {empty[0]} ({texts[empty[0]][:40]!r}) has no token but the special ones, so it has no vector"
      )
    vectors = np.empty((len(texts), self.spec.vector_size), np.float32)
    probabilities = np.empty((len(texts), len(self.spec.labels)), np.float32)
    windows = Windows.find(tokens.input_ids, tokens.offsets, self.tokenizer.before, self.tokenizer.after)
    pool = WindowPool(windows)
    for rows in token_budget_batches(windows.lengths, token_budget):
      batch = pad_batch(tokens.input_ids, windows.offsets, rows)
      done, encoded = pool.add(rows, *self.encode_and_predict(*batch))
      vectors[done], probabilities[done] = encoded
    return vectors, probabilities


def load_encoder(
  encoder_dir: str, threads: int | None = None, *, precision: str = "float32", long_texts: LongTexts = TRUNCATED
) -> Encoder:
  """Loads an encoder folder (a path or any fsspec URL) and runs its self-test.

  Args:
    encoder_dir: what `sorbus freeze` wrote.
    threads: for one operation; every core by default.
    precision: `float32` or `bfloat16`, of products inside the graph; vectors are float32 in either.
    long_texts: what `encode_texts` makes of texts that do not fit, as a run did.

  Raises:
    ValueError: there is no such precision.
    EncoderError: a file is missing, changed or not sound, or the vectors are not those that the encoder should give.
  """
  spec = read_spec(encoder_dir).at(precision).with_long_texts(long_texts)
  tokenizer = load_tokenizer(encoder_dir, spec)
  graph = read_checked(encoder_dir, GRAPH_FILE, spec.graph_sha256)
  from transforms.frozen_graph import FrozenGraph

  frozen = FrozenGraph(graph, spec.tensors, threads=threads, precision=precision)
  del graph  # the self-test starts the session, which copies the weights several times: not beside one more
  encoder = Encoder(
    spec,
    tokenizer,
    frozen.encode,
    frozen.encode_and_predict if spec.head else None,
    frozen.encode_tokens if spec.tensors.hidden else None,
  )
  return replace(encoder, self_test_error=check_encoder(encoder))


def check_encoder(encoder: Encoder) -> float:
  """Runs the self-test and returns the largest error of a vector, in the unit of `self_test.tolerance`.

  Why at every start: TensorFlow's oneDNN kernels have given wrong layer normalisations without a word, and a worker's
  machine is not the one that froze the encoder.

  Raises:
    EncoderError: an error is larger than the tolerance, or not a number.
  """
  every = list(range(len(encoder.spec.self_test.cases)))
  alone = [_check_cases(encoder, [i]) for i in every]  # without padding
  return max(*alone, _check_cases(encoder, every))  # with padding, which must change nothing


def _check_cases(encoder: Encoder, cases: list[int]) -> float:
  """Encodes cases of the self-test as one batch; returns the error of their vectors if it is small enough."""
  spec = encoder.spec
  sequences = [np.array(spec.self_test.cases[i], np.int32) for i in cases]
  batch = pad_batch(np.concatenate(sequences), np.cumsum([0, *map(len, sequences)]), np.arange(len(cases)))
  vectors, probabilities = encoder.encode_and_predict(*batch)
  error = check_vectors(spec, cases, vectors)
  if spec.head:
    check_probabilities(spec, cases, probabilities)
  return error
