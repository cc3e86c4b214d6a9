"""Variables as far as they are known without their numbers: names and shapes."""

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]


def dense(scope: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
  """Returns the variables of a dense layer, whose kernel is [in, out]."""
  return {f"{scope}/kernel": (rows, columns), f"{scope}/bias": (columns,)}


def layer_norm(scope: str, width: int) -> dict[str, tuple[int, ...]]:
  """Returns the variables of a layer normalisation."""
  return {f"{scope}/LayerNorm/beta": (width,), f"{scope}/LayerNorm/gamma": (width,)}
