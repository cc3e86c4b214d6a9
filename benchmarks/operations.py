"""Which operations of a graph the time of a batch goes to, by TensorFlow's own statistics of each step.

  python -m benchmarks.operations ENCODER_DIR [--data FOLDER] [--batches 12] [--threads N]

Batches of novel paragraphs, or of those in Python's own documentation, as encoder.py runs them, one at a time. Shares
are of the time in operations: they say where a change could pay, not how fast the whole is. Results go to
benchmarks/results/operations.json.
"""

import argparse
from collections import Counter
from pathlib import Path

from benchmarks.encoder import PRECISIONS, Work, make_work, session_of
from benchmarks.measure import write_results
from benchmarks.texts import read_corpus
from transforms.encoder_files import read_checked
from transforms.encoder_spec import GRAPH_FILE, EncoderSpec, read_spec
from transforms.frozen_graph import parse, tf

# The first that stands in an operation's type, whatever oneDNN's variant of it is called.
KINDS = {
  "BatchMatMul": "products of attention",
  "MatMul": "dense layers, with the activation and the sum that are fused",
  "Softmax": "softmax",
  "LayerNorm": "layer normalisation",
  "Transpose": "transpositions",
}
OTHER = "all else: embeddings, the mask, casts, pooling"


def kind_of(operation: str) -> str:
  """Returns the line of the table to which an operation of this type belongs."""
  return next((kind for part, kind in KINDS.items() if part in operation), OTHER)


def operation_of(label: str) -> str:
  """Returns the type of the operation in a label of TensorFlow's, `name = Type(inputs)`, or the label itself."""
  return label.partition(" = ")[2].partition("(")[0] or label


def shares(encoder_dir: str, spec: EncoderSpec, work: Work, precision: str, threads: int) -> dict[str, float]:
  """Returns what part of the time in operations each kind takes, over all batches."""
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(parse(read_checked(encoder_dir, GRAPH_FILE, spec.graph_sha256)), name="")
  session, names = session_of(graph, precision, threads), spec.tensors
  options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
  spent: Counter[str] = Counter({kind: 0 for kind in (*KINDS.values(), OTHER)})
  for is_watched in (False, True):  # once before, for what is compiled and kept at the first call of a shape
    for input_ids, input_mask in work.batches:
      seen = tf.compat.v1.RunMetadata()
      fed = {f"{names.input_ids}:0": input_ids, f"{names.input_mask}:0": input_mask}
      session.run(f"{names.output}:0", fed, options=options, run_metadata=seen)
      for node in (node for device in seen.step_stats.dev_stats if is_watched for node in device.node_stats):
        spent[kind_of(operation_of(node.timeline_label))] += node.op_end_rel_micros - node.op_start_rel_micros
  return {kind: round(micros / sum(spent.values()), 4) for kind, micros in spent.items()}


def main() -> None:
  """Prints the shares of each precision, and keeps them."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("encoder", metavar="ENCODER_DIR")
  parser.add_argument("--data", type=Path, help="folder with the corpora; without it, Python's documentation")
  parser.add_argument("--batches", type=int, default=12)
  parser.add_argument("--threads", type=int, default=0, help="for one operation; every core by default")
  args = parser.parse_args()
  spec = read_spec(args.encoder)
  work = make_work(args.encoder, read_corpus("paragraphs", args.data) or [], args.batches, 2048)
  found = {precision: shares(args.encoder, spec, work, precision, args.threads) for precision in PRECISIONS}
  for kind in (*KINDS.values(), OTHER):
    print(f"{kind:62} {' '.join(f'{of_kind[kind]:6.1%} {name}' for name, of_kind in found.items())}")
  write_results("operations", {"encoder": Path(args.encoder).name, "shares": found})


if __name__ == "__main__":
  main()
