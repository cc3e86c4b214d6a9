"""The variables of an XLNet's content stream under Google's names, with the shapes that its sizes give them.

What only pre-training needs is not among them: the query stream's `mask_emb`, and the language model's `lm_loss`.
"""

from pipeline.model.shapes import dense, layer_norm
from transforms.encoder_spec import XlnetConfig

SCOPE = "model/transformer"
WORD_EMBEDDINGS = f"{SCOPE}/word_embedding/lookup_table"
# What attention adds to a query before it is compared with keys, places and segments.
BIASES = tuple(f"{SCOPE}/{name}" for name in ("r_w_bias", "r_r_bias", "r_s_bias"))
SEGMENTS = f"{SCOPE}/seg_embed"


def needed_shapes(config: XlnetConfig, depth: int, _pooler: bool = False) -> dict[str, tuple[int, ...]]:
  """Returns the variables of an XLNet of `depth` blocks with their shapes, in the order in which they are used.

  A pooler, as a BERT's, it has none.
  """
  L, H, wide = config.layers, config.hidden_size, config.intermediate_size
  heads = (config.heads, config.head_size)
  shapes: dict[str, tuple[int, ...]] = {WORD_EMBEDDINGS: (config.vocab_size, H)}
  if depth:  # of all blocks in one variable each, or the same for all
    shapes |= dict.fromkeys(BIASES, (L, *heads) if config.untie_r else heads) | {SEGMENTS: (L, 2, *heads)}
  for i in range(depth):
    attention, ff = f"{SCOPE}/layer_{i}/rel_attn", f"{SCOPE}/layer_{i}/ff"
    shapes |= {f"{attention}/{name}/kernel": (H, *heads) for name in "qkvro"} | layer_norm(attention, H)
    shapes |= dense(f"{ff}/layer_1", H, wide) | dense(f"{ff}/layer_2", wide, H) | layer_norm(ff, H)
  return shapes


def useful_names(config: XlnetConfig) -> tuple[str, ...]:
  """Returns the names of all variables that an encoder of this XLNet can have a use for."""
  return tuple(needed_shapes(config, config.layers))
