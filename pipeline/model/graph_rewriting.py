"""What is done to the nodes of a GraphDef that somebody else froze, before it is drawn anew as an encoder's."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from transforms.frozen_graph import tf

# What TF 1's assertions are made of: the condition's switches, the Assert, and the merge behind it.
_GUARDS = ("Assert", "Switch", "Merge")
# What people compute the last axis with: `tf.rank(x) - 1`, `tf.range(rank - 1, rank)`.
_ARITHMETIC: dict[str, Callable[..., Any]] = {
  "Add": np.add,
  "AddV2": np.add,
  "ExpandDims": lambda value, axis: value[np.newaxis],
  "Identity": np.asarray,
  "Pack": lambda *values: np.stack(values),
  "Range": lambda start, limit, delta: range(start, min(limit, start + 2)),
  "Sub": np.subtract,
}


def without_guards(definition: "tf.compat.v1.GraphDef") -> "tf.compat.v1.GraphDef":
  """Returns the graph without assertions, control inputs, devices and notes of other tools.

  `modeling.py` asserts that a text is not longer than the position table, and the vectors wait for that by a control
  input. Where nothing keeps state, waiting means nothing; and the condition has operations that no encoder needs.
  Only what nothing but an assertion uses is left out: a Switch that a vector goes through stays, for the check to find.
  """
  guards = _guards(definition)
  kept = tf.compat.v1.GraphDef(versions=definition.versions, library=definition.library)
  for node in definition.node:
    if node.name not in guards:
      kept.node.append(node)
      _simplify(kept.node[-1])
  return kept


def prune(definition: "tf.compat.v1.GraphDef", output: str, inputs: Collection[str]) -> "tf.compat.v1.GraphDef":
  """Returns the nodes that `output` is computed from, itself with them; what is computed for `inputs` is not."""
  nodes = {node.name: node for node in definition.node}
  found, waiting = set(inputs), [output]
  while waiting:
    if (name := waiting.pop()) not in found:
      found.add(name)
      waiting += _sources(nodes[name])
  kept = [node for node in definition.node if node.name in found and node.name not in inputs]
  return tf.compat.v1.GraphDef(versions=definition.versions, node=kept)


def reduce_over_last_axis(definition: "tf.compat.v1.GraphDef", graph: "tf.Graph") -> int:
  """Writes the axis of every mean over the last axis as -1, in place; returns how many were written otherwise.

  It changes no number by itself. But oneDNN recognises a layer normalisation by a mean over rank - 1, and replaces it
  by an operation that has an epsilon of its own, 0.001; a mean over -1 it does not recognise.

  Args:
    definition: its constants may be shared, so each mean gets one of its own.
    graph: the same nodes, imported, and maybe more.
  """
  names = {node.name for node in definition.node}
  changed = 0
  for mean in [node for node in definition.node if node.op == "Mean"]:
    values, axis = graph.get_operation_by_name(mean.name).inputs
    number, rank = _value(axis), values.shape.rank
    if number is not None and rank is not None and number.size == 1 and number.item() == rank - 1:
      last = np.full(number.shape, -1, axis.dtype.as_numpy_dtype)
      mean.input[1] = _add_constant(definition, names, f"{mean.name}/last_axis", last)
      changed += 1
  return changed


def _guards(definition: "tf.compat.v1.GraphDef") -> set[str]:
  """The names of the assertions' nodes: found from their ends, which no other node takes a value from."""
  nodes = {node.name: node for node in definition.node}
  used = Counter(source for node in nodes.values() for source in _sources(node))
  ends = [node for node in nodes.values() if not used[node.name] and _ends_a_guard(node, nodes)]
  found = set()
  while ends:
    node = ends.pop()
    found.add(node.name)
    for source in _sources(node):
      used[source] -= 1
      if not used[source] and source in nodes and nodes[source].op in (*_GUARDS, "Identity", "Const"):
        ends.append(nodes[source])
  return found


def _ends_a_guard(node: "tf.compat.v1.NodeDef", nodes: "Mapping[str, tf.compat.v1.NodeDef]") -> bool:
  unused_text = node.op == "Const" and node.attr["dtype"].type == tf.string.as_datatype_enum
  from_switch = any(source in nodes and nodes[source].op == "Switch" for source in _sources(node))
  return node.op in _GUARDS or unused_text or (node.op == "Identity" and from_switch)


def _sources(node: "tf.compat.v1.NodeDef") -> Iterator[str]:
  """The nodes that give this one values, as often as they do."""
  return (source.partition(":")[0] for source in node.input if not source.startswith("^"))


def _simplify(node: "tf.compat.v1.NodeDef") -> None:
  node.device = ""
  for key in [key for key in node.attr if key.startswith("_")]:  # such as _class: placed with a node that may be gone
    del node.attr[key]
  node.input[:] = [source for source in node.input if not source.startswith("^")]


def _value(tensor: "tf.Tensor", depth: int = 5) -> np.ndarray | None:
  """What an axis comes to, if no text decides it: TensorFlow computes rank - 1 too before it looks for fusions."""
  try:
    known = tf.get_static_value(tensor)
  except RecursionError:  # nobody's last axis is a thousand operations away
    return None
  if known is not None:
    return np.asarray(known)
  op = tensor.op
  if op.type == "Rank" or (op.type == "Size" and op.inputs[0].op.type == "Shape"):
    rank = (op if op.type == "Rank" else op.inputs[0].op).inputs[0].shape.rank
    return None if rank is None else np.asarray(rank)
  if op.type not in _ARITHMETIC or not depth:
    return None
  values = [_value(x, depth - 1) for x in op.inputs]
  return None if any(value is None for value in values) else np.asarray(_ARITHMETIC[op.type](*values))


def _add_constant(definition: "tf.compat.v1.GraphDef", names: set[str], name: str, value: np.ndarray) -> str:
  while name in names:
    name += "_"
  names.add(name)
  node = definition.node.add(name=name, op="Const")
  node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
  node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
  return name
