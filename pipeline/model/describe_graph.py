"""What is in a graph that was frozen elsewhere: its inputs, what could be its output, what an encoder may not have."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.model.foreign_graph import bounded_memory
from pipeline.model.graph_rewriting import without_guards
from transforms.errors import EncoderError
from transforms.frozen_graph import MAX_GRAPH_BYTES, check_graph, check_sizes, tf

_INPUTS = ("Placeholder", "PlaceholderWithDefault")


def describe_graph(path: str) -> dict[str, Any]:
  """Returns the description of a `.pb` as plain values. It is parsed, and imported if it has allowed operations only.

  Raises:
    EncoderError: it cannot be read, or is no GraphDef.
  """
  data = _read(Path(path))
  definition = _parse(data, path)
  computing = without_guards(definition)  # as freezing takes it
  description: dict[str, Any] = {
    "kind": "graph",
    "path": path,
    "bytes": len(data),
    "nodes": len(definition.node),
    "operations": dict(sorted(Counter(node.op for node in definition.node).items())),
    "functions": [function.signature.name for function in definition.library.function],
    "inputs": [node.name for node in definition.node if node.op in _INPUTS],
    "outputs": _leaves(computing),
    "problems": [],
  }
  try:
    check_graph(computing)
    graph = _import(computing)
    description |= {key: [_tensor(graph, name) for name in description[key]] for key in ("inputs", "outputs")}
  except EncoderError as error:
    description |= {key: [{"name": name} for name in description[key]] for key in ("inputs", "outputs")}
    description["problems"].append(f"{path}: {error}")
  return description | {"can_be_frozen": not description["problems"]}


def _read(path: Path) -> bytes:
  try:
    if (size := path.stat().st_size) > MAX_GRAPH_BYTES:
      raise EncoderError(f"{path}: {size} bytes; a GraphDef cannot be larger than {MAX_GRAPH_BYTES}")
    return path.read_bytes()
  except OSError as error:
    raise EncoderError(f"{path}: cannot be read ({error.strerror or error}); give a frozen graph") from error


def _parse(data: bytes, path: str) -> "tf.compat.v1.GraphDef":
  try:
    definition = tf.compat.v1.GraphDef.FromString(data)
  except Exception as error:  # protobuf's own DecodeError moves between its implementations
    raise EncoderError(f"{path}: {len(data)} bytes that are not a TensorFlow GraphDef ({error})") from error
  if not definition.node:
    raise EncoderError(f"{path}: a graph without a node; is the file empty, or a SavedModel's?")
  return definition


def _leaves(definition: "tf.compat.v1.GraphDef") -> list[str]:
  """Nodes that no other takes, so that they are there for whoever runs the graph."""
  taken = {name.lstrip("^").partition(":")[0] for node in definition.node for name in node.input}
  return [node.name for node in definition.node if node.name not in taken and node.op not in ("Const", "NoOp")]


def _import(definition: "tf.compat.v1.GraphDef") -> "tf.Graph":
  graph = tf.Graph()
  try:
    with graph.as_default(), bounded_memory(definition):
      tf.import_graph_def(definition, name="")
  except (ValueError, tf.errors.OpError) as error:
    raise EncoderError(f"TensorFlow cannot import it ({' '.join(str(error).split())[:200]})") from error
  check_sizes(graph)
  return graph


def _tensor(graph: "tf.Graph", name: str) -> dict[str, Any]:
  outputs: Iterable[Any] = graph.get_operation_by_name(name).outputs
  tensor = next(iter(outputs))
  shape = None if tensor.shape.rank is None else tensor.shape.as_list()
  return {"name": name, "type": tensor.dtype.name, "shape": shape}
