"""A graph that was frozen elsewhere, drawn anew with the inputs and the output that all our encoders have."""

from pipeline.model.graph_ends import GraphEnds
from pipeline.model.readout_graph import HIDDEN_NODE, POOLED_NODE, draw_inputs, pool
from transforms.encoder_spec import IN_GRAPH, Readout, TensorNames
from transforms.frozen_graph import tf

# What the graph itself gives, before it is pooled: float32 [B, T, H] or [B, H].
RAW_NODE = "graph_output"


def adapt_graph(
  definition: "tf.compat.v1.GraphDef", ends: GraphEnds, readout: Readout | None
) -> tuple[bytes, TensorNames]:
  """Returns a serialised GraphDef, and the names of its nodes.

  Token types are 0; inputs of another type get a cast; where T is fixed, texts are padded to it inside the graph, so
  that it takes batches of any length up to that.

  Args:
    definition: the nodes that the output is computed from, without the inputs.
    ends: inputs and output, in the graph as it was read.
    readout: how token vectors become one; None ends the graph at RAW_NODE.
  """
  graph = tf.Graph()
  with graph.as_default():
    input_ids, input_mask = draw_inputs()
    given = (
      (ends.input_ids, input_ids),
      (ends.input_mask, input_mask),
      (ends.token_type_ids, tf.zeros_like(input_ids)),
    )
    fed = {theirs.name: _fit(ours, theirs.dtype, ends.fixed_length) for theirs, ours in given if theirs is not None}
    [output] = tf.import_graph_def(definition, fed, [ends.output.name], name="graph")
    raw = tf.cast(output, tf.float32)
    if readout is None:
      tf.identity(raw, RAW_NODE)
    elif readout.pooling == IN_GRAPH:
      tf.identity(raw, POOLED_NODE)
    else:
      hidden = tf.identity(raw[:, : tf.shape(input_ids)[1], :] if ends.fixed_length else raw, HIDDEN_NODE)
      pool(hidden, input_mask, readout)  # [B, T, H] → [B, W]
  in_graph = readout is None or readout.pooling == IN_GRAPH
  names = TensorNames("input_ids", "input_mask", POOLED_NODE, None if in_graph else HIDDEN_NODE)
  return graph.as_graph_def().SerializeToString(deterministic=True), names


def _fit(tokens: "tf.Tensor", dtype: "tf.DType", fixed_length: int | None) -> "tf.Tensor":
  """Int32 [B, T] as what an input takes: padded to its length, and of its type."""
  if fixed_length is not None:
    tokens = tf.pad(tokens, [[0, 0], [0, fixed_length - tf.shape(tokens)[1]]])
    tokens.set_shape([None, fixed_length])
  return tf.cast(tokens, dtype)
