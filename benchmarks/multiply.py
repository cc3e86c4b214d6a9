"""The limit of end_to_end.py: a process that multiplies the matrices of a model as fast as TensorFlow can.

  python -m benchmarks.multiply ENCODER_DIR --precision float32

A request is a line of JSON on stdin, its answer one on stdout. Asked with `lengths`, the tokens of each text, it says
how many floating-point operations the model's matrix products on them are, without padding.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.encoder import PRODUCTS, Work, multiplying, product, shapes
from benchmarks.measure import timed
from benchmarks.rival import serve
from transforms.encoder_spec import EncoderSpec, read_spec

ROWS = 2048  # tokens of a batch


def make_products(spec: EncoderSpec, precision: str) -> list[tuple[float, Callable[[], float]]]:
  """Returns for each shape of the model's matrices the operations of a call, and what makes calls and times one."""
  assert spec.config is not None
  sizes = [(ROWS, *shape) for shape in shapes(spec.config).values()]
  return [(2.0 * PRODUCTS * np.prod(size), multiplying(product(*size, precision, 0))) for size in sizes]


def count_operations(spec: EncoderSpec, lengths: Sequence[int]) -> float:
  """Returns the operations of the model's matrix products on texts of so many tokens each."""
  assert spec.config is not None
  return Work([], np.array(lengths)).matrix_flops(spec.config, max(spec.layers))


def main() -> None:
  """Answers until nobody asks any more."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("encoder")
  parser.add_argument("--precision", default="float32")
  args = parser.parse_args()
  spec = read_spec(args.encoder)
  products = make_products(spec, args.precision)
  rates: list[float] = []

  def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    if "lengths" in request:
      return {"operations": count_operations(spec, request["lengths"])}
    rates.clear()
    seconds = timed(lambda: rates.extend(operations / measured() for operations, measured in products))
    return {"seconds": seconds, "operations_per_second": max(rates)}

  serve({}, answer)


if __name__ == "__main__":
  main()
