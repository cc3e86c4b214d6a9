"""Tokens a second of frozen encoders by turns, and their share of what the processor's matrix products allow.

  python -m benchmarks.encoder ENCODER_DIR... [--data FOLDER | --texts NAME=FILE ...] [--rounds 5]

Two encoders, such as one frozen before a change and one after it, are compared batch for batch. The texts are the
sentences and paragraphs of FOLDER, else of Python's own documentation, or FILE's, which has one a line (texts.py).
Batches are as `embed` makes them (sorted, by token budget); some of them, spread evenly over all lengths, are run.

The limit is measured by the same turns: TensorFlow's product of one full batch [token budget, n] with a constant matrix
[n, m], for each matrix shape of the model's, several of them in one call so that the call costs nothing. The best of
these rates in any round is the limit. An encoder's share of it is the floating-point operations of its matrix products,
of real tokens only (so that padding is a loss), divided by the time of its fastest round and by that limit: what else
the machine does can only slow both. Tokens a second are the median's, with the slowest and the fastest round beside it.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Timing, alternate, timed, write_results
from benchmarks.texts import read_corpus, read_lines
from transforms.batching import pad_batch, token_budget_batches
from transforms.encoder_files import read_checked
from transforms.encoder_spec import GRAPH_FILE, BertConfig, EncoderSpec, load_tokenizer, read_spec
from transforms.frozen_graph import parse, session_config, tf

PRECISIONS = ("float32", "bfloat16")
# Products of one shape in one call of TensorFlow.
PRODUCTS = 8
Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Work:
  """Some batches of one corpus.

  Attributes:
    batches: ids and mask, int32 [B, T] each.
    lengths: of their texts, in tokens.
  """

  batches: list[Batch]
  lengths: np.ndarray

  @property
  def padding(self) -> float:
    """The share of what is computed that is no token of a text."""
    return 1 - float(self.lengths.sum()) / sum(ids.size for ids, _ in self.batches)

  def matrix_flops(self, config: BertConfig, depth: int) -> float:
    """Returns the operations in the matrix products of `depth` blocks: dense layers, and attention's two products."""
    H, inner = config.hidden_size, config.intermediate_size
    tokens, squares = float(self.lengths.sum()), float((self.lengths.astype(np.float64) ** 2).sum())
    return depth * (tokens * 2 * (4 * H * H + 2 * H * inner) + squares * 4 * H)


def read_texts(asked: Sequence[str], data: Path | None = None) -> dict[str, list[str]]:
  """Returns the texts of each corpus by its name: of the files NAME=FILE, or else the two of `data`."""
  if asked:
    return {name: read_lines(Path(file)) for name, _, file in (pair.partition("=") for pair in asked)}
  return {name: read_corpus(name, data) or [] for name in ("sentences", "paragraphs")}


def make_work(encoder_dir: str, texts: Sequence[str], n_batches: int, token_budget: int) -> Work:
  """Returns `n_batches` batches of a sample of the texts, spread over all lengths."""
  chosen = np.random.default_rng(0).permutation(len(texts))[:6000]
  tokens = load_tokenizer(encoder_dir).tokenise([texts[i] for i in chosen])
  every = list(token_budget_batches(tokens.lengths, token_budget))
  rows = [every[i] for i in np.linspace(0, len(every) - 1, min(n_batches, len(every))).astype(int)]
  batches = [pad_batch(tokens.input_ids, tokens.offsets, batch) for batch in rows]
  return Work(batches, tokens.lengths[np.concatenate(rows)])


def session_of(graph: "tf.Graph", precision: str, threads: int) -> "tf.compat.v1.Session":
  """Returns a session over a graph, which computes in a precision."""
  return tf.compat.v1.Session(graph=graph, config=session_config(precision, intra_op_parallelism_threads=threads))


def load(encoder_dir: str, spec: EncoderSpec, precision: str, threads: int) -> Callable[..., np.ndarray]:
  """Returns an encoder's graph as a function of ids and mask; float32 runs as `FrozenGraph` does."""
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(parse(read_checked(encoder_dir, GRAPH_FILE, spec.graph_sha256)), name="")
  names = (spec.tensors.output, spec.tensors.input_ids, spec.tensors.input_mask)
  output, *feeds = (graph.get_tensor_by_name(f"{name}:0") for name in names)
  run: Callable[..., np.ndarray] = session_of(graph, precision, threads).make_callable(output, feeds)
  return run


def product(rows: int, inner: int, columns: int, precision: str, threads: int) -> Callable[[], object]:
  """Returns a function that multiplies [rows, inner] with PRODUCTS constant matrices [inner, columns], one by one.

  One number of each is read, for TensorFlow leaves out what nobody reads.
  """
  dtype, generator = tf.as_dtype(precision), np.random.default_rng(0)
  with tf.Graph().as_default() as graph:
    x = tf.compat.v1.placeholder(dtype, [rows, inner])
    ys: list[tf.Tensor] = []
    for _ in range(PRODUCTS):
      matrix = tf.constant(generator.normal(size=(inner, columns)), dtype)
      with tf.control_dependencies(ys[-1:]):
        ys.append(tf.matmul(x, matrix))
    run = session_of(graph, "float32", threads).make_callable(tf.add_n([y[0, 0] for y in ys]), [x])
  fed = generator.normal(size=(rows, inner)).astype(dtype.as_numpy_dtype)
  return lambda: run(fed)


def shapes(config: BertConfig) -> dict[str, tuple[int, int]]:
  """Returns the matrices [n, m] of the model's dense layers."""
  H, inner = config.hidden_size, config.intermediate_size
  return {"[H, 3H]": (H, 3 * H), "[H, H]": (H, H), "[H, I]": (H, inner), "[I, H]": (inner, H)}


def encoding(run: Callable[..., np.ndarray], work: Work, callers: int) -> Callable[[], float]:
  """Returns a rival that runs all batches, from several threads at once as `embed` does."""
  threads = ThreadPoolExecutor(callers)
  return lambda: timed(lambda: list(threads.map(lambda batch: run(*batch), work.batches)))


def multiplying(run: Callable[[], object]) -> Callable[[], float]:
  """Returns a rival that runs some products for a fifth of a second or more, and returns the median call's seconds."""

  def measured() -> float:
    seconds: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < 0.2:
      seconds.append(timed(run))
    return statistics.median(seconds)

  return measured


def measure(args: argparse.Namespace, precision: str, corpora: Mapping[str, Work]) -> dict[str, Any]:
  """Lets encoders and products work by turns in one precision, prints a line for each, and returns the figures."""
  specs = {folder: read_spec(folder) for folder in args.encoders}
  config = specs[args.encoders[0]].config
  assert config is not None, "a graph that was frozen elsewhere does not say how many operations it has"
  sizes = {name: (args.token_budget, *shape) for name, shape in shapes(config).items()}
  rivals = {name: multiplying(product(*size, precision, args.threads)) for name, size in sizes.items()}
  runs = {folder: load(folder, spec, precision, args.threads) for folder, spec in specs.items()}
  ways = [(folder, name, callers) for name in corpora for callers in args.callers for folder in runs]
  rivals |= {str(way): encoding(runs[way[0]], corpora[way[1]], way[2]) for way in ways}
  for rival in rivals.values():  # once, for what is compiled and kept at the first call of a shape
    rival()
  timings = alternate(rivals, args.rounds)
  rates = {name: 2 * PRODUCTS * np.prod(size) / timings[name].low for name, size in sizes.items()}
  limit = max(rates.values())
  rows = [row_of(specs[way[0]], corpora[way[1]], way, timings[str(way)], limit) for way in ways]
  print(f"{precision}: products " + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items()))
  print_rows(rows)
  return {"products_gflops": {name: round(rate / 1e9, 1) for name, rate in rates.items()}, "encoders": rows}


def row_of(spec: EncoderSpec, work: Work, way: tuple[str, str, int], timing: Timing, limit: float) -> dict[str, Any]:
  """Returns the figures of an encoder on a corpus; `way` is its folder, the corpus and how many call it."""
  assert spec.config is not None
  flops, tokens = work.matrix_flops(spec.config, max(spec.layers)), int(work.lengths.sum())
  low, middle, high = (round(tokens / seconds) for seconds in (timing.high, timing.median, timing.low))
  return {
    "encoder": Path(way[0]).name,
    "corpus": way[1],
    "callers": way[2],
    "tokens_per_text": round(float(work.lengths.mean()), 1),
    "padding": round(work.padding, 4),
    "tokens_per_second": middle,
    "lowest": low,
    "highest": high,
    "share_of_limit": round(flops / timing.low / limit, 3),
  }


def print_rows(rows: Iterable[dict[str, Any]]) -> None:
  """Prints a line for each."""
  for row in rows:
    what = f"{row['encoder']:16} {row['corpus']:10} callers {row['callers']}"
    print(
      f"  {what} {row['tokens_per_second']:6} tokens/s ({row['lowest']} to {row['highest']}), "
      f"{row['share_of_limit']:.1%} of the limit, padding {row['padding']:.1%}",
      flush=True,
    )


def main() -> None:
  """Measures each precision and keeps the results."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("encoders", nargs="+", metavar="ENCODER_DIR")
  parser.add_argument("--data", type=Path, help="folder with the corpora; without it, Python's documentation")
  parser.add_argument("--texts", nargs="+", default=[], metavar="NAME=FILE")
  parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--batches", type=int, default=12, help="of each corpus")
  parser.add_argument("--callers", type=int, nargs="+", default=[1, 2], help="threads that call one session at once")
  parser.add_argument("--token-budget", type=int, default=2048)
  parser.add_argument("--threads", type=int, default=0, help="for one operation; every core by default")
  args = parser.parse_args()
  corpora = {
    name: make_work(args.encoders[0], texts, args.batches, args.token_budget)
    for name, texts in read_texts(args.texts, args.data).items()
  }
  results = {precision: measure(args, precision, corpora) for precision in args.precisions}
  write_results("encoder", {"token_budget": args.token_budget, "threads": args.threads, **results})


if __name__ == "__main__":
  main()
