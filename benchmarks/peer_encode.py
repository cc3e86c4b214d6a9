"""The peer's side of end_to_end.py: sentence-transformers, which keeps its model and encodes what it is told to.

  .venv-peers/bin/python benchmarks/peer_encode.py MODEL_FOLDER --backend torch|onnx|openvino --precision as-is|…

Runs in the environment that has it, which has nothing of ours, and in a process of its own also because PyTorch and
TensorFlow abort when both are loaded into one. A request is a line of JSON on stdin, its answer one on stdout.
"""

import argparse
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = {"torch": ("torch",), "onnx": ("optimum-onnx", "onnxruntime"), "openvino": ("optimum-intel", "openvino")}


def model_options(backend: str, precision: str) -> dict[str, Any]:
  """Returns what loads the model so; bfloat16 is what OpenVINO takes by itself where the processor has it."""
  if backend == "torch":
    return {"torch_dtype": precision}
  if backend == "openvino" and precision == "float32":
    return {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}
  return {}


def read_texts(folder: str) -> list[str]:
  """Returns the column `text` of all JSONL files of a folder."""
  parts = (path.read_text(encoding="utf-8") for path in sorted(Path(folder).iterdir()))
  return [json.loads(line)["text"] for part in parts for line in part.split("\n") if line]


def write_vectors(path: str, vectors: np.ndarray) -> None:
  """Writes what a user would: ids and vectors, as Parquet."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
  ids = pa.array([f"{i:08d}" for i in range(len(vectors))])
  pq.write_table(pa.table({"doc_id": ids, "vector": values}), path)


def encode(model: Any, request: dict[str, Any]) -> dict[str, Any]:
  """Encodes the texts of a folder; the time is that of `encode` alone, from a list of strings to an array."""
  texts = read_texts(request["texts"])
  started = time.perf_counter()
  vectors = model.encode(texts, batch_size=request["batch_size"], show_progress_bar=False)
  encoded = time.perf_counter()
  write_vectors(request["out"], vectors)
  return {"seconds": encoded - started, "write_seconds": time.perf_counter() - encoded}


def main() -> None:
  """Loads the model, says so, and answers."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("model")
  parser.add_argument("--backend", choices=list(PACKAGES), default="torch")
  parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
  args = parser.parse_args()
  answers = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)  # libraries print as well
  from sentence_transformers import SentenceTransformer

  options = model_options(args.backend, args.precision)
  model = SentenceTransformer(args.model, backend=args.backend, device="cpu", model_kwargs=options)
  packages = ("sentence-transformers", "transformers", *PACKAGES[args.backend])
  print(json.dumps({"versions": {name: version(name) for name in packages}}), file=answers)
  for line in sys.stdin:
    print(json.dumps(encode(model, json.loads(line))), file=answers)


if __name__ == "__main__":
  main()
