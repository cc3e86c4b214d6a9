"""Combine the moments of raw blocks on Beam: an adapter, the arithmetic is `Moments`'."""

from collections.abc import Iterable
from functools import reduce

import apache_beam as beam

from transforms.moments import Moments, VectorBlock


class MomentsCombineFn(beam.CombineFn):
  """VectorBlock [N, H], N in the thousands → Moments.

  The accumulator is the value itself. Beam's default coder writes it by pickle, whose cost is a copy of the arrays;
  do not give it a type hint that chooses another coder.
  """

  def __init__(self, H: int):
    super().__init__()
    self.H = H

  def create_accumulator(self) -> Moments:
    return Moments.empty(self.H)

  def add_input(self, accumulator: Moments, block: VectorBlock) -> Moments:
    return accumulator + Moments.from_vectors(block.vectors, block.weights)

  def merge_accumulators(self, accumulators: Iterable[Moments]) -> Moments:
    return reduce(Moments.merge, accumulators, self.create_accumulator())

  def extract_output(self, accumulator: Moments) -> Moments:
    return accumulator
