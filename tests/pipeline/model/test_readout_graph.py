"""The pooling in the graph is that in NumPy, under either framing and with padding on either side."""

import numpy as np
import pytest

from pipeline.model.framing import BERT_FRAMING, XLNET_FRAMING
from pipeline.model.readout_graph import combine, draw_inputs, pool, pool_all
from pipeline.model.readout_numpy import combine as combine_numpy
from pipeline.model.readout_numpy import pool_tokens
from transforms.encoder_spec import Readout
from transforms.frozen_graph import tf

POOLINGS = [(p, False) for p in ("cls", "mean", "max", "mean-max", "last")]
POOLINGS += [(p, True) for p in ("mean", "max", "mean-max")]
LENGTHS, T = (6, 3, 4), 6
HIDDEN = np.random.default_rng(0).normal(size=(3, T, 5)).astype(np.float32)
# A BERT's first token is known by its place in the row, so that its padding is on the right.
FRAMED = [(BERT_FRAMING, 0), (XLNET_FRAMING, 0), (XLNET_FRAMING, 1)]


def mask_of(left):
  """Padding on the left if `left` is 1; and where each text begins."""
  starts = [left * (T - length) for length in LENGTHS]
  return np.array(
    [[start <= t < start + n for t in range(T)] for start, n in zip(starts, LENGTHS, strict=True)]
  ), starts


def run(draw, mask):
  with tf.Graph().as_default() as graph:
    input_ids, input_mask = draw_inputs()
    output = draw(tf.constant(HIDDEN), input_mask)
  with tf.compat.v1.Session(graph=graph) as session:
    return session.run(output, {input_ids: np.zeros_like(mask, np.int32), input_mask: mask.astype(np.int32)})


@pytest.mark.parametrize(("framing", "left"), FRAMED, ids=["bert", "xlnet", "xlnet-left"])
def test_each_pooling(framing, left):
  mask, starts = mask_of(left)
  texts = [x[start : start + n] for x, start, n in zip(HIDDEN, starts, LENGTHS, strict=True)]
  for pooling, exclude in POOLINGS:
    readout = Readout(pooling, (1,), exclude_special_tokens=exclude)
    found = run(lambda hidden, given: pool(hidden, given, readout, framing), mask)  # noqa: B023
    np.testing.assert_allclose(found, [pool_tokens(text, readout, framing) for text in texts], rtol=0, atol=1e-6)


def test_all_poolings_of_all_layers_stand_in_order():
  mask, _ = mask_of(0)
  found = run(lambda hidden, given: pool_all([hidden, -hidden], given, ("cls", "max"), BERT_FRAMING), mask)
  texts = [x[:n] for x, n in zip(HIDDEN, LENGTHS, strict=True)]
  expected = [pool_tokens(sign * text, Readout(p, ())) for p in ("cls", "max") for sign in (1, -1) for text in texts]
  np.testing.assert_allclose(np.concatenate(found), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["average", "sum", "concat"])
@pytest.mark.parametrize("n", [1, 3])
def test_layers_are_combined_as_in_numpy(how, n):
  layers = [HIDDEN[i] for i in range(n)]
  with tf.Graph().as_default() as graph:
    output = combine([tf.constant(layer) for layer in layers], how)
  with tf.compat.v1.Session(graph=graph) as session:
    np.testing.assert_allclose(session.run(output), combine_numpy(layers, how), rtol=0, atol=1e-6)
