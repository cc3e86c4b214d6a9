"""The corpora that encoders are compared on, each of distinct texts, so that nobody wins by encoding repeats once.

They lie in a folder of data that this repository does not carry; without it, Python's own documentation stands in for
the English ones. Or they come from a file that is named, a document a line.
"""

import csv
import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.memory import paragraphs

SHARDS = 4
LARGEST_BATCH = 128


def draw(texts: Iterable[str], most: int, seed: int = 0) -> list[str]:
  """Returns `most` of the distinct texts at random, or all of them, in the order in which they stand."""
  distinct = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
  rows = sorted(random.Random(seed).sample(range(len(distinct)), min(most, len(distinct))))
  return [distinct[row] for row in rows]


def sample(texts: Sequence[str], share: int) -> list[str]:
  """Returns about one in `share` of the texts: runs of neighbours by length, evenly spread.

  A batch of neighbours has the padding that it has in the whole corpus, where texts are sorted; of a random sample the
  larger batches would have more, and so look worse than they are.
  """
  by_length = sorted(texts, key=len)
  runs = [by_length[start : start + LARGEST_BATCH] for start in range(0, len(texts), LARGEST_BATCH)]
  return [text for run in runs[(len(runs) - 1) % share // 2 :: share] for text in run]


def read_corpus(name: str, data: Path | None) -> list[str] | None:
  """Returns the texts of a corpus; None where it needs data that is not there."""
  if data is not None:
    return _READERS[name](data)
  return _STAND_INS[name]() if name in _STAND_INS else None


def read_lines(path: Path) -> list[str]:
  """Returns the documents of a file: a line each, of .jsonl its `text`, of .tsv the first column; no empty ones."""
  lines = [line for line in _lines(path) if line]
  if path.suffix == ".jsonl":
    return [json.loads(line)["text"] for line in lines]
  return [line.partition("\t")[0] for line in lines] if path.suffix == ".tsv" else lines


def write_shards(folder: Path, texts: Sequence[str]) -> Path:
  """Writes texts as JSONL files with the columns `id` and `text`, in their order; returns the folder."""
  folder.mkdir(parents=True)
  each = -(-len(texts) // SHARDS)
  for shard in range(SHARDS):
    rows = [{"id": f"{i:08d}", "text": texts[i]} for i in range(len(texts))[shard * each : (shard + 1) * each]]
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    (folder / f"part-{shard:02d}.jsonl").write_text(lines, encoding="utf-8")
  return folder


def _lines(path: Path) -> list[str]:
  return path.read_text(encoding="utf-8").split("\n")


def _sts_sentences(data: Path) -> list[str]:
  texts: list[str] = []
  for part in ("train", "dev"):
    with (data / f"sts/stsb/stsb-en-{part}.csv").open(encoding="utf-8", newline="") as file:
      texts += [text for row in csv.reader(file) for text in row[:2]]
  return texts


def _documented_sentences() -> list[str]:
  return [sentence for text in paragraphs(None) for sentence in text.split(". ") if 20 < len(sentence) < 200]


def _documented_topics() -> list[str]:
  from pydoc_data.topics import topics

  return [text for text in topics.values() if len(text) > 2000]


_READERS: dict[str, Callable[[Path], list[str]]] = {
  "sentences": _sts_sentences,
  "paragraphs": lambda data: read_lines(data / "corpora/en_novel_paragraphs.txt"),
  "titles": lambda data: read_lines(data / "corpora/zh_news_titles.tsv"),
  "chapters": lambda data: read_lines(data / "corpora/en_novel_chapters.jsonl"),
}
_STAND_INS: dict[str, Callable[[], list[str]]] = {
  "sentences": _documented_sentences,
  "paragraphs": lambda: paragraphs(None),
  "chapters": _documented_topics,
}
CORPORA = tuple(_READERS)
