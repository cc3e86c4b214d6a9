import numpy as np
import pytest

from benchmarks.contenders import BATCH_SIZES, Contender, compare, ratios
from benchmarks.own_embed import embed_texts
from benchmarks.peer_encode import read_texts, write_vectors
from benchmarks.texts import LARGEST_BATCH, draw, sample, write_shards
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import made_up_texts


class Ours:
  """Our own side, in this process and with an encoder that costs nothing."""

  def __init__(self, texts):
    self.encoder = FakeEncoder(make_vocabulary(texts), 16)

  def ask(self, **request):
    return embed_texts(request, "fake", self.encoder.loaders(), self.encoder.spec, whitening="none")


class Peer:
  """Gives the same vectors, the first of them turned round, and says that it took longer the smaller its batches."""

  def __init__(self, encoder):
    self.encoder, self.asked = encoder.load(), []

  def ask(self, texts, out, batch_size):
    vectors = self.encoder.encode_texts(read_texts(texts))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] *= -1
    write_vectors(out, vectors)
    self.asked.append((len(vectors), batch_size))
    return {"seconds": 10 / batch_size, "write_seconds": 0.5}


class Products:
  def ask(self, lengths=()):
    return {"operations": 100.0 * sum(lengths), "operations_per_second": 1e3, "seconds": 0.1}


@pytest.fixture
def folders(tmp_path):
  texts = made_up_texts(20)
  return texts, write_shards(tmp_path / "texts", texts), write_shards(tmp_path / "sample", texts[:4])


def test_our_side_publishes_what_the_peer_gives_and_both_are_told_in_figures(folders, tmp_path):
  texts, corpus, sample = folders
  ours = Ours(texts)
  peer = Peer(ours.encoder)
  contenders = [Contender("ours", ours, "float32", True), Contender("peer", peer, "float32", False)]
  seen = compare(contenders, {"float32": Products()}, corpus, sample, tmp_path, rounds=2)
  n_tokens = int(ours.encoder.load_tokenizer().tokenise(texts).lengths.sum())
  assert (seen["documents"], seen["tokens"], seen["rounds"]) == (20, n_tokens, 2)
  first, second = seen["contenders"]
  assert first["lowest_cosine"] == pytest.approx(1) and second["lowest_cosine"] == pytest.approx(-1)
  assert peer.asked == [(4, 16), *((4, size) for size in BATCH_SIZES), *[(20, 128)] * 2]  # the best of what was tried
  assert second["batch_size"] == 128 and second["write_seconds"] == 0.5
  assert second["seconds"] == {"median": 10 / 128, "low": 10 / 128, "high": 10 / 128}
  assert second["documents_per_second"] == 256 and second["tokens_per_second"] == round(n_tokens * 12.8)
  assert second["share_of_limit"] == round(n_tokens * 100 / 1e3 * 12.8, 3)
  assert seen["products_gflops"] == {"float32": 0.0}
  left = sorted(path.name for path in tmp_path.iterdir())
  assert left == ["ours-1", "peer-1", "sample", "texts"]  # what rounds wrote before is gone


def test_a_ratio_is_taken_round_by_round_and_within_a_precision():
  def seen(name, precision, is_ours, seconds):
    return Contender(name, None, precision, is_ours, seconds=seconds)

  contenders = [
    seen("a", "float32", True, [1.0, 2.0, 4.0]),
    seen("b", "bfloat16", True, [1.0, 1.0, 1.0]),
    seen("c", "float32", False, [3.0, 2.0, 8.0]),
  ]
  assert list(ratios(contenders)) == [{"ours": "a", "peer": "c", "median": 2.0, "low": 1.0, "high": 3.0}]


def test_texts_are_drawn_once_each_in_their_order():
  texts = ["a", " b ", "b", "", "c", "d"]
  assert draw(texts, 10) == ["a", "b", "c", "d"]
  assert draw(texts, 2) == draw(texts, 2) and len(draw(texts, 2)) == 2
  assert draw(texts, 3, seed=1) == sorted(draw(texts, 3, seed=1))


def test_a_sample_has_whole_batches_of_neighbours_by_length():
  texts = ["x" * (i * 7919 % 1280) for i in range(1280)]
  few = sample(texts, 4)
  assert [len(text) for text in few] == [
    n for run in (0, 4, 8) for n in range(run * LARGEST_BATCH, (run + 1) * LARGEST_BATCH)
  ]
  assert sample(texts[:100], 4) == sorted(texts[:100], key=len)


def test_both_sides_read_the_same_texts_in_one_order(tmp_path):
  texts = [f"text {i}, “quoted”" for i in range(11)]
  assert read_texts(write_shards(tmp_path / "a", texts)) == texts
  assert len(list((tmp_path / "a").iterdir())) == 4
