"""Where the wall time of a whole `embed` goes: reading, tokenising, encoding, whitening, writing, Beam and the rest.

  python -m benchmarks.stages ENCODER_DIR [--data FOLDER] [--documents 4000]

Texts are novel paragraphs of FOLDER, or those of Python's own documentation. Each stage's seconds are those that its
own code took, summed over threads and divided by them, so that they add up to the wall time with `Beam and waiting`:
building and starting pipelines, coders, shuffles, and threads that have no bundle left, as while one loads the encoder.
`the encoder` is its own call on each batch, padded. Results go to benchmarks/results/.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import write_results
from benchmarks.scale import watch_stages
from benchmarks.texts import draw, read_corpus, write_shards

# What `watch_stages` times within another stage.
_WITHIN = {"of these, tokenise": "read, bucket, tokenise", "of these, the encoder": "encode"}


def embed_watched(encoder: str, texts: Path, folder: Path, threads: int) -> dict[str, Any]:
  """Embeds a folder of files in this process and returns wall seconds, counts, and the share of each stage."""
  import pipeline.embed
  from pipeline.options import EmbedOptions
  from transforms.encode_documents import BucketEncoder
  from transforms.input_files import ReadOptions

  stopwatch = watch_stages()
  stopwatch.watch(pipeline.embed, "load_encoder", "load and test the encoder")
  stopwatch.watch(BucketEncoder, "_encode_halving", "of these, the encoder")
  options = EmbedOptions(
    inputs=(str(texts),),
    encoder=encoder,
    dataset=str(folder),
    read=ReadOptions(id_column="id"),
    whitening="fit",
    n_components=256,
    threads=threads,
  )
  started = time.monotonic()
  outcome = pipeline.embed.embed(options)
  wall = time.monotonic() - started
  assert outcome.status == "published", outcome.manifest["verdicts"]
  counts = outcome.manifest["counts"]
  kept = {key: counts[key] for key in ("read", "encoded", "encoded_tokens", "computed_tokens")}
  return kept | {"seconds": round(wall, 2), "share": shares(dict(stopwatch.seconds), wall * threads)}


def shares(seconds: dict[str, float], available: float) -> dict[str, float]:
  """Returns what part of all threads' seconds each stage took by itself, and what is left to Beam and waiting."""
  seconds.pop("of these, the fake encoder", None)
  own = dict(seconds)
  for part, whole in _WITHIN.items():
    own[whole] -= seconds.get(part, 0.0)
  left = {"Beam and waiting": available - sum(own.values())}
  return {stage.removeprefix("of these, "): round(s / available, 4) for stage, s in (own | left).items()}


def main() -> None:
  """Measures one run and keeps the results."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("encoder")
  parser.add_argument("--data", type=Path, help="folder with the corpora; without it, Python's documentation")
  parser.add_argument("--documents", type=int, default=4000)
  parser.add_argument("--threads", type=int, default=2)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory(prefix="sorbus-stages-") as name:
    corpus = write_shards(Path(name) / "corpus", draw(read_corpus("paragraphs", args.data) or (), args.documents))
    figures = embed_watched(args.encoder, corpus, Path(name) / "dataset", args.threads)
  print(json.dumps(figures, indent=2))
  write_results("stages", figures)


if __name__ == "__main__":
  main()
