"""What a kind of network provides, so that its checkpoints can be frozen: one value for each.

A third enters by one more value, made of what BERT's and XLNet's modules have: see docs/architecture.md.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model import (
  bert_config,
  bert_graph,
  bert_numpy,
  bert_variables,
  xlnet_config,
  xlnet_graph,
  xlnet_numpy,
  xlnet_variables,
)
from pipeline.model.framing import BERT_FRAMING, XLNET_FRAMING, Framing
from pipeline.model.hugging_face_names import bert_google_name, xlnet_google_name
from pipeline.model.shapes import Shapes
from pipeline.model.tokenizer_files import SENTENCE_PIECE, WORDPIECE, TokenizerFiles
from transforms.encoder_spec import (
  COMBINES,
  POOLINGS,
  BertConfig,
  Combine,
  Head,
  ModelConfig,
  Pooling,
  Readout,
  TensorNames,
  XlnetConfig,
)

Variables = Mapping[str, np.ndarray]
Graph = tuple[bytes, TensorNames]


@dataclass(frozen=True, kw_only=True)
class Architecture:
  """Everything that depends on which kind of network it is; a `config` is always of the kind's own class.

  Attributes:
    name, a_name: for people: `BERT`, `a BERT`.
    model_type: what Hugging Face's `config.json` calls it.
    config_class: its sizes.
    config_file: those, beside a Google checkpoint.
    tokenizer_files: how its tokenizer is read.
    framing: how many special tokens its tokenizer puts around a text.
    poolings, combines: how its hidden vectors can be read off.
    has_head: whether a classifier can be taken along.
    word_embeddings: the variable [V, H], under Google's name, by which a checkpoint is known.
    useful_variable: matches the variables that an encoder can have a use for, and perhaps their optimizer slots.
    block_variable: matches the variables of blocks, with the block's number as group 1.
    make_config: (path, its JSON, what its names of activations mean, the activation asked for) → config.
    config_notes: JSON → what to say of settings that play no part.
    google_name: Google's name of a tensor in a Hugging Face folder; None for what is of no use.
    needed_shapes: (config, depth, with the pooler) → variables of so many blocks, in the order in which they are used.
    useful_names: config → the variables that an encoder can have a use for.
    build_graph: (variables, config, readout, head) → the graph of an encoder.
    build_all_layers: (variables, config, poolings, pooler=…) → a graph of every layer in every pooling.
    layer_outputs: (variables, config, token ids, depth) → float64 [T, H] of each layer, in NumPy.
    vector: (variables, config, token ids, readout) → float64 [W], in NumPy.
  """

  name: str
  a_name: str
  model_type: str
  config_class: type[ModelConfig]
  config_file: str
  tokenizer_files: TokenizerFiles
  framing: Framing
  poolings: tuple[Pooling, ...]
  combines: tuple[Combine, ...]
  has_head: bool
  word_embeddings: str
  useful_variable: re.Pattern[str]
  block_variable: re.Pattern[str]
  make_config: Callable[[Path, Mapping[str, Any], Mapping[str, str], str | None], ModelConfig]
  config_notes: Callable[[Mapping[str, Any]], tuple[str, ...]]
  google_name: Callable[[str], str | None]
  needed_shapes: Callable[[Any, int, bool], dict[str, tuple[int, ...]]]
  useful_names: Callable[[Any], tuple[str, ...]]
  build_graph: Callable[[Variables, Any, Readout, Head | None], Graph]
  build_all_layers: Callable[..., Graph]
  layer_outputs: Callable[[Variables, Any, Sequence[int], int], Iterator[np.ndarray]]
  vector: Callable[[Variables, Any, Sequence[int], Readout], np.ndarray]

  def count_layers(self, shapes: Shapes) -> int:
    """Returns how many blocks a checkpoint has variables of."""
    return len({match[1] for match in map(self.block_variable.match, shapes) if match})


BERT = Architecture(
  name="BERT",
  a_name="a BERT",
  model_type="bert",
  config_class=BertConfig,
  config_file="bert_config.json",
  tokenizer_files=WORDPIECE,
  framing=BERT_FRAMING,
  poolings=POOLINGS,
  combines=COMBINES,
  has_head=True,
  word_embeddings=bert_variables.WORD_EMBEDDINGS,
  useful_variable=re.compile(r"bert/(embeddings|encoder|pooler)/|layer_logit\d+/|(output_weights|output_bias)$"),
  block_variable=re.compile(r"bert/encoder/layer_(\d+)/"),
  make_config=bert_config.make_config,
  config_notes=lambda _: (),
  google_name=bert_google_name,
  needed_shapes=bert_variables.needed_shapes,
  useful_names=bert_variables.useful_names,
  build_graph=bert_graph.build_graph,
  build_all_layers=bert_graph.build_all_layers,
  layer_outputs=bert_numpy.layer_outputs,
  vector=bert_numpy.bert_vector,
)
XLNET = Architecture(
  name="XLNet",
  a_name="an XLNet",
  model_type="xlnet",
  config_class=XlnetConfig,
  config_file="xlnet_config.json",
  tokenizer_files=SENTENCE_PIECE,
  framing=XLNET_FRAMING,
  poolings=("cls", "mean", "max", "mean-max", "last"),
  combines=("average", "sum", "concat"),
  has_head=False,
  word_embeddings=xlnet_variables.WORD_EMBEDDINGS,
  useful_variable=re.compile(r"model/transformer/(word_embedding/|layer_\d+/|r_[wrs]_bias|seg_embed)"),
  block_variable=re.compile(r"model/transformer/layer_(\d+)/"),
  make_config=xlnet_config.make_config,
  config_notes=xlnet_config.config_notes,
  google_name=xlnet_google_name,
  needed_shapes=xlnet_variables.needed_shapes,
  useful_names=xlnet_variables.useful_names,
  build_graph=xlnet_graph.build_graph,
  build_all_layers=xlnet_graph.build_all_layers,
  layer_outputs=xlnet_numpy.layer_outputs,
  vector=xlnet_numpy.xlnet_vector,
)
ARCHITECTURES = (BERT, XLNET)


def architecture_of(config: ModelConfig) -> Architecture:
  """Returns the one that some sizes are of."""
  return next(architecture for architecture in ARCHITECTURES if type(config) is architecture.config_class)


def architecture_of_variables(shapes: Shapes) -> Architecture | None:
  """Returns the one whose word embeddings, under Google's name, are among a checkpoint's variables."""
  return next((architecture for architecture in ARCHITECTURES if architecture.word_embeddings in shapes), None)
