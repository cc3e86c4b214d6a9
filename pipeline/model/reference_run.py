"""A graph run as plainly as TensorFlow can, in a process of its own: what the self-test of such a graph is held to.

The fusions that make a graph fast are what has given wrong numbers without a word. Here oneDNN is off, which has to be
said before TensorFlow starts, and so is every optimisation of the graph; one text at a time, so that nothing is padded.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transforms.errors import EncoderError
from transforms.frozen_graph import failures_named, parse, tf

_GRAPH, _REQUEST, _RESULT, _ARRAYS = "graph.pb", "request.json", "result.json", "arrays.npz"


@dataclass(frozen=True)
class Reference:
  """What a graph gave.

  Attributes:
    trial: the shape of its output for the second text, twice in one batch.
    outputs: float32 [T, H] or [H], one for each text that it could compute.
    failure: why the next could not be computed; None if all could.
    longest: how many tokens it could compute, where it failed.
  """

  trial: tuple[int, ...]
  outputs: list[np.ndarray]
  failure: str | None
  longest: int


def run_reference(graph: bytes, output: str, cases: Sequence[Sequence[int]]) -> Reference:
  """Runs a graph with int32 [B, T] inputs `input_ids` and `input_mask` on token sequences, from short to long.

  Raises:
    EncoderError: TensorFlow came to an end without a result, or there is no room for the graph.
  """
  try:
    with tempfile.TemporaryDirectory(prefix="sorbus-") as name:
      return _run_in(Path(name), graph, output, cases)
  except OSError as error:
    raise EncoderError(
      f"graph: cannot be run from {tempfile.gettempdir()} ({error.strerror or error}); set TMPDIR to a folder with room"
    ) from error


def _run_in(folder: Path, graph: bytes, output: str, cases: Sequence[Sequence[int]]) -> Reference:
  (folder / _GRAPH).write_bytes(graph)
  (folder / _REQUEST).write_text(json.dumps({"output": output, "cases": cases}))
  # -P: the folder that a person stands in, with a json.py of somebody else's, is no place to import from.
  command = [sys.executable, "-P", "-m", __name__, str(folder)]
  done = subprocess.run(command, env=_environment(), capture_output=True, check=False)
  if done.returncode:
    raise EncoderError(f"graph: {_why_it_ended(done)}")
  result = json.loads((folder / _RESULT).read_text())
  with np.load(folder / _ARRAYS) as arrays:
    outputs = [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
  return Reference(tuple(result["trial"]), outputs, result["failure"], result["longest"])


def _why_it_ended(done: "subprocess.CompletedProcess[bytes]") -> str:
  if done.returncode == -signal.SIGKILL:
    return (
      "the system ended TensorFlow while it computed it, as it does when memory is short; free some, or take another"
    )
  last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
  return f"TensorFlow ended with {done.returncode} while it computed it ({last[:200]}); freeze it again"


def _environment() -> dict[str, str]:
  off = {"TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
  return {**os.environ, **off, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


def run_plainly(graph: bytes, output: str) -> Callable[[np.ndarray], np.ndarray]:
  """Returns the function from int32 [B, T] without padding to what a graph gives, run with nothing optimised.

  It raises EncoderError for what cannot be computed. oneDNN is off only if TensorFlow was started so.
  """
  config = tf.compat.v1.ConfigProto()
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  config.graph_options.optimizer_options.opt_level = tf.compat.v1.OptimizerOptions.L0
  with tf.Graph().as_default() as imported:
    tf.import_graph_def(parse(graph), name="")
  session = tf.compat.v1.Session(graph=imported, config=config)
  run = session.make_callable(f"{output}:0", ["input_ids:0", "input_mask:0"])

  def encode(input_ids: np.ndarray) -> np.ndarray:
    with failures_named():
      vectors: np.ndarray = run(input_ids, np.ones_like(input_ids))
    return vectors

  return encode


def _main(folder: Path) -> None:
  request = json.loads((folder / _REQUEST).read_text())
  cases = [np.array([case], np.int32) for case in request["cases"]]
  reference = _run(run_plainly((folder / _GRAPH).read_bytes(), request["output"]), cases)
  np.savez(folder / _ARRAYS, *reference.outputs)
  result = {"trial": reference.trial, "failure": reference.failure, "longest": reference.longest}
  (folder / _RESULT).write_text(json.dumps(result))


def _run(encode: Callable[[np.ndarray], np.ndarray], cases: Sequence[np.ndarray]) -> Reference:
  """Runs cases, each int32 [1, T]."""
  outputs: list[np.ndarray] = []
  trial: tuple[int, ...] = ()
  try:
    trial = encode(np.repeat(cases[1], 2, axis=0)).shape
    for case in cases:
      outputs.append(np.atleast_1d(encode(case))[0])  # one number in all is for the caller to refuse
  except EncoderError as error:
    longest = _longest(encode, cases[len(outputs)], cases[len(outputs) - 1].shape[1]) if outputs else 0
    return Reference(trial, outputs, str(error), longest)
  return Reference(trial, outputs, None, cases[-1].shape[1])


def _longest(encode: Callable[[np.ndarray], np.ndarray], case: np.ndarray, computed: int) -> int:
  """How many tokens can be computed, of a case that cannot be as a whole."""
  too_long = case.shape[1]
  while too_long - computed > 1:
    middle = (computed + too_long) // 2
    try:
      encode(case[:, :middle])
      computed = middle
    except EncoderError:
      too_long = middle
  return computed


if __name__ == "__main__":
  _main(Path(sys.argv[1]))
