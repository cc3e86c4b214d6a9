import pytest

from pipeline.model.hugging_face_names import group_names, is_stacked, is_transposed, xlnet_google_name

BLOCK = "model/transformer/layer_3"


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize(
  ("theirs", "google"),
  [
    ("word_embedding.weight", "model/transformer/word_embedding/lookup_table"),
    ("layer.3.rel_attn.q", f"{BLOCK}/rel_attn/q/kernel"),
    ("layer.3.rel_attn.o", f"{BLOCK}/rel_attn/o/kernel"),
    ("layer.3.rel_attn.layer_norm.weight", f"{BLOCK}/rel_attn/LayerNorm/gamma"),
    ("layer.3.ff.layer_norm.bias", f"{BLOCK}/ff/LayerNorm/beta"),
    ("layer.3.ff.layer_2.weight", f"{BLOCK}/ff/layer_2/kernel"),
    ("layer.3.ff.layer_1.bias", f"{BLOCK}/ff/layer_1/bias"),
    ("layer.3.rel_attn.r_s_bias", "model/transformer/r_s_bias"),
    ("layer.3.rel_attn.seg_embed", "model/transformer/seg_embed"),
    ("mask_emb", None),
    ("layer.3.rel_attn.rel_attn.q", None),
  ],
)
def test_xlnet(prefix, theirs, google):
  assert xlnet_google_name(prefix + theirs) == google


def test_kernels_of_dense_layers_alone_are_turned():
  assert is_transposed("layer.3.ff.layer_1.weight") and is_transposed("encoder.layer.0.output.dense.weight")
  assert not is_transposed("layer.3.rel_attn.q") and not is_transposed("layer.3.ff.layer_norm.weight")


def test_biases_are_stacked_from_block_0_on_by_number_and_not_by_letter():
  names = [f"layer.{i}.rel_attn.{what}" for i in (10, 2, 0) for what in ("r_w_bias", "q")]
  groups = group_names([*names, "lm_loss.bias"], xlnet_google_name)
  assert groups["model/transformer/r_w_bias"] == [f"layer.{i}.rel_attn.r_w_bias" for i in (0, 2, 10)]
  assert groups["model/transformer/layer_10/rel_attn/q/kernel"] == ["layer.10.rel_attn.q"]
  assert groups["lm_loss.bias"] == ["lm_loss.bias"]
  assert is_stacked("model/transformer/r_w_bias") and not is_stacked("model/transformer/layer_10/rel_attn/q/kernel")
