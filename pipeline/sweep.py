"""`sorbus evaluate --sweep`: which layers, pooling and number of components agree best with scored pairs."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate import PairTexts, Say
from transforms.encoder_spec import SPEC_FILE, Readout, read_spec
from transforms.errors import UsageError
from transforms.pair_scores import Agreement, divide
from transforms.pairs import Pairs
from transforms.whitening import DEFAULT_COMPONENTS, Whitening, WhiteningError, check_n_components

if TYPE_CHECKING:
  from pipeline.model.all_layers import LayerVectors
  from pipeline.model.freeze import FreezeOptions

COMPONENTS = (64, 128, 256, 384, 512, 768)


@dataclass(frozen=True)
class SweepLine:
  """One combination.

  Attributes:
    n_components: K, or None for raw vectors.
  """

  readout: Readout
  n_components: int | None
  agreement: Agreement

  def describe(self) -> dict[str, Any]:
    """Returns what the JSON says of it."""
    names = ("layers", "combine", "pooling")
    readout = {name: value for name, value in asdict(self.readout).items() if name in names}
    return readout | {"n_components": self.n_components} | asdict(self.agreement)


def run_sweep(path: str, pairs: Pairs, options: "FreezeOptions", components: int | None, say: Say) -> dict[str, Any]:
  """Returns what `sorbus evaluate --sweep --json` prints, the best line first.

  Args:
    path: a checkpoint.
    pairs: scored.
    options: how the checkpoint is read and texts are tokenised.
    components: the only K to try; None for several.
    say: takes what is done, for people.
  """
  from pipeline.model.all_layers import AllLayers  # with TensorFlow

  _refuse_encoder(path)
  loaded = AllLayers.load(path, options)
  for line in loaded.lines:
    say(line)
  known = PairTexts.of(pairs, loaded.tokenizer)
  tried = components_to_try(loaded.config.hidden_size, components)
  say(f"encoding {len(known.texts):,} texts with {path}, every layer at once")
  started = time.monotonic()
  vectors = loaded.encode_texts(known.texts)
  encoded = time.monotonic()
  lines = sweep(known, vectors, tried)
  if components is not None and len({line.n_components for line in lines}) == 1:
    raise UsageError(
      f"--n-components {components}: {len(known.pairs):,} pairs do not determine so many; give fewer, or more pairs"
    )
  seconds = {"encode": encoded - started, "score": time.monotonic() - encoded}
  counts = {"pairs": len(known.pairs), "left_out": known.left_out, "texts": len(known.texts)}
  return {
    "kind": "sweep",
    "checkpoint": path,
    "file": pairs.name,
    "binary": pairs.are_binary,
    **counts,
    "truncated": known.truncated,
    "max_seq_length": loaded.max_seq_length,
    "precision": "float32",
    "options": _given(options),
    "fitted_on": "these texts",
    "seconds": seconds,
    "lines": [line.describe() for line in lines],
  }


def _given(options: "FreezeOptions") -> dict[str, Any]:
  """Returns the options that differ from the defaults: freezing takes them again."""
  defaults = asdict(type(options)())
  return {name: value for name, value in asdict(options).items() if value != defaults[name]}


def _refuse_encoder(path: str) -> None:
  """Raises UsageError for an encoder folder, which says what its checkpoint was called, and not where it is."""
  if (Path(path) / SPEC_FILE).exists():
    raise UsageError(
      f"--sweep: {path} is an encoder, whose graph gives one vector; give the checkpoint that it was frozen from "
      f"({read_spec(path).source.name})"
    )


def sweep(known: PairTexts, vectors: "LayerVectors", components: Iterable[int]) -> list[SweepLine]:
  """Returns every combination, the best by Spearman's correlation first; of equal ones that with fewer components.

  Args:
    known: the pairs and their M texts.
    vectors: of these.
    components: the numbers to try; those that the texts do not determine are left out.
  """
  readouts = list(readouts_of(vectors))
  tried = sorted(set(components))
  # NumPy lets go of Python's lock, and BLAS has one thread (docs/architecture.md).
  with ThreadPoolExecutor(os.cpu_count()) as threads:
    found = threads.map(lambda readout: _lines(known, readout, vectors.of(readout), tried), readouts)
    lines = [line for some in found for line in some]
  return sorted(lines, key=lambda line: (-(line.agreement.spearman or -1.0), line.n_components or np.inf))


def readouts_of(vectors: "LayerVectors") -> Iterator[Readout]:
  """Yields what is compared: each layer alone; first and last, the last two and four averaged; the pooler."""
  from pipeline.model.all_layers import POOLINGS, POOLINGS_OF_SEVERAL

  L = vectors.layers
  several = {(1, L), (L - 1, L), tuple(range(L - 3, L + 1))}
  for pooling in POOLINGS:
    # Before the first block [CLS] is the same in every text.
    yield from (Readout(pooling, (layer,)) for layer in range(int(pooling == "cls"), L + 1))
    if pooling in POOLINGS_OF_SEVERAL:
      yield from (Readout(pooling, layers) for layers in sorted(several) if 1 <= layers[0] < L)  # as far as there are
  if vectors.pooler is not None:
    yield Readout("pooler", (L,))


def _lines(
  known: PairTexts, readout: Readout, vectors: NDArray[np.float32], components: Sequence[int]
) -> list[SweepLine]:
  """Returns the lines of one readout, raw and whitened: of one eigen-decomposition the first columns, for each K."""
  lines = [SweepLine(readout, None, known.agreement(known.cosines(vectors)))]
  whitening = _fit_largest(known, vectors, components)
  if whitening is None:
    return lines
  kept = [K for K in components if whitening.n_components >= K]
  return lines + [
    SweepLine(readout, K, agreement)
    for K, agreement in zip(kept, _agreements(known, whitening.reduce(vectors), kept), strict=True)
  ]


def _fit_largest(known: PairTexts, vectors: NDArray[np.float32], components: Sequence[int]) -> Whitening | None:
  """Returns the whitening with the most components that the texts determine; None if not even the fewest."""
  moments = known.moments(vectors)
  for K in sorted(components, reverse=True):
    if moments.count > K + 1:
      try:
        return Whitening.fit(moments, K)
      except WhiteningError:  # the vectors vary in fewer directions: those of a layer normalisation in one less
        continue
  return None


def _agreements(known: PairTexts, reduced: NDArray[np.float64], kept: Sequence[int]) -> Iterator[Agreement]:
  """Yields the agreement of the first K columns of reduced vectors [M, largest K] for each ascending K."""
  first, second = reduced[known.first], reduced[known.second]
  starts = [0, *kept[:-1]]
  # What the columns between one K and the next add, and then all before too: [P, number of Ks].
  products, ones, others = (
    np.cumsum(np.add.reduceat(columns, starts, axis=1), axis=1)
    for columns in (first * second, np.square(first), np.square(second))
  )
  for i in range(len(kept)):
    cosines = divide(products[:, i], np.sqrt(ones[:, i] * others[:, i]))
    yield Agreement.of(cosines, known.pairs.scores, binary=known.pairs.are_binary)


def components_to_try(hidden_size: int, asked: int | None) -> tuple[int, ...]:
  """Returns the K that is asked for; else round ones below the width H, and the one that `sorbus embed` takes unasked.

  Raises:
    UsageError: there can be no such K for this width.
  """
  check_n_components(asked, hidden_size)
  if asked is not None:
    return (asked,)
  return tuple(sorted({*(K for K in COMPONENTS if hidden_size > K), min(DEFAULT_COMPONENTS, hidden_size - 1)}))
