import numpy as np
import pytest

from pipeline.evaluate import PairTexts
from pipeline.model.all_layers import POOLINGS, LayerVectors
from pipeline.sweep import components_to_try, readouts_of, sweep
from transforms.encoder_spec import Readout
from transforms.errors import UsageError
from transforms.pair_scores import Agreement, cosines_of
from transforms.pairs import Pairs
from transforms.whitening import Whitening

H, M, P = 12, 40, 60


def made(layers=2, *, pooler=True, constant=False, n_texts=M, binary=False):
  """Texts and vectors of every layer with variances that differ, around a mean that is not 0."""
  generator = np.random.default_rng(0)
  scale = np.linspace(2, 0.2, H)

  def vectors():
    return (generator.normal(0.5, 1, (n_texts, H)) * scale).astype(np.float32)

  by_pooling = {pooling: np.array([vectors() for _ in range(layers + 1)]) for pooling in POOLINGS}
  if constant:  # two numbers of each vector always add up to the same, as those of a layer normalisation do
    for x in by_pooling.values():
      x[..., 1] = 1 - x[..., 0]
  first, second = generator.integers(0, n_texts, (2, P))
  scores = generator.integers(0, 2, P).astype(float) if binary else generator.random(P)
  pairs = Pairs("pairs.csv", ("a",) * P, ("b",) * P, scores)
  known = PairTexts(pairs, ("a",) * n_texts, first, second, 0, 0)
  return known, LayerVectors(by_pooling, vectors() if pooler else None)


@pytest.mark.parametrize("binary", [False, True])
def test_each_line_is_what_a_whitening_of_its_own_would_give(binary):
  known, vectors = made(layers=4, binary=binary)
  lines = sweep(known, vectors, (3, 7, 11))
  assert len(lines) == 4 * len(list(readouts_of(vectors)))
  texts = np.concatenate([known.first, known.second])
  for line in lines:
    x = vectors.of(line.readout)
    if line.n_components is not None:  # each occurrence of a text counts: fitted on the 2 P texts one after the other
      x = Whitening.fit(type(known.moments(x)).from_vectors(x[texts]), line.n_components).reduce(x)
    expected = Agreement.of(cosines_of(x[known.first], x[known.second]), known.pairs.scores, binary=binary)
    assert line.agreement.spearman == pytest.approx(expected.spearman, abs=1e-6), line
    assert line.agreement.pearson == pytest.approx(expected.pearson, abs=1e-6), line
    assert (line.agreement.auc is None) == (not binary)


def test_the_best_comes_first():
  scores = [line.agreement.spearman for line in sweep(*made(), (3, 7))]
  assert scores == sorted(scores, reverse=True) and len(set(scores)) > 10


def test_of_a_few_texts_or_directions_the_components_that_there_are_are_tried():
  known, vectors = made(constant=True, pooler=False)
  assert {line.n_components for line in sweep(known, vectors, (3, 11, 12))} == {None, 3, 11}
  known, vectors = made(n_texts=5)  # five texts vary in four directions, however often they occur
  assert {line.n_components for line in sweep(known, vectors, (3, 7))} == {None, 3}
  assert {line.n_components for line in sweep(known, vectors, (7,))} == {None}


@pytest.mark.parametrize(
  ("layers", "several"),
  [
    (1, []),
    (2, [(1, 2)]),
    (3, [(1, 3), (2, 3)]),
    (4, [(1, 2, 3, 4), (1, 4), (3, 4)]),
    (6, [(1, 6), (3, 4, 5, 6), (5, 6)]),
  ],
)
def test_what_is_compared(layers, several):
  found = list(readouts_of(made(layers)[1]))
  assert len(found) == len(set(found)) and {readout.combine for readout in found} == {"average"}
  of = {pooling: [r.layers for r in found if r.pooling == pooling] for pooling in (*POOLINGS, "pooler")}
  single = [(layer,) for layer in range(layers + 1)]
  assert of == {"mean": single + several, "cls": single[1:] + several, "max": single, "pooler": [(layers,)]}
  assert "pooler" not in {readout.pooling for readout in readouts_of(made(layers, pooler=False)[1])}


def test_averages_are_of_the_layers():
  _, vectors = made(4)
  mean = vectors.by_pooling["mean"]
  np.testing.assert_allclose(vectors.of(Readout("mean", (1, 4))), (mean[1] + mean[4]) / 2, rtol=1e-6)
  assert (vectors.of(Readout("max", (3,))) == vectors.by_pooling["max"][3]).all()


def test_components_below_the_width_and_what_embed_takes():
  assert components_to_try(128, None) == (64, 127)
  assert components_to_try(384, None) == (64, 128, 256)
  assert components_to_try(768, None) == (64, 128, 256, 384, 512)
  assert components_to_try(8, None) == (7,) and components_to_try(8, 5) == (5,)
  with pytest.raises(UsageError, match="--n-components 9: the encoder's vectors have 8"):
    components_to_try(8, 9)
