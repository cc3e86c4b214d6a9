"""What of memory an encoder takes as it is loaded, holds after its first batch, and takes for the longest texts.

  python -m benchmarks.load_memory ENCODER_DIR...

Each in a process of its own, with allocators bounded as `embed` bounds them. Printed in MB, and in sizes of the graph's
file above what TensorFlow holds by itself: `TENSORFLOW_BYTES` and `ENCODER_COPIES` of pipeline/planning.py are these.
The last figure is of a batch of texts as long as the encoder takes them, beside what `batch_memory` there counts.
"""

import argparse
import multiprocessing
from pathlib import Path

import numpy as np

from pipeline.embed import graph_bytes
from pipeline.options import DEFAULT_TOKEN_BUDGET
from pipeline.planning import batch_memory
from transforms.encoder_spec import PRECISIONS, read_spec


def resident_mb(key: str) -> float:
  """Returns a figure of the kernel's: `VmRSS`, what is held, or `VmHWM`, the highest that it was."""
  return int(Path("/proc/self/status").read_text().partition(f"{key}:")[2].split()[0]) * 1024 / 1e6


def measure(encoder_dir: str, precision: str) -> tuple[float, float, float, float]:
  """Returns MB held with TensorFlow alone, at the peak of loading, after a batch, and taken by one of long texts."""
  import transforms.frozen_graph  # noqa: F401  TensorFlow's own memory is not the encoder's
  from pipeline.memory import bound_allocators
  from transforms.encoder import load_encoder

  bound_allocators()
  before = resident_mb("VmRSS")
  encoder = load_encoder(encoder_dir, precision=precision)
  encoder.encode_texts([f"text {i} of a batch" for i in range(256)])
  peak, held = resident_mb("VmHWM"), resident_mb("VmRSS")
  T = encoder.spec.max_seq_length
  input_ids = np.full((max(1, DEFAULT_TOKEN_BUDGET // T), T), 7, np.int32)  # some token
  Path("/proc/self/clear_refs").write_text("5")  # the highest begins anew
  for _ in range(2):
    encoder.run(input_ids, np.ones_like(input_ids))
  return before, peak, held, resident_mb("VmHWM") - held


def main() -> None:
  """Prints a line for each encoder and precision."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("encoders", nargs="+", metavar="ENCODER_DIR")
  for encoder_dir in parser.parse_args().encoders:
    size = graph_bytes(encoder_dir) / 1e6
    counted = batch_memory(read_spec(encoder_dir), DEFAULT_TOKEN_BUDGET) / 1e6
    for precision in PRECISIONS:
      with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, peak, held, batch = pool.apply(measure, (encoder_dir, precision))
      print(
        f"{encoder_dir}: {size:,.0f} MB, {precision}: TensorFlow {before:,.0f} MB, peak {peak:,.0f} MB (+ "
        f"{(peak - before) / size:.1f} sizes), held {held:,.0f} MB (+ {(held - before) / size:.1f} sizes), "
        f"long texts + {batch:,.0f} MB ({counted:,.0f} counted)"
      )


if __name__ == "__main__":
  main()
