"""A graph that was frozen elsewhere, read from its file: checked as code that a stranger wrote, before it is used."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.model.graph_rewriting import without_guards
from transforms.errors import EncoderError, UsageError
from transforms.frozen_graph import MAX_GRAPH_BYTES, check_graph, check_sizes, parse, tf
from transforms.storage import sha256

# Makes a frozen graph of a SavedModel. The model stays in a variable: its weights go when it does.
SAVED_MODEL_RECIPE = (
  'python -c "import tensorflow as tf; '
  "from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2 as freeze; "
  "model = tf.saved_model.load({folder!r}); graph = freeze(model.signatures['serving_default']).graph; "
  "open('graph.pb', 'wb').write(graph.as_graph_def().SerializeToString())\""
)

# A GraphDef cannot be larger, and inputs and pooling are drawn around it.
_MAX_BYTES = MAX_GRAPH_BYTES - (1 << 20)

_IMPORT_BYTES = 1 << 30


@dataclass(frozen=True)
class GraphFile:
  """A graph as it stands in its file, not checked yet.

  Attributes:
    name: the file as the user named it.
    size: its bytes.
    sha256: of the file.
    definition: its nodes, without assertions and control inputs.
  """

  name: str
  size: int
  sha256: str
  definition: "tf.compat.v1.GraphDef"


@dataclass(frozen=True)
class ForeignGraph:
  """What was read.

  Attributes:
    name: the file as the user named it.
    sha256: of the file.
    definition: its nodes, without assertions and control inputs.
    graph: the same, imported, with what is known of shapes.
  """

  name: str
  sha256: str
  definition: "tf.compat.v1.GraphDef"
  graph: "tf.Graph"


def read_graph(path: str) -> ForeignGraph:
  """Reads and checks a frozen graph.

  Raises:
    UsageError: a SavedModel, with how to get a graph from it.
    EncoderError: no GraphDef, or one with something that no encoder needs, by node and operation.
  """
  return import_graph(parse_file(path))


def parse_file(path: str) -> GraphFile:
  """Reads a frozen graph as data: nothing in it is trusted, or run; raises as `read_graph` for what is none."""
  data = _read(Path(path))
  with _named(path):
    return GraphFile(path, len(data), sha256(data), without_guards(parse(data)))


def import_graph(file: GraphFile) -> ForeignGraph:
  """Checks a graph, then imports it; raises EncoderError for something that no encoder needs."""
  with _named(file.name):
    check_graph(file.definition)
    return ForeignGraph(file.name, file.sha256, file.definition, _import(file.definition))


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
  """Puts the file's name into what is wrong with its graph."""
  try:
    yield
  except EncoderError as error:
    raise EncoderError(f"{path}: {str(error).removeprefix('graph: ')}") from error


@contextlib.contextmanager
def bounded_memory(definition: "tf.compat.v1.GraphDef") -> Iterator[None]:
  """Lets this process have little more memory than a graph takes while it is imported, on Linux.

  TensorFlow then computes the numbers that shapes are made of, before anybody can check a size: a Fill in 300 bytes of
  a file takes all that a machine has. Where it gets no memory it goes on, after some seconds, with the shape unknown.
  """
  if not sys.platform.startswith("linux"):
    yield
    return
  import resource  # not on every system

  soft, hard = resource.getrlimit(resource.RLIMIT_AS)
  used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
  limit = used + _IMPORT_BYTES + 4 * definition.ByteSize()  # serialised, parsed, imported, and room
  resource.setrlimit(resource.RLIMIT_AS, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _read(path: Path) -> bytes:
  if path.is_dir() or path.name == "saved_model.pb":
    raise _saved_model(path if path.is_dir() else path.parent)
  try:
    if (size := path.stat().st_size) > _MAX_BYTES:
      raise EncoderError(
        f"{path}: {size} bytes; a graph of more than {_MAX_BYTES} cannot be frozen: take a smaller model"
      )
    data = path.read_bytes()
  except OSError as error:
    raise EncoderError(f"{path}: cannot be read ({error.strerror or error}); give a frozen graph, GRAPH.pb") from error
  if data.startswith(b"\x08\x01\x12"):  # version 1, then a MetaGraphDef: a SavedModel under another name
    raise _saved_model(path.parent)
  if data.lstrip().startswith(b"node {"):
    raise EncoderError(f"{path}: a GraphDef as text; write it with tf.io.write_graph(…, as_text=False)")
  return data


def _saved_model(folder: Path) -> UsageError:
  return UsageError(
    f"{folder}: a SavedModel, which is not a frozen graph; make one of it, then freeze that: "
    + SAVED_MODEL_RECIPE.format(folder=str(folder))
  )


def _import(definition: "tf.compat.v1.GraphDef") -> "tf.Graph":
  graph = tf.Graph()
  try:
    with graph.as_default(), bounded_memory(definition):
      tf.import_graph_def(definition, name="")
  except (ValueError, tf.errors.OpError) as error:
    raise EncoderError(
      f"TensorFlow cannot import it ({' '.join(str(error).split())[:200]}); freeze it again"
    ) from error
  check_sizes(graph)
  return graph
