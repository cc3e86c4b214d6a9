"""Whitening N vectors of width 768 to 256, fit and apply, from one file: Sorbus's own functions and those of its peers.

  python -m benchmarks.whitening [--vectors 1000000] [--hidden-size 768] [--components 256] [--rounds 3] [--folder DIR]

The file holds float32 rows, made from a seed: correlated, variances falling 3,000-fold, means of the size of the
deviations. Each run is a process of its own, by turns, and reads the file, whole or in blocks of 4,096, as a rule from
the system's cache; seconds are those of reading, fitting and reducing, memory is the highest resident set less the one
before the first vector. What is reduced is dropped block by block by who works in blocks, kept by who does not.
IncrementalPCA, which needs a minute for 65,536 vectors, gets so many at the most, one round.

With --accuracy no time is taken, but of 65,536 vectors: the largest deviation of the reduced covariance from the
identity, as they are, with means a hundred times the deviations, and with all components but one; and of vectors in a
plane, as a layer normalisation gives them, the variance across it, which is rounding alone, as a share of the largest.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Timing, alternate, write_results
from transforms.moments import Moments
from transforms.whitening import Whitening, normalise

BLOCK_ROWS = 4096  # as in read_raw_blocks.py, which imports Beam: seconds in every process
SLOW_VECTORS = ACCURACY_VECTORS = 65_536
_THREADS = 2  # as many bundles as the local runner works on at once, by default
Reduce = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class VectorFile:
  """float32 rows [N, H] in a file."""

  path: Path
  count: int
  hidden_size: int

  def block(self, start: int) -> np.ndarray:
    """Reads at most BLOCK_ROWS rows."""
    rows = min(BLOCK_ROWS, self.count - start)
    offset = start * self.hidden_size * 4
    return np.fromfile(self.path, np.float32, rows * self.hidden_size, offset=offset).reshape(rows, -1)

  def starts(self) -> range:
    """The first row of each block."""
    return range(0, self.count, BLOCK_ROWS)

  def blocks(self) -> Iterator[np.ndarray]:
    """Reads all in blocks."""
    return map(self.block, self.starts())

  def whole(self) -> np.ndarray:
    """Reads all at once."""
    return np.fromfile(self.path, np.float32, self.count * self.hidden_size).reshape(self.count, -1)


# Each rival yields, once it is fitted, how it reduces a block; resumed, it reduces the whole file.


def sorbus(file: VectorFile, K: int) -> Iterator[Reduce]:
  """The pipeline's functions, on two threads with one of BLAS each."""
  with ThreadPoolExecutor(_THREADS) as pool:
    parts = pool.map(lambda i: _moments(file, file.starts()[i::_THREADS]), range(_THREADS))
    whitening = Whitening.fit(reduce(Moments.merge, parts), K)
    yield whitening.reduce
    list(pool.map(lambda i: _reduce(file, file.starts()[i::_THREADS], whitening), range(_THREADS)))


def _moments(file: VectorFile, starts: range) -> Moments:
  parts = (Moments.from_vectors(file.block(start)) for start in starts)
  return reduce(Moments.merge, parts, Moments.empty(file.hidden_size))


def _reduce(file: VectorFile, starts: range, whitening: Whitening) -> None:
  for start in starts:
    normalise(whitening.reduce(file.block(start)))


def products_alone(file: VectorFile, K: int) -> Iterator[Reduce]:
  """Only the float64 products that ours cannot do without, of one block again and again."""
  block = file.block(0).astype(np.float64)
  kernel = np.ascontiguousarray(block[: file.hidden_size, :K])
  with ThreadPoolExecutor(_THREADS) as pool:
    list(pool.map(lambda _: (block.T @ block).size, file.starts()))
    yield lambda rows: rows @ kernel
    list(pool.map(lambda _: (block @ kernel).size, file.starts()))


def blocked_float32(file: VectorFile, K: int) -> Iterator[Reduce]:
  """What float32 products would be worth, in fit and in apply."""
  mean, covariance = _float32_covariance(file)
  yield from _apply_by_blocks(file, mean.astype(np.float32), _kernel(covariance, K).astype(np.float32))


def _float32_covariance(file: VectorFile) -> tuple[np.ndarray, np.ndarray]:
  """Blocks less the first one's mean, multiplied in float32; sums of blocks in float64."""
  H, shift = file.hidden_size, file.block(0).mean(axis=0)
  total, scatter = np.zeros(H), np.zeros((H, H))
  for block in file.blocks():
    block -= shift
    total += block.sum(axis=0, dtype=np.float64)
    scatter += block.T @ block
  mean = total / file.count
  covariance = (scatter - np.outer(total, mean)) / (file.count - 1)
  return shift + mean, covariance


def numpy_formula(file: VectorFile, K: int) -> Iterator[Reduce]:
  """The published formula: all in memory, np.cov, SVD, kernel, L2."""
  vectors = np.concatenate([file.whole()], axis=0)
  bias = -vectors.mean(axis=0, keepdims=True)
  u, s, _ = np.linalg.svd(np.cov(vectors.T))
  kernel = np.dot(u, np.diag(1 / np.sqrt(s)))[:, :K]
  yield lambda block: (block + bias).dot(kernel)
  vectors = (vectors + bias).dot(kernel)
  vectors / (vectors**2).sum(axis=1, keepdims=True) ** 0.5


def pca(file: VectorFile, K: int) -> Iterator[Reduce]:
  """scikit-learn's PCA(whiten=True) of float32."""
  yield from _pca(file.whole(), K)


def pca_float64(file: VectorFile, K: int) -> Iterator[Reduce]:
  """The same of float64, the precision of our moments."""
  yield from _pca(file.whole().astype(np.float64), K)


def _pca(vectors: np.ndarray, K: int) -> Iterator[Reduce]:
  from sklearn.decomposition import PCA

  fitted = PCA(K, whiten=True).fit(vectors)
  yield lambda block: fitted.transform(block.astype(vectors.dtype))
  fitted.transform(vectors)


def incremental_pca(file: VectorFile, K: int) -> Iterator[Reduce]:
  """scikit-learn's IncrementalPCA(whiten=True)."""
  from sklearn.decomposition import IncrementalPCA

  fitted = IncrementalPCA(K, whiten=True, batch_size=BLOCK_ROWS)
  for block in file.blocks():
    fitted.partial_fit(block)
  yield fitted.transform
  for block in file.blocks():
    fitted.transform(block)


def tft_style(file: VectorFile, K: int, kind: type = np.float64) -> Iterator[Reduce]:
  """E[xxᵀ] - μμᵀ from sums over blocks, the arithmetic of TensorFlow Transform's CovarianceCombiner."""
  H = file.hidden_size
  total, products = np.zeros(H, kind), np.zeros((H, H), kind)
  for block in file.blocks():
    vectors = block.astype(kind)
    total += vectors.sum(axis=0)
    products += vectors.T @ vectors
  mean = total / kind(file.count)
  covariance = products / kind(file.count) - np.outer(mean, mean)
  covariance *= kind(file.count / (file.count - 1))  # ddof 1 as the others, so that what differs is digits
  yield from _apply_by_blocks(file, mean, _kernel(covariance, K))


def tft_style_float32(file: VectorFile, K: int) -> Iterator[Reduce]:
  """The same in float32, as it is for float32 columns unless another type is asked for."""
  yield from tft_style(file, K, np.float32)


def _kernel(covariance: np.ndarray, K: int) -> np.ndarray:
  variance, directions = np.linalg.eigh(covariance)
  with np.errstate(invalid="ignore", divide="ignore"):
    return np.ascontiguousarray((directions / np.sqrt(variance))[:, ::-1][:, :K])


def _apply_by_blocks(file: VectorFile, mean: np.ndarray, kernel: np.ndarray) -> Iterator[Reduce]:
  yield lambda block: (block - mean) @ kernel
  for block in file.blocks():
    reduced = (block - mean) @ kernel
    reduced /= np.linalg.norm(reduced, axis=1, keepdims=True)


PRODUCTS = "float64 products alone"
RIVALS: dict[str, Callable[[VectorFile, int], Iterator[Reduce]]] = {
  "sorbus": sorbus,
  PRODUCTS: products_alone,
  "NumPy formula": numpy_formula,
  "PCA": pca,
  "PCA float64": pca_float64,
  "tft-style": tft_style,
  "blocked float32": blocked_float32,
  "IncrementalPCA": incremental_pca,
}
SLOW = "IncrementalPCA"
INACCURATE = {"tft-style float32": tft_style_float32}


def run_rival(name: str, file: VectorFile, K: int) -> dict[str, float]:
  """Fits and reduces in this process."""
  if "PCA" in name:
    import sklearn.decomposition  # noqa: F401  its memory is no vector's
  np.linalg.eigh(np.eye(64))
  before, started = _peak_mb(), time.perf_counter()
  rival = RIVALS[name](file, K)
  next(rival)
  fitted = time.perf_counter()
  next(rival, None)
  ended = time.perf_counter()
  return {"seconds": ended - started, "fit": fitted - started, "memory_mb": _peak_mb() - before}


def _peak_mb() -> float:
  """Returns the highest resident set; ru_maxrss would begin with that of the process that started this one."""
  status = Path("/proc/self/status").read_text()
  return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def write_vectors(path: Path, count: int, H: int, mean: float = 1.0, plane: bool = False) -> VectorFile:
  """Writes seeded vectors: deviations from 1 to 0.018, mixed; each mean is `mean` times the deviation, up or down."""
  generator = np.random.default_rng(7)
  deviations = np.geomspace(1, 0.018, H).astype(np.float32)
  deviations[H - int(plane) :] = 0
  mixing = np.linalg.qr(generator.standard_normal((H, H)))[0].astype(np.float32)
  means = mean * np.sqrt((deviations**2).mean()) * generator.choice([-1, 1], H)
  with path.open("wb") as out:
    for start in range(0, count, BLOCK_ROWS):
      rows = min(BLOCK_ROWS, count - start)
      block = (generator.standard_normal((rows, H), np.float32) * deviations) @ mixing.T + means
      block.astype(np.float32).tofile(out)
  return VectorFile(path, count, H)


def off_identity(rival: Callable[[VectorFile, int], Iterator[Reduce]], file: VectorFile, K: int) -> float:
  """Returns the largest deviation of the reduced vectors' covariance from the identity; NaN where there are none."""
  to_reduced = next(rival(file, K))
  blocks = (to_reduced(block) for block in file.blocks())
  try:
    covariance = reduce(Moments.merge, map(Moments.from_vectors, blocks)).covariance()
  except ValueError:  # not finite: the root of a negative variance
    return float("nan")
  return float(np.abs(covariance - np.eye(K)).max())


def accuracy(folder: Path, H: int, K: int) -> dict[str, dict[str, float | None]]:
  """Returns `off_identity` of each rival as the vectors are, with large means, and of all components but the last."""
  cases = {"as they are": (1.0, K), "means x 100": (100.0, K), "all but one component": (1.0, H - 1)}
  found: dict[str, dict[str, float | None]] = {}
  for case, (mean, components) in cases.items():
    file = write_vectors(folder / "accuracy", ACCURACY_VECTORS, H, mean)
    for name, rival in {**RIVALS, **INACCURATE}.items():
      if name != PRODUCTS and (name != SLOW or case == "as they are"):
        off = off_identity(rival, file, components)
        found.setdefault(name, {})[case] = None if np.isnan(off) else off
  return found


def across_a_plane(folder: Path, H: int) -> dict[str, float]:
  """Returns the least variance of vectors in a plane over the largest, of float64 and of float32 products."""
  file = write_vectors(folder / "plane", ACCURACY_VECTORS, H, plane=True)
  ours = _moments(file, file.starts()).covariance()
  covariances = {"float64": ours, "float32": _float32_covariance(file)[1]}
  variances = {name: np.linalg.eigvalsh(covariance) for name, covariance in covariances.items()}
  return {name: float(abs(variance[0]) / variance[-1]) for name, variance in variances.items()}


def in_a_process(name: str, file: VectorFile, K: int, log: list[dict[str, float]]) -> float:
  """Runs a rival in a process of its own and returns its seconds."""
  # The pipeline gives BLAS one thread; the rivals have all that they take.
  environment = os.environ | ({"OPENBLAS_NUM_THREADS": "1"} if name in ("sorbus", PRODUCTS) else {})
  command = [sys.executable, "-m", "benchmarks.whitening", "--rival", name, "--file", str(file.path)]
  command += ["--vectors", str(file.count), "--hidden-size", str(file.hidden_size), "--components", str(K)]
  done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
  log.append(json.loads(done.stdout))
  return log[-1]["seconds"]


def race(names: list[str], file: VectorFile, K: int, rounds: int) -> dict[str, Any]:
  """Lets rivals work by turns."""
  logs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
  few = VectorFile(file.path, min(file.count, SLOW_VECTORS), file.hidden_size)
  quick = [name for name in names if name != SLOW]
  alternate({name: partial(in_a_process, name, file, K, logs[name]) for name in quick}, rounds)
  if SLOW in names:
    in_a_process(SLOW, few, K, logs[SLOW])
  return {name: _summary(log, few.count if name == SLOW else file.count) for name, log in logs.items()}


def _summary(log: list[dict[str, float]], vectors: int) -> dict[str, Any]:
  timing = Timing.of([run["seconds"] for run in log])
  fit, memory = Timing.of([run["fit"] for run in log]).median, max(run["memory_mb"] for run in log)
  seconds = {"median": round(timing.median, 2), "low": round(timing.low, 2), "high": round(timing.high, 2)}
  return {"vectors": vectors, "seconds": seconds, "of_these_fit": round(fit, 2), "memory_mb": round(memory)}


def main() -> None:
  """Runs the benchmark, or with --rival one rival for it."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--vectors", type=int, default=1_000_000)
  parser.add_argument("--hidden-size", type=int, default=768)
  parser.add_argument("--components", type=int, default=256)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--folder", type=Path, help="where 4 x 768 x vectors bytes are free; else the system's")
  parser.add_argument("--accuracy", action="store_true", help="measure what each arithmetic is worth, not its time")
  parser.add_argument("--rivals", nargs="+", choices=list(RIVALS), default=list(RIVALS))
  parser.add_argument("--rival", choices=list(RIVALS), help=argparse.SUPPRESS)
  parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.rival:
    print(json.dumps(run_rival(args.rival, VectorFile(args.file, args.vectors, args.hidden_size), args.components)))
    return
  with tempfile.TemporaryDirectory(dir=args.folder) as folder:
    if args.accuracy:
      measure_accuracy(Path(folder), args.hidden_size, args.components)
    else:
      file = write_vectors(Path(folder) / "vectors", args.vectors, args.hidden_size)
      found = race(args.rivals, file, args.components, args.rounds)
      _tell(found)
      write_results("whitening", {"rounds": args.rounds, "components": args.components, "rivals": found})


def measure_accuracy(folder: Path, H: int, K: int) -> None:
  """Prints and writes what each rival's arithmetic is worth."""
  errors, across = accuracy(folder, H, K), across_a_plane(folder, H)
  _tell(errors)
  _tell({"across a plane": across})
  write_results("whitening_accuracy", {"off_identity": errors, "across_a_plane": across})


def _tell(found: dict[str, Any]) -> None:
  for name, values in found.items():
    print(f"{name:18} {json.dumps(values)}")


if __name__ == "__main__":
  main()
