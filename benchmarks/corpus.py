"""A corpus of any size, the same for the same seed, written shard by shard: nothing of it is held.

Texts are short, as titles, questions or product names are: words drawn by Zipf's law from 50,000 that look like words.
One in fifty is a text that others are too, and some of these are very frequent, as boilerplate is.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

VOCABULARY_WORDS = 50_000
MEDIAN_WORDS = 14
SHARE_REPEATED, REPEATED_TEXTS = 0.02, 10_000
SHARD_DOCUMENTS = 100_000
_ONSETS = ("b", "br", "c", "d", "f", "g", "gr", "h", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr", "v", "w")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
_CODAS = ("", "", "", "l", "n", "nd", "r", "rt", "s", "t")
# Zipf's law with Mandelbrot's offset, about that of English.
_ZIPF_OFFSET = 2.7


def make_words(n: int = VOCABULARY_WORDS, seed: int = 0) -> list[str]:
  """Returns n distinct words, the frequent ones short."""
  generator = np.random.default_rng(seed)
  words: dict[str, None] = {}
  while len(words) < n:
    syllables = 1 + int(generator.random() < 0.7) + int(len(words) > 500) + int(generator.random() < len(words) / n)
    parts = [str(generator.choice(kind)) for _ in range(syllables) for kind in (_ONSETS, _VOWELS, _CODAS)]
    words["".join(parts)] = None
  return list(words)


def make_texts(n: int, words: Sequence[str], generator: np.random.Generator) -> list[str]:
  """Returns n texts of words drawn by their rank."""
  lengths = np.clip(generator.lognormal(np.log(MEDIAN_WORDS), 0.5, n), 1, 200).astype(np.int64)
  weights = 1 / (np.arange(len(words)) + _ZIPF_OFFSET)
  cumulative = np.cumsum(weights / weights.sum())
  ranks = np.minimum(np.searchsorted(cumulative, generator.random(lengths.sum())), len(words) - 1)
  drawn = np.asarray(words, dtype=object)[ranks].tolist()
  stops = np.cumsum(lengths).tolist()
  return [" ".join(drawn[start:stop]) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def shards(documents: int, seed: int = 0) -> Iterator[list[str]]:
  """Yields the texts of each shard; a shard depends on the seed and its number alone."""
  words = make_words(seed=seed)
  repeated = make_texts(REPEATED_TEXTS, words, np.random.default_rng([seed, 1]))
  for number, start in enumerate(range(0, documents, SHARD_DOCUMENTS)):
    generator = np.random.default_rng([seed, 2, number])
    texts = make_texts(min(SHARD_DOCUMENTS, documents - start), words, generator)
    for i in np.flatnonzero(generator.random(len(texts)) < SHARE_REPEATED):
      texts[i] = repeated[min(int(generator.pareto(0.8)), REPEATED_TEXTS - 1)]
    yield texts


def write_corpus(folder: Path, documents: int, seed: int = 0) -> int:
  """Writes the corpus as JSONL files with the columns `id` and `text`; returns the bytes of text in it."""
  folder.mkdir(parents=True)
  text_bytes, doc_id = 0, 0
  for number, texts in enumerate(shards(documents, seed)):
    with (folder / f"part-{number:05d}.jsonl").open("w") as file:
      for text in texts:
        file.write(f'{{"id": "document-{doc_id:011d}", "text": {json.dumps(text)}}}\n')
        doc_id += 1
    text_bytes += sum(map(len, texts))
  return text_bytes
