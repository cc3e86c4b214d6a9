"""Every layer of a checkpoint in every pooling, from one pass over the texts: for `sorbus evaluate --sweep`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.model.bert_variables import POOLER
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.freeze import FreezeOptions, as_self_test, choose, make_cases
from pipeline.model.read_checkpoint import read_checkpoint
from pipeline.model.readout_numpy import pool_tokens
from transforms.batching import pad_batch, token_budget_batches
from transforms.encoder_spec import ModelConfig, Readout, make_tokenizer
from transforms.errors import EncoderError, UsageError
from transforms.frozen_graph import FrozenGraph
from transforms.tokenizer import Tokenizer

# Those of one layer. Of several, mean and cls are averages of theirs; a maximum of averages is not.
POOLINGS = ("mean", "cls", "max")
POOLINGS_OF_SEVERAL = ("mean", "cls")
_TOKEN_BUDGET = 2048
# Tokens of the longest text that is computed a second time, in NumPy: a check, not a self-test for good.
_LONGEST_CASE = 21
_LIMIT_BYTES = 4 << 30


@dataclass(frozen=True, eq=False)
class LayerVectors:
  """Of M texts.

  Attributes:
    by_pooling: float32 [L + 1, M, H] for each of `POOLINGS`; layer 0 is the embedding output.
    pooler: float32 [M, H], where the checkpoint has one.
  """

  by_pooling: Mapping[str, NDArray[np.float32]]
  pooler: NDArray[np.float32] | None

  @property
  def layers(self) -> int:
    """L."""
    return len(self.by_pooling["mean"]) - 1

  def of(self, readout: Readout) -> NDArray[np.float32]:
    """Returns the vectors float32 [M, H] of a readout: one layer, the average of several, or the pooler."""
    if readout.pooling == "pooler":
      assert self.pooler is not None, readout
      return self.pooler
    layers = self.by_pooling[readout.pooling][list(readout.layers)]
    assert len(layers) == 1 or readout.pooling in POOLINGS_OF_SEVERAL, readout
    return layers.mean(axis=0) if len(layers) > 1 else layers[0]


@dataclass(frozen=True, eq=False)
class AllLayers:
  """A checkpoint that gives all of it.

  Attributes:
    lines: what was taken for granted of its tokeniser, for people.
  """

  config: ModelConfig
  tokenizer: Tokenizer
  lines: tuple[str, ...]
  max_seq_length: int
  has_pooler: bool
  run: Callable[[np.ndarray, np.ndarray], np.ndarray]

  @classmethod
  def load(cls, path: str, options: FreezeOptions) -> "AllLayers":
    """Reads a checkpoint as `sorbus freeze` does, draws its graph, and holds it to NumPy.

    Args:
      path: a checkpoint's folder or prefix.
      options: which files, and how texts are tokenised; what is said there of the readout plays no part.

    Raises:
      EncoderError: no checkpoint, or TensorFlow gives other vectors than NumPy.
      UsageError: options that do not go together.
    """
    checkpoint = read_checkpoint(
      path, bert_config=options.bert_config, vocab=options.vocab, activation=options.activation
    )
    choices = choose(checkpoint, options)
    has_pooler = all(f"{POOLER}/{name}" in checkpoint.variables for name in ("kernel", "bias"))
    L = checkpoint.config.layers
    variables = checkpoint.used(Readout("pooler" if has_pooler else "mean", (L,)))
    build = checkpoint.architecture.build_all_layers
    graph, names = build(variables, checkpoint.config, POOLINGS, pooler=has_pooler)
    loaded = cls(
      checkpoint.config,
      make_tokenizer(checkpoint.vocabulary, choices.tokenizer, choices.max_seq_length),
      tuple(line for line in choices.lines if line.startswith(("max-seq-length:", "casing:", "warning:"))),
      choices.max_seq_length,
      has_pooler,
      FrozenGraph(graph, names).encode,
    )
    _check(loaded, checkpoint)
    return loaded

  def encode_texts(self, texts: Sequence[str]) -> LayerVectors:
    """Returns the vectors of M texts, each with a token, in their order.

    Raises:
      UsageError: they would fill a machine.
    """
    tokens = self.tokenizer.tokenise(texts)
    H, n = self.config.hidden_size, len(POOLINGS) * (self.config.layers + 1) + self.has_pooler
    if (size := len(texts) * n * H * 4) > _LIMIT_BYTES:
      possible = len(texts) * _LIMIT_BYTES // size // 2  # pairs
      raise UsageError(
        f"--sweep: {n} vectors for each of {len(texts):,} texts take {size / 1e9:.1f} GB; give --sample {possible}"
      )
    vectors = np.empty((n, len(texts), H), np.float32)
    for rows in token_budget_batches(tokens.lengths, _TOKEN_BUDGET):
      found = self.run(*pad_batch(tokens.input_ids, tokens.offsets, rows))  # [B, n · H]
      vectors[:, rows] = found.reshape(len(rows), n, H).transpose(1, 0, 2)
    return self._named(vectors)

  def _named(self, vectors: NDArray[np.float32]) -> LayerVectors:
    """Takes float32 [n, M, H] apart, in the order of `build_all_layers`."""
    step = self.config.layers + 1
    named = {pooling: vectors[i * step : (i + 1) * step] for i, pooling in enumerate(POOLINGS)}
    return LayerVectors(named, vectors[-1] if self.has_pooler else None)


def _check(loaded: AllLayers, checkpoint: Checkpoint) -> None:
  """Raises EncoderError where TensorFlow gives other vectors than an independent forward pass in float64.

  Why: its kernels have given wrong layer normalisations without a word (docs/numerics.md).
  """
  cases = make_cases(loaded.tokenizer, min(loaded.max_seq_length, _LONGEST_CASE))
  flat = np.concatenate([np.array(case, np.int32) for case in cases])
  batch = pad_batch(flat, np.cumsum([0, *map(len, cases)]), np.arange(len(cases)))
  expected = [_expected(checkpoint, case) for case in cases]
  found = loaded.run(*batch)[:, : len(expected[0])]
  error, tolerance = np.abs(found - expected).max(), as_self_test(cases, expected).tolerance
  if not error <= tolerance:
    raise EncoderError(
      f"{checkpoint.name}: TensorFlow's vectors of all layers are off by {error:.1e} on this machine, and "
      f"{tolerance:.1e} is allowed; set TF_ENABLE_ONEDNN_OPTS=0 and try again"
    )


def _expected(checkpoint: Checkpoint, case: Sequence[int]) -> NDArray[np.float64]:
  config, model = checkpoint.config, checkpoint.architecture
  layers = list(model.layer_outputs(checkpoint.variables, config, case, config.layers))
  return np.concatenate([pool_tokens(x, Readout(pooling, ()), model.framing) for pooling in POOLINGS for x in layers])
