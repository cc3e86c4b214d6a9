import itertools
import json

import benchmarks.corpus
from benchmarks.corpus import make_words, shards, write_corpus


def test_a_corpus_is_the_same_for_the_same_seed_and_another_for_another(monkeypatch):
  monkeypatch.setattr(benchmarks.corpus, "SHARD_DOCUMENTS", 500)
  one, again, other = (list(itertools.chain(*shards(1200, seed))) for seed in (0, 0, 1))
  assert one == again and one != other and len(one) == 1200
  assert next(iter(shards(700))) == one[:500]  # a shard does not depend on how many there are


def test_texts_are_short_most_are_distinct_and_the_first_word_is_frequent():
  (texts,) = shards(5000)
  lengths = [len(text.split()) for text in texts]
  assert 12 < sum(lengths) / len(lengths) < 20 and min(lengths) >= 1
  assert 0.005 < 1 - len(set(texts)) / len(texts) < 0.03
  words = " ".join(texts).split()
  assert 0.02 < words.count(make_words()[0]) / len(words) < 0.08


def test_files_hold_each_document_with_an_id_of_its_own(tmp_path, monkeypatch):
  monkeypatch.setattr(benchmarks.corpus, "SHARD_DOCUMENTS", 500)
  text_bytes = write_corpus(tmp_path / "corpus", 700)
  rows = [json.loads(line) for path in sorted((tmp_path / "corpus").iterdir()) for line in path.open()]
  assert len(rows) == len({row["id"] for row in rows}) == 700
  assert sum(len(row["text"]) for row in rows) == text_bytes
