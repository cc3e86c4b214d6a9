"""What the integration tests read of a run, with pyarrow alone: our own readers are what is tested."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.embed import Outcome, embed
from pipeline.options import EmbedOptions
from tests.fake_encoder import FakeEncoder

# The words of a night whose report nobody reads: drawing one takes half a second.
NIGHT = ("embed", "--no-report")


def embed_fake(
  encoder: FakeEncoder, dataset: Path, inputs: Path | str | Sequence[str], again: bool = True, **options: Any
) -> Outcome:
  """Run `embed` with a fake encoder, although nothing may have changed; `inputs` is a folder, a glob or several."""
  patterns = (str(inputs),) if isinstance(inputs, Path | str) else tuple(inputs)
  asked = EmbedOptions(inputs=patterns, encoder="fake", dataset=str(dataset), again=again, **options)
  return embed(asked, encoder.loaders(), encoder.spec, encoder_bytes=0)


def run_folder(dataset: Path, manifest: Mapping[str, Any]) -> Path:
  """The folder of a run."""
  return dataset / "runs" / manifest["run_id"]


def matrix(column: pa.ChunkedArray) -> np.ndarray:
  """A vector column [N] as float32 [N, K]."""
  return np.array(column.combine_chunks().values).reshape(len(column), -1)


def read_vectors(dataset: Path, manifest: Mapping[str, Any]) -> tuple[list[str], np.ndarray]:
  """Document ids, sorted, and their published vectors float32 [N, K]."""
  table = pq.read_table(run_folder(dataset, manifest) / "vectors").sort_by("doc_id")
  return table["doc_id"].to_pylist(), matrix(table["vector"])


def raw_files(dataset: Path) -> list[Path]:
  """All raw files of a dataset."""
  return sorted(dataset.glob("raw/*/*.parquet"))


def read_raw(dataset: Path, texts: Iterable[str]) -> np.ndarray:
  """Raw vectors float32 [N, H] of N texts, found by blake2b of their UTF-8 bytes."""
  tables = [pq.read_table(path, columns=["text_digest", "vector"]) for path in raw_files(dataset)]
  table = pa.concat_tables(tables)
  row_of = {digest: row for row, digest in enumerate(table["text_digest"].to_pylist())}
  rows = [row_of[hashlib.blake2b(text.encode(), digest_size=16).digest()] for text in texts]
  return matrix(table["vector"])[rows]


def read_rejected(dataset: Path, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Every rejected document of a run."""
  files = sorted(run_folder(dataset, manifest).glob("rejected/*.jsonl"))
  return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def published_runs(dataset: Path) -> list[str]:
  """The ids of the published runs, in order."""
  return [json.loads(path.read_text())["run_id"] for path in sorted(dataset.glob("published/*.json"))]


def write_shards(folder: Path, texts: Sequence[str], n_shards: int) -> Path:
  """Write texts as JSONL shards with ids that do not depend on the sharding; return the folder."""
  folder.mkdir(parents=True)
  for shard in range(n_shards):
    rows = [{"id": f"{i:06d}", "text": texts[i]} for i in range(shard, len(texts), n_shards)]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / f"documents-{shard:05d}-of-{n_shards:05d}.jsonl").write_text(lines)
  return folder


def made_up_texts(n: int, seed: int = 0) -> list[str]:
  """Texts of 5 to 40 words drawn from 300, different with all but certainty."""
  generator = np.random.default_rng(seed)
  words = ["".join(letters) for letters in generator.choice(list("abcdefghijklmnopqrst"), (300, 5))]
  return [" ".join(generator.choice(words, generator.integers(5, 40))) for _ in range(n)]
