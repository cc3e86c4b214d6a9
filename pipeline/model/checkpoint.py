"""A checkpoint as a value, whatever it was read from: sizes, vocabulary, and weights under Google's names."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.model.architecture import Architecture, architecture_of
from pipeline.model.bert_variables import HEAD_BIAS, HEAD_WEIGHTS, POOLER, mix_shapes
from pipeline.model.shapes import Shapes
from transforms.encoder_spec import (
  SPIECE_FILE,
  VOCAB_FILE,
  AnyTokenizerSettings,
  BertConfig,
  ModelConfig,
  Pooling,
  Readout,
  Vocabulary,
)
from transforms.errors import EncoderError
from transforms.sentence_piece import SentencePieceModel

# Loads variables by Google's names, one after the other.
Load = Callable[[Iterable[str]], Iterator[tuple[str, np.ndarray]]]


@dataclass(frozen=True)
class StatedClassifier:
  """What a Hugging Face `config.json` says of the classifier, as it stands there: it matters only to a head.

  Attributes:
    architectures: such as `BertForSequenceClassification`.
    id2label: names of the labels, by their ids.
    problem_type: `single_label_classification`, `multi_label_classification` or `regression`.
  """

  architectures: Any = None
  id2label: Any = None
  problem_type: Any = None


@dataclass(frozen=True, kw_only=True)
class Stated:
  """What a checkpoint says of itself besides its sizes.

  Attributes:
    kind: `google`, `hugging-face` or `sentence-transformers`.
    name: the folder or prefix as the user named it, for messages.
    casing: how its casing is known: the folder states it, it is guessed from the vocabulary, or the model's default.
    has_classifier: it was fine-tuned with a classifier on top of the pooler.
    pooling, layers, max_seq_length: what the folder states, None where it states nothing.
    for_cosine: it was trained so that cosines of its vectors mean similarity as they are.
    notes: what its user should know.
    classifier: what the folder states of a classifier on top.
  """

  kind: str
  name: str
  casing: Literal["stated", "guessed", "default"]
  has_classifier: bool
  pooling: Pooling | None = None
  layers: tuple[int, ...] | None = None
  max_seq_length: int | None = None
  for_cosine: bool = False
  notes: tuple[str, ...] = ()
  classifier: StatedClassifier = StatedClassifier()


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Stated):
  """What `sorbus freeze` starts from.

  Attributes:
    variables: float32, under Google's names: `bert/encoder/layer_0/attention/self/query/kernel` [in, out].
    vocabulary: its tokens, in the order of their ids.
    tokenizer: as far as the folder or the vocabulary says.
    ignored: how many variables are of no use to an encoder (optimizer slots, heads).
  """

  config: ModelConfig
  variables: dict[str, np.ndarray]
  vocabulary: Vocabulary
  tokenizer: AnyTokenizerSettings
  ignored: int = 0

  @property
  def architecture(self) -> Architecture:
    """What kind of network it is."""
    return architecture_of(self.config)

  def used(self, readout: Readout, head: bool = False) -> dict[str, np.ndarray]:
    """Returns the variables of a graph that is cut after the last layer read, with pooler and mix where they are used.

    A head stands on the pooler, and so on all layers.

    Raises:
      EncoderError: the checkpoint has no pooler, no head, or no learned mix of its layers, or not in the right shapes.
    """
    depth = self.config.layers if head else max(readout.layers)
    needed = self.architecture.needed_shapes(self.config, depth, head or readout.pooling == "pooler")
    if missing := sorted(needed.keys() - self.variables.keys()):
      remedies = ["leave --head out, which stands on it"] if head else []
      if readout.pooling == "pooler":
        remedies.append("choose --pooling cls or mean, which need no pooler")
      raise EncoderError(f"{self.name}: has no {_some(missing)}; {', and '.join(remedies)}")
    if head:
      needed |= self.head_shapes()
    if readout.combine == "fused":
      needed |= self._mix_shapes()
    return {name: self.variables[name] for name in needed}

  def head_shapes(self) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the head's variables, [n_labels, H] and [n_labels]; raises EncoderError as `used`."""
    theirs = ("classifier.weight", "classifier.bias") if self.kind == "hugging-face" else (HEAD_WEIGHTS, HEAD_BIAS)
    names = dict(zip((HEAD_WEIGHTS, HEAD_BIAS), theirs, strict=True))
    if missing := [their for name, their in names.items() if name not in self.variables]:
      raise EncoderError(
        f"{self.name}: has no {_some(missing)}, so it was not trained as a classifier of sentences; leave --head out"
      )
    weights, bias = (self.variables[name].shape for name in names)
    H = self.config.hidden_size
    if len(bias) != 1 or bias[0] < 1 or weights != (bias[0], H):
      raise EncoderError(
        f"{self.name}: {theirs[0]} is {list(weights)} and {theirs[1]} {list(bias)}, a head on the sentence has "
        f"[n_labels, {H}] and [n_labels]; leave --head out"
      )
    return {HEAD_WEIGHTS: weights, HEAD_BIAS: bias}

  def _mix_shapes(self) -> dict[str, tuple[int, ...]]:
    """The variables of the learned mix, known to be there and right."""
    assert isinstance(self.config, BertConfig), "choose_readout refuses it of others"
    shapes = mix_shapes(self.config)
    if missing := [name for name in shapes if name not in self.variables]:
      raise EncoderError(
        f"{self.name}: has no {_some(missing)}, so it was not trained with a learned mix of its layers; "
        "choose --combine average, sum or concat"
      )
    for name, shape in shapes.items():
      if self.variables[name].shape != shape:
        raise EncoderError(
          f"{self.name}: {name} is {list(self.variables[name].shape)}, a learned mix of layers needs {list(shape)}; "
          "choose --combine average, sum or concat"
        )
    return shapes


def load_variables(name: str, wanted: Iterable[str], load: Load) -> dict[str, np.ndarray]:
  """Loads variables as float32.

  Raises:
    EncoderError: one is not finite.
  """
  variables = {variable: np.asarray(value, np.float32, order="C") for variable, value in load(wanted)}
  for variable, value in variables.items():
    if not np.isfinite(value).all():
      raise EncoderError(f"{name}: {variable} has NaN or infinity; the training went wrong: take an earlier checkpoint")
  return variables


def check_shapes(name: str, config: ModelConfig, shapes: Shapes) -> None:
  """Raises EncoderError unless every variable of the network that `config` describes is there in its shape.

  A BERT's pooler, learned mix of layers and head may be missing, the last two also misshapen: `Checkpoint.used`
  refuses them where they are asked for.
  """
  model = architecture_of(config)
  if model.word_embeddings not in shapes:
    raise EncoderError(
      f"{name}: not the checkpoint of {model.a_name}: it has no {model.word_embeddings}, but {_some(sorted(shapes))}"
    )
  found = model.count_layers(shapes)
  if found != config.layers:
    raise EncoderError(
      f"{name}: has {found} layers, its configuration says {config.layers}; give the configuration it was trained with"
    )
  needed = model.needed_shapes(config, config.layers, True)
  if missing := [v for v in needed if v not in shapes and not v.startswith(POOLER)]:
    raise EncoderError(f"{name}: has no {_some(missing)}; the checkpoint is not complete, or not of {model.a_name}")
  for variable, shape in needed.items():
    if variable in shapes and shapes[variable] != shape:
      raise EncoderError(
        f"{name}: {variable} is {list(shapes[variable])}, by the configuration it would be {list(shape)}; "
        "give the configuration it was trained with"
      )


def check_vocabulary_size(name: str, vocabulary: Vocabulary, rows: int) -> None:
  """Raises EncoderError unless the vocabulary has a token for every row of the embedding table."""
  if len(vocabulary) != rows:
    file = SPIECE_FILE if isinstance(vocabulary, SentencePieceModel) else VOCAB_FILE
    raise EncoderError(
      f"{name}: {len(vocabulary)} tokens, but the embedding table has {rows} rows; "
      f"give the {file} that the weights were trained with (--vocab)"
    )


def weights_sha256(variables: Mapping[str, np.ndarray]) -> str:
  """Returns the sha256 over names, shapes and float32 values, in the order of the names."""
  digest = hashlib.sha256()
  for name in sorted(variables):
    value = np.ascontiguousarray(variables[name], "<f4")
    digest.update(f"{name} {list(value.shape)}\n".encode())
    digest.update(value.data)
  return digest.hexdigest()


def _some(names: Sequence[str]) -> str:
  """Names the first three and counts the rest."""
  return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
