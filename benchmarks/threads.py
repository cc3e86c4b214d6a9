"""How fast a graph encodes by bundles at a time × threads of an operation, and by tokens in a batch.

  python -m benchmarks.threads ENCODER --texts FILE [--documents 600] [--precision float32|bfloat16] [--rounds 5]

FILE has a document a line. Bundles share one session, as they do in a run. Rivals take the same texts by turns. With
--bounded the process's allocators are as `sorbus embed` sets them: run both, more than once, to see what that costs.
Results go to benchmarks/results/, one entry for each FILE and precision.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import RESULTS, alternate, timed, write_results
from benchmarks.tokenising import read_texts
from pipeline.memory import bound_allocators
from transforms.batching import pad_batch, token_budget_batches
from transforms.encoder_spec import GRAPH_FILE, EncoderSpec, load_wordpiece, read_spec
from transforms.frozen_graph import parse, tf
from transforms.wordpiece import Tokens

Batch = tuple[np.ndarray, np.ndarray]
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
# (bundles at a time, threads of an operation)
SHAPES = ((1, 2), (2, 2), (2, 1))
BUDGETS = (1024, 2048, 4096, 8192)


def start(folder: str, spec: EncoderSpec, threads: int, bfloat16: bool) -> Run:
  """Returns an encoder's graph as a function, in a session of its own."""
  config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=2)
  if bfloat16:
    config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = 1
  graph = tf.Graph()
  with graph.as_default():
    tf.import_graph_def(parse(Path(folder, GRAPH_FILE).read_bytes()), name="")
  names = spec.tensors
  output, *feeds = (graph.get_tensor_by_name(f"{n}:0") for n in (names.output, names.input_ids, names.input_mask))
  return tf.compat.v1.Session(graph=graph, config=config).make_callable(output, feeds)


def cut(tokens: Tokens, budget: int) -> list[Batch]:
  """Returns padded batches of all texts."""
  return [pad_batch(tokens.input_ids, tokens.offsets, rows) for rows in token_budget_batches(tokens.lengths, budget)]


def seconds(run: Run, batches: Sequence[Batch], bundles: int) -> float:
  """Returns what all batches take, so many at a time."""
  with ThreadPoolExecutor(bundles) as pool:
    return timed(lambda: list(pool.map(lambda batch: run(*batch), batches)))


def main() -> None:
  """Measures one file in one precision and adds it to the results."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("encoder")
  parser.add_argument("--texts", type=Path, required=True)
  parser.add_argument("--documents", type=int, default=600)
  parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--bounded", action="store_true")
  args = parser.parse_args()
  if args.bounded:
    bound_allocators()
  spec = read_spec(args.encoder)
  tokens = load_wordpiece(args.encoder, spec).tokenise(read_texts(args.texts)[: args.documents])
  runs = {n: start(args.encoder, spec, n, args.precision == "bfloat16") for n in (1, 2)}
  batches = {budget: cut(tokens, budget) for budget in BUDGETS}
  for run in runs.values():  # the first calls optimise the graph
    seconds(run, batches[2048][::8], 1)
  rivals = {f"{b} x {n}, 2048": partial(seconds, runs[n], batches[2048], b) for b, n in SHAPES}
  rivals |= {f"2 x 2, {budget}": partial(seconds, runs[2], batches[budget], 2) for budget in BUDGETS}
  total = len(tokens.input_ids)
  figures = {name: round(total / timing.median) for name, timing in alternate(rivals, args.rounds).items()}
  name = f"{args.texts.name}, {args.precision}{', bounded' if args.bounded else ''}"
  print(json.dumps({name: figures}))
  path = RESULTS / "threads.json"
  known = json.loads(path.read_text())["tokens_per_second"] if path.exists() else {}
  write_results("threads", {"tokens_per_second": known | {name: figures}})


if __name__ == "__main__":
  main()
