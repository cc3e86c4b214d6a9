"""The same frozen graph, run by OpenVINO: an encoder engine beside TensorFlow's, and an extra, `sorbus[openvino]`.

A graph may be a stranger's, so it passes every check that TensorFlow's does before OpenVINO sees it. Everything that is
OpenVINO is in this module.
"""

import contextlib
import functools
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from transforms.errors import EncoderError
from transforms.frozen_graph import find_ends, import_checked

try:
  import openvino as ov
  from openvino.frontend import FrontEndManager
except ImportError as error:
  raise EncoderError(
    f"engine openvino: its package is not installed ({error}): pip install 'sorbus[openvino]'"
  ) from error

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoGraph:
  """What `FrozenGraph` is, on OpenVINO. Its methods may be called from several threads at once."""

  def __init__(
    self,
    graph: bytes,
    *,
    input_ids: str,
    input_mask: str,
    output: str,
    hidden: str | None = None,
    probabilities: str | None = None,
    threads: int | None = None,
    precision: str = "float32",
  ):
    """Checks a serialised GraphDef and has OpenVINO read it; takes what `FrozenGraph` takes.

    Raises:
      EncoderError: what `FrozenGraph` refuses, or OpenVINO cannot read.
    """
    ends = find_ends(import_checked(graph), input_ids, input_mask, output, hidden, probabilities)
    self.vector_size: int | None = ends.vectors.shape[-1]
    outputs = [name for name in (output, probabilities, hidden) if name]
    feeds, config = (input_ids, input_mask), _config(threads, precision)
    with _failures_named("cannot be read", "give --engine tensorflow"):
      model = _read(graph, outputs)
      found = model.get_results()
    if len(found) != len(outputs) or len(set(outputs)) < len(outputs):  # compiled all the same, it ends the process
      raise EncoderError(f"graph: not {', '.join(outputs)} apart to OpenVINO, or constant; give --engine tensorflow")
    results = dict(zip(outputs, found, strict=True))
    self._vectors = _Program(model, [results[output]], feeds, config)
    if probabilities:
      self._both = _Program(model, [results[output], results[probabilities]], feeds, config)
    if hidden:
      self._tokens = _Program(model, [results[hidden]], feeds, config)

  def encode(self, input_ids: np.ndarray, input_mask: np.ndarray) -> np.ndarray:
    """Returns float32 [B, W] for token ids and mask, both int32 [B, T].

    Raises:
      EncoderError: the graph cannot be computed for them, or not in the memory that there is.
    """
    return self._vectors(input_ids, input_mask)[0]

  def encode_and_predict(self, input_ids: np.ndarray, input_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32 [B, W] and [B, n_labels]; raises as `encode`. Only with `probabilities`."""
    vectors, probabilities = self._both(input_ids, input_mask)
    return vectors, probabilities

  def encode_tokens(self, input_ids: np.ndarray, input_mask: np.ndarray) -> np.ndarray:
    """Returns float32 [B, T, C], padding with it; raises as `encode`. Only with `hidden`."""
    return self._tokens(input_ids, input_mask)[0]


class _Program:
  """Some outputs of a model, compiled when they are first asked for: each program has the weights once more.

  A request is one thread's: OpenVINO lets no two threads use one at a time.
  """

  def __init__(self, model: Any, results: Sequence[Any], feeds: Sequence[str], config: Mapping[str, Any]):
    self._model, self._results, self._config = model, results, dict(config)
    self._feeds = [f"{name}:0" for name in feeds]
    self._compiled: Any = None
    self._lock = threading.Lock()
    self._of_thread = threading.local()

  def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
    """Returns a copy of each output, for the arrays of all feeds in their order."""
    with _failures_named("cannot be computed", "freeze again, or give a smaller --token-budget or --engine tensorflow"):
      compiled = self._compile()
      if not hasattr(self._of_thread, "request"):
        self._of_thread.request = compiled.create_infer_request()
      # A graph frozen elsewhere may have no use for the mask: then it is none of the inputs.
      known = {name for port in compiled.inputs for name in port.names}
      fed = {name: array for name, array in zip(self._feeds, arrays, strict=True) if name in known}
      found = self._of_thread.request.infer(fed)
      return [found[i] for i in range(len(self._results))]

  def _compile(self) -> Any:
    with self._lock:
      if self._compiled is None:
        part = ov.Model(self._results, self._model.get_parameters(), "encoder")
        self._compiled = _core().compile_model(part, "CPU", self._config)
      return self._compiled


@functools.cache
def _core() -> Any:
  """One for the process and never given up: without any its plugin is unloaded, while threads still are to leave it."""
  return ov.Core()


def _config(threads: int | None, precision: str) -> dict[str, Any]:
  # One stream: a batch has all threads, as in TensorFlow. A stream for each caller pays only while all are at work, and
  # leaves one that is alone with its share of the cores. Not pinned: others work on these cores too.
  config = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
  return config | ({"INFERENCE_NUM_THREADS": threads} if threads else {})


def _read(graph: bytes, outputs: Sequence[str]) -> Any:
  """Returns the model that gives some nodes of a GraphDef, in this order.

  OpenVINO's reader of GraphDefs takes files only. This one is a copy of the bytes that were checked: the encoder's own
  could have other content by now.
  """
  frontend = FrontEndManager().load_by_framework("tf")
  with tempfile.NamedTemporaryFile(suffix=".pb") as file:
    file.write(graph)
    file.flush()
    found = frontend.load(file.name)
    found.override_all_outputs([found.get_place_by_tensor_name(f"{name}:0") for name in outputs])
    return frontend.convert(found)


@contextlib.contextmanager
def _failures_named(what: str, remedy: str) -> Iterator[None]:
  """Turns what OpenVINO raises into one line: the last of its own, where the cause stands."""
  try:
    yield
  except (RuntimeError, OSError) as error:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    raise EncoderError(f"graph: {what} by OpenVINO ({lines[-1][:200]}); {remedy}") from error
