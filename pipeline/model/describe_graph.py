"""What is in a graph that was frozen elsewhere: its inputs, what could be its output, why it could not be frozen."""

from collections import Counter
from typing import Any

from pipeline.model.foreign_graph import GraphFile, import_graph, parse_file
from pipeline.model.graph_ends import AskedEnds, GraphEnds, candidates, find_ends, find_input_ids, placeholders
from transforms.errors import UsageError
from transforms.frozen_graph import tf

_INPUTS = ("Placeholder", "PlaceholderWithDefault")


def describe_graph(path: str) -> dict[str, Any]:
  """Returns the description of a `.pb` as plain values: what the code that freezes finds in it, and why it would not.

  It is parsed, and imported if it has allowed operations only; it is not run.

  Raises:
    UsageError: a SavedModel.
    EncoderError: it cannot be read, or is no GraphDef.
  """
  file = parse_file(path)
  description, problems = _outline(file), []
  try:
    graph = import_graph(file).graph
    description["inputs"] = [_tensor(x) for x in placeholders(graph)]
    description["outputs"] = [_tensor(x) for x in candidates(graph, find_input_ids(graph, AskedEnds()))]
    description["defaults"] = _defaults(find_ends(graph, AskedEnds()))
  except UsageError as error:
    problems.append(f"{path}: {str(error).removeprefix(f'{path}: ')}")
  return description | {"problems": problems, "can_be_frozen": not problems}


def _outline(file: GraphFile) -> dict[str, Any]:
  """What is known of a graph that may not be imported: names."""
  nodes = file.definition.node
  return {
    "kind": "graph",
    "path": file.name,
    "bytes": file.size,
    "nodes": len(nodes),
    "operations": dict(sorted(Counter(node.op for node in nodes).items())),
    "functions": [function.signature.name for function in file.definition.library.function],
    "inputs": [{"name": node.name} for node in nodes if node.op in _INPUTS],
    "outputs": [],
    "defaults": None,
  }


def _defaults(ends: GraphEnds) -> dict[str, str | None]:
  """What freezing takes unasked, by the names of its options."""
  names = ("input_ids", "input_mask", "token_type_ids", "output")
  tensors = {name: getattr(ends, name) for name in names}
  return {name: None if x is None else x.op.name for name, x in tensors.items()} | {"output_why": ends.output_why}


def _tensor(tensor: "tf.Tensor") -> dict[str, Any]:
  shape = None if tensor.shape.rank is None else tensor.shape.as_list()
  return {"name": tensor.op.name, "type": tensor.dtype.name, "shape": shape}
