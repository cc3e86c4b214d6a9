"""The variables of a BERT under Google's names, with the shapes that its sizes give them."""

from pipeline.model.shapes import dense, layer_norm
from transforms.encoder_spec import BertConfig

EMBEDDINGS, POOLER, LAYER_LOGIT = "bert/embeddings", "bert/pooler/dense", "layer_logit"
HEAD_WEIGHTS, HEAD_BIAS = "output_weights", "output_bias"
WORD_EMBEDDINGS = f"{EMBEDDINGS}/word_embeddings"


def needed_shapes(config: BertConfig, depth: int, pooler: bool) -> dict[str, tuple[int, ...]]:
  """Returns the variables of a BERT of `depth` blocks with their shapes, in the order in which they are used."""
  H, wide = config.hidden_size, config.intermediate_size
  shapes: dict[str, tuple[int, ...]] = {
    WORD_EMBEDDINGS: (config.vocab_size, H),
    f"{EMBEDDINGS}/token_type_embeddings": (config.type_vocab_size, H),
    f"{EMBEDDINGS}/position_embeddings": (config.max_position_embeddings, H),
  } | layer_norm(EMBEDDINGS, H)
  for i in range(depth):
    scope = f"bert/encoder/layer_{i}"
    for name in ("query", "key", "value"):
      shapes |= dense(f"{scope}/attention/self/{name}", H, H)
    shapes |= dense(f"{scope}/attention/output/dense", H, H) | layer_norm(f"{scope}/attention/output", H)
    shapes |= dense(f"{scope}/intermediate/dense", H, wide)
    shapes |= dense(f"{scope}/output/dense", wide, H) | layer_norm(f"{scope}/output", H)
  return shapes | (dense(POOLER, H, H) if pooler else {})


def mix_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
  """Returns the variables of a learned mix of layers with their shapes: a dense layer to one number for each block."""
  layers = [dense(f"{LAYER_LOGIT}{i}", config.hidden_size, 1) for i in range(config.layers)]
  return {name: shape for shapes in layers for name, shape in shapes.items()}


def useful_names(config: BertConfig) -> tuple[str, ...]:
  """Returns the names of all variables that an encoder of this BERT can have a use for."""
  return (*needed_shapes(config, config.layers, pooler=True), *mix_shapes(config), HEAD_WEIGHTS, HEAD_BIAS)
