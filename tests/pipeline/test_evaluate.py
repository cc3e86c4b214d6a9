import tracemalloc

import numpy as np
import pytest

from pipeline import evaluate
from pipeline.evaluate import (
  CLEAR,
  FoundWhitening,
  PairTexts,
  WhiteningOptions,
  find_whitening,
  too_few_texts,
  verdict_on_pairs,
  verdict_on_texts,
)
from tests.fake_encoder import FakeEncoder, make_vocabulary
from transforms.errors import UsageError
from transforms.moments import Moments
from transforms.pair_scores import Agreement, cosines_of, margin_of_gain
from transforms.pairs import Pairs
from transforms.whitening import Whitening, WhiteningError

FIRST = ("red sun", "rain", "red sun", " ", "rain", "a very long text indeed")
SECOND = ("rain", "red sun", "tree", "rain", "tree", "red sun")
SCORES = np.array([1.0, 2, 3, 4, 5, 6])


@pytest.fixture
def encoder():
  return FakeEncoder(make_vocabulary([*FIRST, *SECOND]), 8, max_seq_length=6).load()


def random_pairs(P, H=8):
  """P pairs of 2 P texts, whose random scores have nothing to do with their vectors."""
  generator = np.random.default_rng(0)
  vectors = generator.normal(1, 1, (2 * P, H)).astype(np.float32)
  pairs = Pairs("p", ("a",) * P, ("b",) * P, generator.random(P))
  return PairTexts(pairs, ("a",) * (2 * P), np.arange(P), np.arange(P, 2 * P), 0, 0), vectors


def test_texts_are_encoded_once_and_pairs_without_a_token_left_out(encoder):
  known = PairTexts.of(Pairs("p", FIRST, SECOND, SCORES), encoder.tokenizer)
  assert known.texts == ("red sun", "rain", "a very long text indeed", "tree")
  assert (known.first.tolist(), known.second.tolist()) == ([0, 1, 0, 1, 2], [1, 0, 3, 3, 0])
  assert known.pairs.scores.tolist() == [1, 2, 3, 5, 6] and (known.left_out, known.truncated) == (1, 1)


def test_moments_count_a_text_as_often_as_it_occurs(encoder):
  known = PairTexts.of(Pairs("p", FIRST, SECOND, SCORES), encoder.tokenizer)
  vectors = encoder.encode_texts(known.texts)
  found, expected = known.moments(vectors), Moments.from_vectors(vectors[[*known.first, *known.second]])
  assert found.count == expected.count == 10
  np.testing.assert_allclose(found.mean, expected.mean)
  np.testing.assert_allclose(found.scatter, expected.scatter, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 7, 1 << 14])
def test_cosines_and_moments_are_the_same_block_by_block(monkeypatch, rows):
  monkeypatch.setattr(evaluate, "_ROWS", rows)
  known, vectors = random_pairs(50)
  whitening = Whitening.fit(known.moments(vectors), 5)
  weights = np.bincount([*known.first, *known.second])
  np.testing.assert_allclose(whitening.kernel, Whitening.fit(Moments.from_vectors(vectors, weights), 5).kernel)
  for of, found in ((vectors, known.cosines(vectors)), (whitening.reduce(vectors), known.cosines(vectors, whitening))):
    np.testing.assert_allclose(found, cosines_of(of[known.first], of[known.second]), atol=1e-12)


def test_memory_beyond_raw_vectors_does_not_grow_with_the_pairs():
  known, vectors = random_pairs(200_000, H=32)
  tracemalloc.start()
  whitening = Whitening.fit(known.moments(vectors), 31)
  known.cosines(vectors)
  known.cosines(vectors, whitening)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 40e6  # the pairs' vectors in float64 are 102 MB


@pytest.mark.parametrize(
  ("rows", "scores", "message"),
  [
    ([0, 1, 3], SCORES, "p: 2 pairs of texts with a token are too few to correlate; give more"),
    ([0, 1, 2], np.full(6, 2.5), "p: every score is 2.5, so there is no order to agree with; give others"),
  ],
)
def test_pairs_that_nothing_can_be_said_of_are_refused(encoder, rows, scores, message):
  with pytest.raises(UsageError) as error:
    PairTexts.of(Pairs("p", FIRST, SECOND, scores).select(np.array(rows)), encoder.tokenizer)
  assert str(error.value) == message


def test_too_few_texts_for_a_whitening_say_what_to_choose(encoder):
  moments = Moments.from_vectors(np.random.default_rng(0).normal(size=(6, 8)))
  with pytest.raises(
    WhiteningError, match=r"^p\.csv: 6 documents are too few for 7 components .*choose --n-components 4"
  ):
    find_whitening(WhiteningOptions(), encoder.spec, "p.csv", lambda: moments)
  found = find_whitening(WhiteningOptions(n_components=4), encoder.spec, "p.csv", lambda: moments)
  assert found is not None and found.fitted_on == "these texts" and found.loaded_from is None
  np.testing.assert_array_equal(found.whitening.kernel, Whitening.fit(moments, 4).kernel)


@pytest.mark.parametrize(
  ("whitened", "for_cosine", "verdict"),
  [
    (0.5101, False, "whitening raises agreement here (Spearman 0.500 raw, 0.510 whitened): use it"),
    (0.509, True, "whitening makes no clear difference here (Spearman 0.500 raw, 0.509 whitened)"),
    (0.491, False, "whitening makes no clear difference here (Spearman 0.500 raw, 0.491 whitened)"),
    (0.48, False, "whitening lowers agreement here (Spearman 0.500 raw, 0.480 whitened): embed with --whitening none"),
    (
      0.48,
      True,
      "whitening lowers agreement here (Spearman 0.500 raw, 0.480 whitened); this encoder was trained for similarity: "
      "embed with --whitening none",
    ),
    (None, False, "nothing can be said: all cosines are the same"),
  ],
)
def test_the_verdict_on_pairs(whitened, for_cosine, verdict):
  agreements = Agreement(0.5, None), Agreement(whitened, None)
  assert verdict_on_pairs(*agreements, 0.009, 2000, for_cosine=for_cosine) == verdict


def test_what_may_be_chance_is_no_advice():
  few = "150 pairs are too few to tell whether whitening helps (Spearman 0.500 raw, {:.3f} whitened)"
  for whitened in (0.579, 0.421, 0.5):
    found = verdict_on_pairs(Agreement(0.5, None), Agreement(whitened, None), 0.08, 150, for_cosine=True)
    assert found == few.format(whitened) + ": differences up to 0.080 may be chance"
  assert "raises" in verdict_on_pairs(Agreement(0.5, None), Agreement(0.581, None), 0.08, 150, for_cosine=False)
  # Sure, and too small to matter.
  assert "no clear" in verdict_on_pairs(Agreement(0.5, None), Agreement(0.507, None), 0.005, 10**6, for_cosine=False)
  found = verdict_on_pairs(Agreement(0.5, None), Agreement(0.9, None), None, 12, for_cosine=False)
  assert found == "12 pairs are too few to tell whether whitening helps (Spearman 0.500 raw, 0.900 whitened)"


def test_noise_is_no_advice():
  known, vectors = random_pairs(150)
  cosines = known.cosines(vectors), known.cosines(vectors, Whitening.fit(known.moments(vectors), 7))
  raw, whitened = map(known.agreement, cosines)
  margin = margin_of_gain(*cosines, known.pairs.scores)
  assert abs(whitened.spearman - raw.spearman) > CLEAR  # which alone would be advice
  assert "150 pairs are too few to tell" in verdict_on_pairs(raw, whitened, margin, 150, for_cosine=False)


def test_a_whitening_of_the_few_texts_that_it_is_judged_by_is_no_advice():
  whitening = Whitening.fit(Moments.from_vectors(np.random.default_rng(0).normal(size=(100, 8))), 7)
  assert too_few_texts(FoundWhitening(whitening, fitted_on="these texts"), 69) == (
    "69 texts are too few to fit 7 components and judge them by the same texts: fit on a corpus (--fit-on) to tell"
  )
  assert too_few_texts(FoundWhitening(whitening, fitted_on="these texts"), 70) is None
  assert too_few_texts(FoundWhitening(whitening, fitted_on="a dataset"), 69) is None
  assert too_few_texts(FoundWhitening(whitening, loaded_from="a file"), 69) is too_few_texts(None, 69) is None


def test_the_verdict_without_scores():
  assert "whitening is likely to help" in verdict_on_texts(0.3, for_cosine=False)
  assert "whitening may help little" in verdict_on_texts(0.29, for_cosine=False)
  assert verdict_on_texts(0.6, for_cosine=True).endswith(
    "cosine 0.60 on average: take it as it is, with --whitening none"
  )
