"""What a checkpoint holds, before a weight is read: what `sorbus freeze` loads from and `sorbus show` describes."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

from pipeline.model.architecture import Architecture
from pipeline.model.checkpoint import (
  Checkpoint,
  Load,
  Stated,
  check_shapes,
  check_vocabulary_size,
  load_variables,
)
from pipeline.model.shapes import Shapes
from transforms.encoder_spec import AnyTokenizerSettings, ModelConfig, Vocabulary
from transforms.errors import EncoderError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CheckpointListing(Stated):
  """A checkpoint as far as it can be read without its weights; what cannot be read is None or empty, and a problem.

  Attributes:
    architecture: what kind of network it is, by its configuration or its variables.
    config: the sizes, by its configuration.
    vocabulary, tokenizer: as in `Checkpoint`.
    shapes: of all its variables, by Google's names, or their own where Google has none.
    problems: what keeps it from being frozen, in the order in which it was found.
    load_from: gives weights.
  """

  architecture: Architecture
  config: ModelConfig | None
  vocabulary: Vocabulary | None
  tokenizer: AnyTokenizerSettings | None
  shapes: Shapes
  problems: tuple[EncoderError, ...]
  load_from: Load

  def load(self) -> Checkpoint:
    """Returns the checkpoint with the weights that an encoder can have a use for.

    Raises:
      EncoderError: the first problem, or a weight cannot be read, or is not finite.
    """
    for problem in self.problems:
      raise problem
    assert self.config and self.vocabulary and self.tokenizer, "what cannot be read is a problem"
    wanted = [name for name in self.architecture.useful_names(self.config) if name in self.shapes]
    return self._checkpoint(load_variables(self.name, wanted, self.load_from))

  def outline(self) -> Checkpoint | None:
    """Returns the checkpoint with weights of the right shapes that are all 0 and take no memory, or None.

    What could be made of the checkpoint is asked of this by the same code that makes it.
    """
    if not (self.config and self.vocabulary and self.tokenizer):
      return None
    return self._checkpoint({name: np.broadcast_to(np.float32(0), shape) for name, shape in self.shapes.items()})

  def _checkpoint(self, variables: dict[str, np.ndarray]) -> Checkpoint:
    assert self.config and self.vocabulary and self.tokenizer, self.problems
    return Checkpoint(
      **{field.name: getattr(self, field.name) for field in fields(Stated)},
      config=self.config,
      variables=variables,
      vocabulary=self.vocabulary,
      tokenizer=self.tokenizer,
      ignored=len(self.shapes) - len(variables),
    )


class Attempts:
  """Steps of reading, each of which may fail without ending the others.

  Attributes:
    problems: why steps failed.
  """

  def __init__(self) -> None:
    self.problems: list[EncoderError] = []

  def to(self, step: Callable[[], T]) -> T | None:
    """Returns what a step returns, or None and keeps the problem."""
    try:
      return step()
    except EncoderError as error:
      self.problems.append(error)
      return None

  def to_match(
    self,
    name: str,
    architecture: Architecture,
    config: ModelConfig | None,
    shapes: Shapes,
    vocab_name: str,
    vocabulary: Vocabulary | None,
  ) -> None:
    """Checks against each other what could be read of configuration, variables and vocabulary."""
    if vocabulary and (rows := _rows(architecture, config, shapes)):
      self.to(lambda: check_vocabulary_size(vocab_name, vocabulary, rows))
    if config and shapes:
      self.to(lambda: check_shapes(name, config, shapes))


def _rows(architecture: Architecture, config: ModelConfig | None, shapes: Shapes) -> int | None:
  """How many tokens the weights are for."""
  table = shapes.get(architecture.word_embeddings)
  return table[0] if table else config.vocab_size if config else None
