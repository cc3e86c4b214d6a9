"""Where a graph that was frozen elsewhere begins and ends: its inputs and its output, found or as asked for."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from transforms.errors import UsageError
from transforms.frozen_graph import tf

# By the last part of the name, in lower case. Google's code, TensorFlow Hub, Hugging Face, keras-bert.
_INPUT_IDS = ("input_ids", "input_word_ids", "input-token")
_INPUT_MASK = ("input_mask", "attention_mask")
_TOKEN_TYPES = ("segment_ids", "token_type_ids", "input_type_ids", "input-segment")
_KNOWN_INPUTS = {"--input-ids": _INPUT_IDS, "--input-mask": _INPUT_MASK, "--token-type-ids": _TOKEN_TYPES}
_POOLER = "bert/pooler/dense/Tanh"
_MOST_LISTED = 12


@dataclass(frozen=True)
class AskedEnds:
  """Names of nodes, as the user gave them; None is to be found."""

  output: str | None = None
  input_ids: str | None = None
  input_mask: str | None = None
  token_type_ids: str | None = None


@dataclass(frozen=True)
class GraphEnds:
  """Tensors of the graph; a mask and token types only where the output depends on some.

  Attributes:
    output_why: where the output was taken from.
  """

  input_ids: "tf.Tensor"
  input_mask: "tf.Tensor | None"
  token_type_ids: "tf.Tensor | None"
  output: "tf.Tensor"
  output_why: str

  @property
  def inputs(self) -> "list[tf.Tensor]":
    """The inputs that are there."""
    return [x for x in (self.input_ids, self.input_mask, self.token_type_ids) if x is not None]

  @property
  def fixed_length(self) -> int | None:
    """T where the graph takes no other."""
    return next((x.shape[1] for x in self.inputs if x.shape.rank and x.shape[1] is not None), None)


def find_ends(graph: "tf.Graph", asked: AskedEnds) -> GraphEnds:
  """Returns inputs and output of an imported graph.

  Raises:
    UsageError: they cannot be told, with the nodes that there are and the option to give; or the output needs an input
      that is none of ours, or inputs have a shape that no text has.
  """
  input_ids = find_input_ids(graph, asked)
  output, why = _asked_output(graph, asked.output)
  names = {"--input-mask": asked.input_mask, "--token-type-ids": asked.token_type_ids}
  inputs = {option: _choose_input(graph, option, name, output) for option, name in names.items()}
  if output is None:
    output, why = _only_leaf(graph, input_ids), "the only node that depends on the ids and is used by no other"
    needed = _ancestors(output.op)
    inputs = {option: x for option, x in inputs.items() if x is not None and (x.op in needed or names[option])}
  ends = GraphEnds(input_ids, inputs.get("--input-mask"), inputs.get("--token-type-ids"), output, why)
  _check_dependence(ends)
  for tensor in ends.inputs:
    _check_shape(tensor)
  if len({x.shape[1] for x in ends.inputs if x.shape.rank} - {None}) > 1:
    raise UsageError(f"inputs of different lengths: {listed(ends.inputs)}; freeze the graph again with one for all")
  return ends


def find_input_ids(graph: "tf.Graph", asked: AskedEnds) -> "tf.Tensor":
  """Returns the input of the token ids; raises UsageError if it cannot be told."""
  output, _ = _asked_output(graph, asked.output)
  if output is not None and not _ancestors(output.op) & {x.op for x in placeholders(graph)} - {output.op}:
    raise UsageError(f"the output {output.op.name} is computed from no input; give another --output")
  found = _choose_input(graph, "--input-ids", asked.input_ids, output)
  if found is None:
    raise UsageError(f"which input takes the token ids? Give --input-ids NAME, one of: {listed(placeholders(graph))}")
  return found


def candidates(graph: "tf.Graph", input_ids: "tf.Tensor", ranks: Sequence[int] = (2, 3)) -> "list[tf.Tensor]":
  """Returns what could be an output, the likeliest first: float32 of a known width, computed from the ids."""
  found = [x for x in _computed_from(graph, input_ids) if _is_vectors(x, ranks)][::-1]
  known = [x for x in found if _is_pooler(x.op) or _is_layer(x.op) or not x.consumers()]
  return sorted(known or found, key=lambda x: not _is_pooler(x.op))


def embedding_rows(input_ids: "tf.Tensor") -> int | None:
  """Returns how many rows the table has in which the ids are looked up; None if no table is found."""
  waiting = [input_ids]
  while waiting:
    ids = waiting.pop()
    for op in ids.consumers():
      if op.type in ("Gather", "GatherV2") and op.inputs[1] is ids and op.inputs[0].shape.rank == 2:
        return _size(op.inputs[0].shape[0])
      if op.type == "OneHot" and op.inputs[0] is ids:
        return _size(tf.get_static_value(op.inputs[1]))
      if op.type in ("Identity", "Reshape", "ExpandDims", "Cast", "Squeeze") and op.inputs[0] is ids:
        waiting.append(op.outputs[0])
  return None


def describe(tensor: "tf.Tensor") -> str:
  """Returns name, type and shape for a person."""
  sizes = "unknown" if tensor.shape.rank is None else ", ".join("?" if n is None else str(n) for n in tensor.shape)
  return f"{tensor.op.name} {tensor.dtype.name} [{sizes}]"


def listed(tensors: "Sequence[tf.Tensor]") -> str:
  """Returns some tensors for a person, a dozen at most."""
  more = f"; and {len(tensors) - _MOST_LISTED} more" if len(tensors) > _MOST_LISTED else ""
  return ("; ".join(map(describe, tensors[:_MOST_LISTED])) or "none") + more


def _asked_output(graph: "tf.Graph", name: str | None) -> "tuple[tf.Tensor | None, str]":
  """The output that was asked for, or Google's pooler; None if neither is there."""
  if name is not None:
    return _node(graph, "--output", name), "asked for"
  poolers = [op for op in graph.get_operations() if _is_pooler(op)]
  return (poolers[0].outputs[0], "the pooler; --output takes another node") if len(poolers) == 1 else (None, "")


def _node(graph: "tf.Graph", option: str, name: str) -> "tf.Tensor":
  names = {op.name: op for op in graph.get_operations() if op.outputs}
  op = names.get(name.removesuffix(":0"))
  if op is None:
    close = difflib.get_close_matches(name, names, n=3)
    raise UsageError(
      f"{option} {name}: the graph has no such node" + (f"; did you mean {' or '.join(close)}?" if close else "")
    )
  return op.outputs[0]


def _choose_input(graph: "tf.Graph", option: str, name: str | None, output: "tf.Tensor | None") -> "tf.Tensor | None":
  found = placeholders(graph)
  if name is not None:
    asked = [x for x in found if x.op.name == name.removesuffix(":0")]
    if not asked:
      raise UsageError(f"{option} {name}: no input of the graph; it has: {listed(found)}")
    return asked[0]
  if output is not None:
    needed = _ancestors(output.op)
    found = [x for x in found if x.op in needed]
  known = [x for x in found if _last_part(x) in _KNOWN_INPUTS[option]]
  if len(known) > 1:
    raise UsageError(f"which of these is it? Give {option} NAME, one of: {listed(known)}")
  if not known and option == "--input-ids":
    known = [x for x in found if x.dtype in (tf.int32, tf.int64)]
  return known[0] if len(known) == 1 else None


def _last_part(tensor: "tf.Tensor") -> str:
  return tensor.op.name.rpartition("/")[2].lower().removeprefix("serving_default_")


def _only_leaf(graph: "tf.Graph", input_ids: "tf.Tensor") -> "tf.Tensor":
  likely = candidates(graph, input_ids)
  leaves = [x for x in likely if not x.consumers()]
  if len(leaves) != 1:
    raise UsageError(f"which node is the vectors? Give --output NODE, such as: {listed(likely)}")
  return leaves[0]


def _check_dependence(ends: GraphEnds) -> None:
  """Raises UsageError for an input that the output does not depend on, or another that it does."""
  needed = _ancestors(ends.output.op)
  names = [x.op.name for x in ends.inputs]
  for x in ends.inputs:
    if x.op not in needed:
      raise UsageError(
        f"the output {ends.output.op.name} does not depend on the input {x.op.name}; give another --output"
      )
  for op in needed:
    if op.type == "Placeholder" and op.name not in names:
      raise UsageError(
        f"the output {ends.output.op.name} depends on {describe(op.outputs[0])}, which nothing here would feed; is it "
        "one of --input-ids, --input-mask, --token-type-ids? Otherwise freeze the graph again with it as a constant, "
        "as for inference (keep_prob 1.0, is_training False)"
      )


def _check_shape(tensor: "tf.Tensor") -> None:
  shape = tensor.shape
  if shape.rank not in (2, None) or tensor.dtype == tf.bool:
    raise UsageError(f"input {describe(tensor)}: an input takes a number for each token, [B, T]; give another")
  if shape.rank and shape[0] is not None:
    raise UsageError(
      f"input {describe(tensor)}: takes {shape[0]} texts at a time, no more and no fewer; batches have any number: "
      "freeze the graph again with the batch size open (None)"
    )


def placeholders(graph: "tf.Graph") -> "list[tf.Tensor]":
  """Returns all inputs, in the graph's order."""
  return [op.outputs[0] for op in graph.get_operations() if op.type in ("Placeholder", "PlaceholderWithDefault")]


def _is_vectors(tensor: "tf.Tensor", ranks: Sequence[int]) -> bool:
  return tensor.dtype == tf.float32 and tensor.shape.rank in ranks and tensor.shape[-1] not in (None, 1)


def _is_pooler(op: "tf.Operation") -> bool:
  return f"/{op.name}".endswith(f"/{_POOLER}")


def _is_layer(op: "tf.Operation") -> bool:
  """Says whether it is named as Google's code names the output of a block."""
  return "bert/encoder/Reshape_" in op.name


def _size(value: "int | np.ndarray | None") -> int | None:
  return None if value is None else int(value)


def _ancestors(op: "tf.Operation") -> "set[tf.Operation]":
  """The operations that one is computed from, with itself."""
  return _reach(op, lambda op: (x.op for x in op.inputs))


def _computed_from(graph: "tf.Graph", tensor: "tf.Tensor") -> "list[tf.Tensor]":
  """The first outputs of all that is computed from a tensor, in the graph's order."""
  found = _reach(tensor.op, lambda op: (user for x in op.outputs for user in x.consumers()))
  return [op.outputs[0] for op in graph.get_operations() if op in found and op.outputs]


def _reach(start: "tf.Operation", near: "Callable[[tf.Operation], Iterable[tf.Operation]]") -> "set[tf.Operation]":
  found, waiting = {start}, [start]
  while waiting:
    new = set(near(waiting.pop())) - found
    found |= new
    waiting += new
  return found
