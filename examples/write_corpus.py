"""Write a small real corpus that every Python carries: the paragraphs of its language reference, as JSONL shards."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

N_SHARDS = 4


def documents() -> Iterator[dict[str, str]]:
  """Yields id, text and topic of each paragraph; white space is folded, so a text is one line of running words."""
  for topic in sorted(topics):
    paragraphs = (" ".join(paragraph.split()) for paragraph in topics[topic].split("\n\n"))
    for number, text in enumerate(filter(None, paragraphs)):
      yield {"id": f"{topic}/{number:03d}", "text": text, "topic": topic}


def write_shards(lines: list[str], folder: Path) -> None:
  """Writes the lines in N_SHARDS files of about equal count."""
  for shard in range(N_SHARDS):
    part = lines[shard * len(lines) // N_SHARDS : (shard + 1) * len(lines) // N_SHARDS]
    path = folder / f"topics-{shard:05d}-of-{N_SHARDS:05d}.jsonl"
    path.write_text("".join(part), encoding="utf-8")


def main(target: Path) -> None:
  """Makes `target` the folder of shards, whole or not at all."""
  target.parent.mkdir(parents=True, exist_ok=True)
  lines = [json.dumps(document) + "\n" for document in documents()]
  with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
    corpus = Path(scratch, "corpus")
    corpus.mkdir()
    write_shards(lines, corpus)
    shutil.rmtree(target, ignore_errors=True)
    corpus.rename(target)
  print(f"{target}: {len(lines)} paragraphs in {N_SHARDS} shards")


if __name__ == "__main__":
  main(Path(sys.argv[1]))
