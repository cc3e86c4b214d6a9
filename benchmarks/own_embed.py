"""Our side of end_to_end.py: a process that keeps an encoder loaded and embeds what it is told to.

  python -m benchmarks.own_embed ENCODER_DIR --precision float32

A request is a line of JSON on stdin, its answer one on stdout, as in peer_encode.py.
"""

import argparse
import time
from importlib.metadata import version
from typing import Any

from benchmarks.rival import serve
from pipeline.embed import Loaders, embed
from pipeline.options import EmbedOptions
from transforms.encoder_spec import EncoderSpec
from transforms.input_files import ReadOptions


def embed_texts(
  request: dict[str, Any],
  encoder: str,
  loaders: Loaders | None = None,
  spec: EncoderSpec | None = None,
  **options: Any,
) -> dict[str, Any]:
  """Embeds the files of a folder; the time is that from the call to the published run, into a dataset that is new."""
  asked = EmbedOptions(
    inputs=(request["texts"],), encoder=encoder, dataset=request["out"], read=ReadOptions(id_column="id"), **options
  )
  started = time.perf_counter()
  outcome = embed(asked, loaders, spec)
  seconds = time.perf_counter() - started
  assert outcome.status == "published", outcome.manifest["verdicts"]
  return {"seconds": seconds, "encoded": outcome.manifest["counts"]["encoded"]}


def main() -> None:
  """Says what this is, and answers; the first request loads the encoder."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("encoder")
  parser.add_argument("--precision", default=EmbedOptions.precision)
  parser.add_argument("--whitening", default="none")
  args = parser.parse_args()
  options = {"precision": args.precision, "whitening": args.whitening}
  versions = {name: version(name) for name in ("sorbus", "tensorflow")}
  serve(versions, lambda request: embed_texts(request, args.encoder, **options))


if __name__ == "__main__":
  main()
