"""What an encoder folder says about itself, without TensorFlow: `encoder.json` and the vocabulary.

```
ENCODER/
  encoder.pb     the frozen graph
  vocab.txt      of a BERT: a token a line
  spiece.model   of an XLNet, in its place: a SentencePiece model
  encoder.json   EncoderSpec, with the sha256 of the other two and of itself
```
"""

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from transforms.encoder_files import read_bytes, read_checked
from transforms.errors import EncoderError
from transforms.json_values import fingerprint, from_json_value, to_json_value
from transforms.long_texts import LongTexts
from transforms.sentence_piece import SentencePiece, SentencePieceModel, SentencePieceSettings, parse_model
from transforms.tokenizer import Tokenizer
from transforms.wordpiece import TokenizerSettings, Wordpiece, parse_vocabulary

# Raised when a reader of the old version would read the new one wrongly, or not at all.
FORMAT_VERSION = 1
# Raised when the same weights and settings give other vectors than before: then a corpus has to be encoded again.
NUMERICS_VERSION = 1
SPEC_FILE, GRAPH_FILE = "encoder.json", "encoder.pb"
VOCAB_FILE, SPIECE_FILE = "vocab.txt", "spiece.model"
# Over all else in `encoder.json`: the fingerprint is over what decides the vectors, and not over which node is read for
# the tokens' vectors, or how far off the self-test may be.
_SEAL = "spec_sha256"
# In every folder and fingerprint since the first, and so for good: without it, every corpus would be encoded anew.
_COMPUTED_BY = {"engine": "tensorflow"}
# No affair of a folder: what a run does with long texts, which is part of its encoder's fingerprint like the precision.
_OF_A_RUN = "long_texts"

Pooling = Literal["pooler", "cls", "mean", "max", "mean-max", "last"]
POOLINGS: tuple[Pooling, ...] = ("pooler", "cls", "mean", "max", "mean-max", "last")
# Those that are over all tokens of a text, so that it makes a difference whether the special ones are among them.
POOLINGS_OVER_TOKENS: tuple[Pooling, ...] = ("mean", "max", "mean-max")
# Those whose vector lies among the vectors of the tokens, so that the two can be compared.
POOLINGS_LIKE_TOKENS: tuple[Pooling, ...] = ("mean", "cls", "max", "last")
Combine = Literal["average", "sum", "concat", "fused"]
COMBINES: tuple[Combine, ...] = ("average", "sum", "concat", "fused")
# The pooling of a graph whose output is one vector a text already.
IN_GRAPH = "in-graph"
# In which numbers the graph is computed. Folders are frozen in the first; which a run takes is chosen when it is
# submitted, and part of its encoder's fingerprint.
PRECISIONS: tuple[str, ...] = ("float32", "bfloat16")
HeadKind = Literal["softmax", "sigmoid"]
HEADS: tuple[HeadKind, ...] = ("softmax", "sigmoid")


# The tokens of a BERT by their ids, or the model that cuts an XLNet's.
Vocabulary = tuple[str, ...] | SentencePieceModel
AnyTokenizerSettings = TokenizerSettings | SentencePieceSettings


@dataclass(frozen=True, kw_only=True)
class BertConfig:
  """The sizes of a BERT; `activation` is resolved (`gelu_tanh`, `gelu_erf`, `relu`, `tanh`)."""

  # What computing takes for each head and two tokens of a text: a float32 score, which becomes its softmax in place.
  # This and the other's: benchmarks/load_memory.py.
  score_bytes: ClassVar[int] = 5

  vocab_size: int
  hidden_size: int
  layers: int
  heads: int
  intermediate_size: int
  max_position_embeddings: int
  type_vocab_size: int
  activation: str
  layer_norm_eps: float

  @property
  def position_limit(self) -> int | None:
    """The most tokens that it can take."""
    return self.max_position_embeddings


@dataclass(frozen=True, kw_only=True)
class XlnetConfig:
  """The sizes of an XLNet.

  Attributes:
    heads, head_size: attention's; their product need not be the hidden size.
    activation: resolved, as in `BertConfig`.
    untie_r: each block has biases of its own for queries, and not all the same.
    clamp_len: distances beyond count as this one; 0 or less for none.
  """

  # Float32 scores by distance, twice as many, and their shifted copy; what is cut of that; those of tokens; their sum;
  # its softmax.
  score_bytes: ClassVar[int] = 32

  vocab_size: int
  hidden_size: int
  layers: int
  heads: int
  head_size: int
  intermediate_size: int
  activation: str
  untie_r: bool
  clamp_len: int
  layer_norm_eps: float

  @property
  def position_limit(self) -> int | None:
    """None: positions are relative, so that it can take any number of tokens."""
    return None


ModelConfig = BertConfig | XlnetConfig


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
  """What is known of a network that came as a graph, frozen elsewhere.

  Attributes:
    vocab_size: tokens of the vocabulary that it was given.
    hidden_size: width of its output, before pooling.
    inputs: the nodes that were taken for token ids, mask and token types, as far as there are any.
    output: the node that is read.
  """

  vocab_size: int
  hidden_size: int
  inputs: tuple[str, ...]
  output: str


@dataclass(frozen=True)
class Readout:
  """Which vector is read off a network's hidden states.

  Attributes:
    pooling: how the tokens become one vector: `pooler` (dense and tanh over [CLS]), `cls`, `mean`, `max`, `mean-max`
      (the mean, then the maximum), or `last` (the last token that is no padding, [SEP]).
    layers: ascending; 0 is the embedding output, i the output of the i-th block.
    combine: how several layers become one before that: `average`, `sum`, `concat` in their order, or `fused`: each
      token's own mix, weighed by a softmax over what a dense layer per block gives.
    exclude_special_tokens: those around a text, such as [CLS] and [SEP], do not count in mean and max.
  """

  pooling: str
  layers: tuple[int, ...]
  combine: str = "average"
  exclude_special_tokens: bool = False

  def width(self, hidden_size: int) -> int:
    """Returns the width of the vector that is read off hidden states of width H."""
    layers = len(self.layers) if self.combine == "concat" else 1
    return hidden_size * layers * (2 if self.pooling == "mean-max" else 1)


@dataclass(frozen=True)
class Head:
  """A classifier on the sentence: a dense layer on the pooler's vector, whatever vector the encoder gives.

  The pooler stands on [CLS] of the last layer; where layers are combined by the learned mix, on that of the mix.

  Attributes:
    kind: `softmax` (one label of several) or `sigmoid` (each label for itself).
    labels: their names, in the order of the probabilities.
  """

  kind: str
  labels: tuple[str, ...]


@dataclass(frozen=True)
class Source:
  """Where the weights came from: the kind of folder, and its name without the path, which is one machine's affair."""

  kind: str
  name: str


@dataclass(frozen=True)
class TensorNames:
  """Nodes of the graph.

  Attributes:
    input_ids, input_mask: int32 [B, T].
    output: the vectors, float32 [B, W].
    hidden: what is pooled, a vector a token: float32 [B, T, C]. None for a graph that gives one vector a text.
    probabilities: of the head's labels, float32 [B, n_labels]. None without a head.
  """

  input_ids: str
  input_mask: str
  output: str
  hidden: str | None = None
  probabilities: str | None = None


@dataclass(frozen=True)
class SelfTest:
  """Token sequences and the vectors that an independent float64 forward pass gave for them when it was frozen.

  Attributes:
    cases: token ids with the special ones, one sequence each.
    vectors: [W] for each case, with W the encoder's `vector_size`.
    tolerance: the largest absolute error of a vector that is let through in float32.
    probabilities: [n_labels] for each case where there is a head.
  """

  cases: tuple[tuple[int, ...], ...]
  vectors: tuple[tuple[float, ...], ...]
  tolerance: float
  probabilities: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
  """The content of `encoder.json`; `layers` to `exclude_special_tokens` are those of `Readout`.

  Attributes:
    config: the sizes of a network that was frozen here; None for a graph that was frozen elsewhere, which has `graph`.
    head: the classifier whose probabilities come with each vector, or None.
    long_texts: of a run in which a long text has another vector than that of its first tokens; else None.
  """

  fingerprint: str
  source: Source
  config: BertConfig | XlnetConfig | None = None
  graph: GraphConfig | None = None
  head: Head | None = None
  layers: tuple[int, ...]
  combine: str = "average"
  pooling: str
  exclude_special_tokens: bool = False
  max_seq_length: int
  tokenizer: TokenizerSettings | SentencePieceSettings
  tensors: TensorNames
  weights_sha256: str
  vocab_sha256: str
  graph_sha256: str
  precision: str = "float32"
  numerics_version: int = NUMERICS_VERSION
  for_cosine: bool = False
  self_test: SelfTest
  versions: dict[str, str]
  long_texts: LongTexts | None = None

  @property
  def readout(self) -> Readout:
    """Which vector is read off the hidden states."""
    return Readout(self.pooling, self.layers, self.combine, self.exclude_special_tokens)

  @property
  def vector_size(self) -> int:
    """The width of a raw vector: the hidden size, or a multiple of it."""
    return self.readout.width(self._sizes.hidden_size)

  @property
  def vocab_size(self) -> int:
    """How many tokens the vocabulary and the embedding table have."""
    return self._sizes.vocab_size

  @property
  def labels(self) -> tuple[str, ...]:
    """The labels of the head; none without one."""
    return self.head.labels if self.head else ()

  @property
  def _sizes(self) -> ModelConfig | GraphConfig:
    sizes = self.config or self.graph
    assert sizes is not None, "read_spec refuses a spec without either"
    return sizes

  def identity(self) -> dict[str, Any]:
    """What decides the vectors, and nothing else: not the graph's bytes, so that a faster graph re-encodes nothing."""
    names = ["config", "layers", "combine", "pooling", "exclude_special_tokens", "max_seq_length", "tokenizer"]
    names += ["weights_sha256", "vocab_sha256", "precision", "numerics_version", "graph", "head", _OF_A_RUN]
    found = {name: to_json_value(value) for name in names if (value := getattr(self, name)) is not None}
    if self.head and self.combine == "fused":
      found["head_on"] = "mix"  # under a fingerprint without this, it was on the last layer once
    return _COMPUTED_BY | found

  def with_fingerprint(self) -> "EncoderSpec":
    """Returns the same with the fingerprint that its identity has."""
    return replace(self, fingerprint=fingerprint(self.identity()))

  def at(self, precision: str) -> "EncoderSpec":
    """Returns the same encoder in another precision, with a fingerprint of its own.

    Raises:
      ValueError: there is no such precision.
    """
    if precision not in PRECISIONS:
      raise ValueError(f"precision {precision!r}: choose {' or '.join(PRECISIONS)}")
    return replace(self, precision=precision).with_fingerprint()

  def with_long_texts(self, long_texts: LongTexts) -> "EncoderSpec":
    """Returns the same encoder of a run that treats long texts so, of another fingerprint if vectors are others."""
    if long_texts.of_encoder == self.long_texts:
      return self
    return replace(self, long_texts=long_texts.of_encoder).with_fingerprint()

  def variants(self) -> "dict[str, EncoderSpec]":
    """Returns this encoder in every precision, by fingerprint: so a run's fingerprint tells its precision."""
    return {spec.fingerprint: spec for spec in map(self.at, PRECISIONS)}

  def to_json(self) -> str:
    """Returns the text of `encoder.json`: a field a line, for a self-test's vectors should not fill pages."""
    spec = {key: item for key, item in to_json_value(self).items() if key != _OF_A_RUN} | _COMPUTED_BY
    value = {"FORMAT_VERSION": FORMAT_VERSION} | spec | {_SEAL: fingerprint(spec)}
    return "{\n" + ",\n".join(f'  "{key}": {json.dumps(value[key])}' for key in value) + "\n}\n"


def read_spec(encoder_dir: str) -> EncoderSpec:
  """Reads and checks `encoder.json`; `encoder_dir` is a path or any fsspec URL.

  Raises:
    EncoderError: missing, of another format version, not well formed, or edited since it was written.
  """
  name = f"{encoder_dir}/{SPEC_FILE}"
  try:
    value = json.loads(read_bytes(encoder_dir, SPEC_FILE))
    version, seal = (value.pop(key, None) if isinstance(value, dict) else None for key in ("FORMAT_VERSION", _SEAL))
    found = fingerprint(value)
  except (ValueError, RecursionError) as error:
    raise EncoderError(f"{name}: not JSON ({error}); run `sorbus freeze` again") from error
  if version != FORMAT_VERSION:
    raise EncoderError(
      f"{name}: format version {version}, this sorbus reads {FORMAT_VERSION}; run `sorbus freeze` again"
    )
  try:
    fields = {key: item for key, item in value.items() if key not in _COMPUTED_BY}  # which the seal is over
    fields[_OF_A_RUN] = None
    spec: EncoderSpec = from_json_value(EncoderSpec, fields, name)
  except ValueError as error:
    raise EncoderError(f"{error}; run `sorbus freeze` again") from error
  _check_spec(spec, name)
  if seal is None:
    raise EncoderError(f"{name}: has no {_SEAL}; run `sorbus freeze` again")
  if seal != found:
    raise EncoderError(
      f"{name}: its contents are not those that were frozen, for {_SEAL} is {str(seal)[:12]} and theirs {found[:12]}; "
      "it was edited by hand: run `sorbus freeze` again"
    )
  return spec


def vocabulary_file(settings: AnyTokenizerSettings) -> str:
  """Returns the name of the file that has the vocabulary of a tokenizer of these settings."""
  return VOCAB_FILE if isinstance(settings, TokenizerSettings) else SPIECE_FILE


def read_vocabulary(encoder_dir: str, spec: EncoderSpec) -> Vocabulary:
  """Reads the vocabulary's file; raises EncoderError if it is not the one that was frozen."""
  file = vocabulary_file(spec.tokenizer)
  data, name = read_checked(encoder_dir, file, spec.vocab_sha256), f"{encoder_dir}/{file}"
  vocabulary = parse_vocabulary(data, name) if file == VOCAB_FILE else parse_model(data, name)
  if len(vocabulary) != spec.vocab_size:
    raise EncoderError(f"{name}: {len(vocabulary)} tokens, but {SPEC_FILE} says {spec.vocab_size}; freeze again")
  return vocabulary


def make_tokenizer(vocabulary: Vocabulary, settings: AnyTokenizerSettings, max_seq_length: int) -> Tokenizer:
  """Returns the tokenizer that cuts texts by a vocabulary under settings of its kind."""
  if isinstance(settings, TokenizerSettings):
    assert not isinstance(vocabulary, SentencePieceModel), settings
    return Wordpiece(vocabulary, settings, max_seq_length)
  assert isinstance(vocabulary, SentencePieceModel), settings
  return SentencePiece(vocabulary, settings, max_seq_length)


def load_tokenizer(encoder_dir: str, spec: EncoderSpec | None = None) -> Tokenizer:
  """Returns the encoder's tokenizer; needs no TensorFlow."""
  spec = spec or read_spec(encoder_dir)
  return make_tokenizer(read_vocabulary(encoder_dir, spec), spec.tokenizer, spec.max_seq_length)


def _check_spec(spec: EncoderSpec, name: str) -> None:
  """Raises EncoderError for what the types cannot say."""
  if (spec.config is None) == (spec.graph is None):
    raise EncoderError(f"{name}: needs either config or graph, and has both or none; run `sorbus freeze` again")
  found = fingerprint(spec.identity())
  if found != spec.fingerprint:
    raise EncoderError(
      f"{name}: says fingerprint {spec.fingerprint[:12]}, its contents give {found[:12]}; "
      "it was edited by hand: make the change with `sorbus freeze`"
    )
  limit = spec.config.position_limit if spec.config else None
  positions = spec.max_seq_length if limit is None else limit
  if not 3 <= spec.max_seq_length <= positions:
    raise EncoderError(
      f"{name}: max_seq_length {spec.max_seq_length}, but it takes 3 or more and the model has {positions} positions; "
      "run `sorbus freeze` again"
    )
  if spec.precision != PRECISIONS[0]:
    raise EncoderError(
      f"{name}: precision {spec.precision}; a folder is of {PRECISIONS[0]}, and another is chosen with `sorbus embed "
      "--precision`"
    )
  if spec.numerics_version != NUMERICS_VERSION:
    raise EncoderError(
      f"{name}: numerics version {spec.numerics_version}, this sorbus has {NUMERICS_VERSION}; run `sorbus freeze` again"
    )
  if bool(spec.head) != bool(spec.tensors.probabilities):
    raise EncoderError(f"{name}: head and tensors.probabilities do not go together; run `sorbus freeze` again")
  test, n_labels = spec.self_test, len(spec.labels)
  for what, rows, width in (
    ("vectors", test.vectors, spec.vector_size),
    ("probabilities", test.probabilities, n_labels),
  ):
    if {len(row) for row in rows} - {width} or len(rows) != (len(test.cases) if width else 0) or not test.cases:
      raise EncoderError(f"{name}: self_test.{what} need {width} numbers for each case; run `sorbus freeze` again")
