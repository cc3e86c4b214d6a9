"""A frozen TensorFlow graph as a function from token batches to vectors.

A graph is code that somebody else may have written, so only operations that compute are let in, and it is checked
before it is imported. So is what its constants and every shape known beforehand would take of memory; a graph that
blows up a batch by what is in it (a Fill by the sum of the ids) is not found out, and can still fill a machine.
Everything that is TensorFlow at run time is in this module.
"""

import contextlib
import math
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from transforms.encoder_spec import TensorNames
from transforms.errors import EncoderError

_NOTE = re.compile(rb"[IW]\d{4} |WARNING: All log messages before absl")


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
  """Keeps notes about TensorFlow's own start out of our output; all else that is written to stderr is passed on.

  TF_CPP_MIN_LOG_LEVEL alone does not do it: the first notes are written before it is read.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  with tempfile.TemporaryFile() as caught:
    stderr = os.dup(2)
    os.dup2(caught.fileno(), 2)
    try:
      yield
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)
      caught.seek(0)
      os.write(2, b"".join(line for line in caught if not _NOTE.match(line)))


with _without_notes():
  import tensorflow as tf

__all__ = [
  "MAX_GRAPH_BYTES",
  "FrozenGraph",
  "check_graph",
  "check_ops",
  "check_sizes",
  "failures_named",
  "parse",
  "session_config",
  "tf",
]

# Of Grappler's optimisers those that change none of our graphs. Not `common_subgraph_elimination`: without it the last
# digits of bfloat16 are others.
_IDLE_OPTIMIZERS = (
  "layout_optimizer",
  "loop_optimization",
  "function_optimization",
  "scoped_allocator_optimization",
  "pin_to_host_optimization",
  "implementation_selector",
  "debug_stripper",
)

# Protocol Buffers cannot hold more.
MAX_GRAPH_BYTES = 2**31 - 1

# What encoders' graphs are made of, ours and others'. Nothing here reads a file, keeps state or calls a function.
_ALLOWED = """
  Abs Add AddN AddV2 All Any ArgMax BatchMatMul BatchMatMulV2 BatchMatMulV3 BiasAdd BroadcastTo Cast ConcatV2 Const
  Cos Cumsum Div DivNoNan Einsum Elu Equal Erf Erfc Exp ExpandDims Fill FloorDiv FloorMod FusedBatchNorm
  FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual Identity IdentityN LeakyRelu Less
  LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max Maximum Mean Min Minimum Mul Neg NoOp NotEqual
  OneHot OnesLike Pack Pad PadV2 Placeholder PlaceholderWithDefault Pow Prod Range Rank RealDiv Reciprocal Relu Relu6
  Reshape Rsqrt Select SelectV2 Selu Shape ShapeN Sigmoid Sign Sin Size Slice Softmax Softplus Split SplitV Sqrt
  Square SquaredDifference Squeeze StopGradient StridedSlice Sub Sum Tanh Tile Transpose Unpack ZerosLike
"""
_ALLOWED_OPS = frozenset(_ALLOWED.split())
# What these are made of, with the bytes of one number. Strings, resources and variants are not for computing.
_NUMBERS = (tf.bool, tf.int32, tf.int64, tf.float16, tf.bfloat16, tf.float32, tf.float64)
_ITEM_BYTES = {dtype.as_datatype_enum: dtype.size for dtype in _NUMBERS}
# A constant of equal numbers may be stored as one of them: TensorFlow's own optimisers write masks and zeros so.
_MAX_BYTES_NOT_STORED = 64 << 20
_AT_NODE = re.compile(r"^Node: '(?P<node>.*)'\n(?P<why>.*)", re.MULTILINE)


class FrozenGraph:
  """One session over one graph. Its methods may be called from several threads at once."""

  def __init__(self, graph: bytes, names: TensorNames, *, threads: int | None = None, precision: str = "float32"):
    """Checks and imports a serialised GraphDef.

    Args:
      graph: the bytes of `encoder.pb`.
      names: the nodes that are fed and read.
      threads: for one operation; TensorFlow's choice (every core) by default.
      precision: `float32`, or `bfloat16` for what gains by it: products, and what lies between them. What is fed and
        what comes out is as stated in either.

    Raises:
      EncoderError: not a graph, an operation that is not allowed, or nodes that are not as `TensorNames` states them.
    """
    imported = _import_checked(graph)
    inputs = names.input_ids, names.input_mask
    feeds = [_tensor(imported, name, tf.int32, 2, "an int32 [B, T] input") for name in inputs]
    vectors = _tensor(imported, names.output, tf.float32, 2, "a float32 [B, W] output")
    session = _start(imported, threads, precision)
    self._encode = session.make_callable(vectors, feeds)
    if names.probabilities:
      probabilities = _tensor(imported, names.probabilities, tf.float32, 2, "a float32 [B, n_labels] output")
      self._encode_and_predict = session.make_callable([vectors, probabilities], feeds)
    if names.hidden:
      hidden = _tensor(imported, names.hidden, tf.float32, 3, "a float32 [B, T, C] output")
      self._encode_tokens = session.make_callable(hidden, feeds)

  def encode(self, input_ids: np.ndarray, input_mask: np.ndarray) -> np.ndarray:
    """Returns float32 [B, W] for token ids and mask, both int32 [B, T].

    Raises:
      EncoderError: the graph cannot be computed for them, or not in the memory that there is.
    """
    with failures_named():
      return self._encode(input_ids, input_mask)

  def encode_and_predict(self, input_ids: np.ndarray, input_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32 [B, W] and [B, n_labels]; raises as `encode`. Only with `probabilities`."""
    with failures_named():
      vectors, probabilities = self._encode_and_predict(input_ids, input_mask)
    return vectors, probabilities

  def encode_tokens(self, input_ids: np.ndarray, input_mask: np.ndarray) -> np.ndarray:
    """Returns float32 [B, T, C], padding with it; raises as `encode`. Only with `hidden`."""
    with failures_named():
      return self._encode_tokens(input_ids, input_mask)


def _tensor(graph: "tf.Graph", node: str, dtype: "tf.DType", rank: int, wanted: str) -> "tf.Tensor":
  try:
    tensor = graph.get_tensor_by_name(f"{node}:0")
  except (KeyError, ValueError) as error:
    raise EncoderError(f"graph: has no node {node!r}, which should be {wanted}") from error
  if tensor.dtype != dtype or tensor.shape.rank not in (rank, None):
    raise EncoderError(f"graph: node {node!r} is {tensor.dtype.name} {tensor.shape}, not {wanted}")
  return tensor


def check_graph(definition: "tf.compat.v1.GraphDef") -> None:
  """Raises EncoderError for what TensorFlow must not see: operations, types and constants that no encoder has."""
  check_ops(definition)
  _check_types(definition)
  _check_constants(definition)


def check_ops(definition: "tf.compat.v1.GraphDef") -> None:
  """Raises EncoderError for a function library or an operation that is not on the list of those that only compute."""
  if definition.library.function:
    raise EncoderError(
      f"graph: brings a function, {definition.library.function[0].signature.name!r}; freeze it inlined"
    )
  for node in definition.node:
    if node.op not in _ALLOWED_OPS:
      raise EncoderError(
        f"graph: node {node.name!r} is a {node.op}, which is not one of the operations an encoder may have; "
        "freeze the checkpoint again with variables as constants and nothing but the forward pass"
      )


def _check_types(definition: "tf.compat.v1.GraphDef") -> None:
  """Raises EncoderError for a type that an encoder does not compute with."""
  attributes = ((node.name, key, value) for node in definition.node for key, value in node.attr.items())
  for node, key, value in attributes:
    for number in (value.type, *value.list.type):
      if number and number not in _ITEM_BYTES:
        raise EncoderError(
          f"graph: node {node!r} has {key} {_type_name(number)}; an encoder computes with "
          f"{', '.join(dtype.name for dtype in _NUMBERS)}: freeze the checkpoint again"
        )


def _type_name(number: int) -> str:
  try:
    return str(tf.dtypes.as_dtype(number).name)
  except TypeError:
    return f"type {number}"


def _check_constants(definition: "tf.compat.v1.GraphDef") -> None:
  """Raises EncoderError if constants would take much more memory than the bytes in which they are stored."""
  not_stored = 0
  for node in definition.node:
    if node.op == "Const":
      tensor = node.attr["value"].tensor
      declared = math.prod(dim.size for dim in tensor.tensor_shape.dim) * _ITEM_BYTES.get(tensor.dtype, 8)
      not_stored += max(0, declared - tensor.ByteSize())
      if not_stored > _MAX_BYTES_NOT_STORED:
        raise EncoderError(
          f"graph: node {node.name!r} is a constant of {declared} bytes, of which {tensor.ByteSize()} are stored; "
          "freeze the checkpoint again with constants written out"
        )


def check_sizes(graph: "tf.Graph") -> None:
  """Raises EncoderError for a tensor that is larger than a whole graph can be, even for one row of one token."""
  for tensor in (output for operation in graph.get_operations() for output in operation.outputs):
    sizes = tensor.shape.as_list() if tensor.shape.rank is not None else []
    size = math.prod(1 if size is None else size for size in sizes) * tensor.dtype.size
    if size > MAX_GRAPH_BYTES:
      raise EncoderError(
        f"graph: node {tensor.op.name!r} gives {size} bytes or more whatever the text; no encoder does: "
        "freeze the checkpoint again"
      )


@contextlib.contextmanager
def failures_named() -> Iterator[None]:
  """Turns what TensorFlow raises while it computes into one line with the node's name."""
  try:
    yield
  except tf.errors.OpError as error:
    found = _AT_NODE.search(str(error))
    where, why = (f"node {found['node']!r} ", found["why"]) if found else ("", " ".join(str(error).split()))
    remedy = "give a smaller --token-budget" if isinstance(error, tf.errors.ResourceExhaustedError) else "freeze again"
    raise EncoderError(f"graph: {where}cannot be computed ({why[:200]}); {remedy}") from error


def parse(graph: bytes) -> "tf.compat.v1.GraphDef":
  """Returns the GraphDef in some bytes, not checked yet; raises EncoderError if there is none."""
  if len(graph) > MAX_GRAPH_BYTES:
    raise EncoderError(f"graph: {len(graph)} bytes; a GraphDef cannot be larger than {MAX_GRAPH_BYTES}")
  try:
    definition = tf.compat.v1.GraphDef.FromString(graph)
  except Exception as error:  # protobuf's own DecodeError moves between its implementations
    raise EncoderError(f"graph: {len(graph)} bytes that are not a TensorFlow GraphDef ({error})") from error
  if not definition.node:
    raise EncoderError("graph: has no node at all; is the file empty?")
  return definition


def _import_checked(data: bytes) -> "tf.Graph":
  """Returns the graph in some bytes once it has passed every check; raises EncoderError for one that does not."""
  definition = parse(data)
  check_graph(definition)
  for node in definition.node:
    node.device = ""  # of the machine that it was frozen on
  graph = tf.Graph()
  try:
    with graph.as_default():
      tf.import_graph_def(definition, name="")
  except (ValueError, tf.errors.OpError) as error:
    raise EncoderError(f"graph: TensorFlow cannot import it ({' '.join(str(error).split())[:200]})") from error
  check_sizes(graph)
  graph.finalize()
  return graph


def _start(graph: "tf.Graph", threads: int | None, precision: str) -> "tf.compat.v1.Session":
  # TF32 keeps 10 bits of a float32's fraction: a GPU would then fail the self-test.
  tf.config.experimental.enable_tensor_float_32_execution(False)
  config = session_config(precision, intra_op_parallelism_threads=threads or 0)
  config.gpu_options.allow_growth = True
  return tf.compat.v1.Session(graph=graph, config=config)


def session_config(precision: str, **options: Any) -> "tf.compat.v1.ConfigProto":
  """Returns the configuration of a session that computes in a precision.

  In bfloat16 TensorFlow rewrites the graph as it starts, where oneDNN and the processor (AVX-512) allow it, and leaves
  it as it is elsewhere, without a word: what comes of it is the self-test's to judge.
  """
  config = tf.compat.v1.ConfigProto(**options)
  rewrites = config.graph_options.rewrite_options
  # Each holds copies of every weight as a session starts, and finds nothing here: they are for training steps, other
  # processors and graphs that were not cut and folded as ours are.
  rewrites.memory_optimization = 1  # RewriterConfig.NO_MEM_OPT
  for name in _IDLE_OPTIMIZERS:
    setattr(rewrites, name, 2)  # RewriterConfig.OFF
  if precision == "bfloat16":
    rewrites.auto_mixed_precision_onednn_bfloat16 = 1  # RewriterConfig.ON
  return config
