"""What takes part in end_to_end.py, how it is timed by turns, and what is made of the figures."""

import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measure import Timing, alternate
from benchmarks.rival import left_out

BATCH_SIZES = (16, 32, 64, 128)


class Worker(Protocol):
  """What answers requests: a Rival, or something in this process for a test."""

  def ask(self, **request: Any) -> dict[str, Any]:
    """Does what is asked and returns the answer, with the `seconds` it took."""
    ...


@dataclass
class Contender:
  """Who takes part, and what was seen of it on one corpus.

  Attributes:
    versions: of the packages that it is made of.
    batch_size: of a peer, the best of several; None for us, who cut batches by tokens.
    seconds: of each round, in their order.
    write_seconds: of a peer, what writing its vectors as Parquet took beside.
    out: where it wrote last.
  """

  name: str
  worker: Worker
  precision: str
  is_ours: bool
  versions: Mapping[str, str] = field(default_factory=dict)
  batch_size: int | None = None
  seconds: list[float] = field(default_factory=list)
  write_seconds: list[float] = field(default_factory=list)
  out: Path | None = None

  def work(self, texts: Path, scratch: Path) -> float:
    """Does one round and returns its seconds."""
    out = scratch / f"{self.name.replace(' ', '-')}-{len(self.seconds)}"
    answer = self.worker.ask(texts=str(texts), out=str(out), batch_size=self.batch_size)
    self.seconds.append(answer["seconds"])
    if not self.is_ours:
      self.write_seconds.append(answer["write_seconds"])
    if self.out:
      remove(self.out)
    self.out = out
    print(f"    {self.name:34} {answer['seconds']:7.2f} s", flush=True)
    return self.seconds[-1]

  def vectors(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns what it wrote last in the order of ids: vectors float32 [N, K], and tokens [N], or none from a peer."""
    assert self.out
    table = pq.read_table(next(self.out.glob("runs/*/vectors")) if self.is_ours else self.out).sort_by("doc_id")
    vectors = np.stack(table["vector"].to_numpy())
    return vectors, table["n_tokens"].to_numpy() if self.is_ours else np.empty(0)


@dataclass
class Limit:
  """What the matrix products of the model could be done at in one precision.

  Attributes:
    rates: floating-point operations a second, of each round.
  """

  worker: Worker
  rates: list[float] = field(default_factory=list)

  def work(self) -> float:
    """Does one round and returns its seconds."""
    answer = self.worker.ask()
    self.rates.append(answer["operations_per_second"])
    return float(answer["seconds"])

  def seconds(self, lengths: np.ndarray) -> float:
    """Returns what the products alone would take, for texts of so many tokens each and no padding."""
    return float(self.worker.ask(lengths=lengths.tolist())["operations"] / np.median(self.rates))


def compare(
  contenders: Sequence[Contender], limits: Mapping[str, Worker], texts: Path, sample: Path, scratch: Path, rounds: int
) -> dict[str, Any]:
  """Lets contenders encode the texts by turns and returns what was seen, a row for each and a ratio for each pair.

  Args:
    contenders: of whom the first is ours in float32.
    limits: what multiplies matrices, by precision.
    texts: a folder of files.
    sample: one of fewer.
    scratch: where they write.
    rounds: how many.
  """
  warm: list[Contender] = []
  for each in contenders:
    with left_out(each.name):
      warm_up(each, sample, scratch)
      warm.append(each)
  measured = {precision: Limit(worker) for precision, worker in limits.items()}
  turns: dict[str, Callable[[], float]] = {f"products {name}": limit.work for name, limit in measured.items()}
  turns |= {each.name: functools.partial(each.work, texts, scratch) for each in warm}
  alternate(turns, rounds)
  reference, lengths = warm[0].vectors()
  least = {precision: limit.seconds(lengths) for precision, limit in measured.items()}
  return {
    "documents": len(lengths),
    "tokens": int(lengths.sum()),
    "rounds": rounds,
    "products_gflops": {name: round(float(np.median(limit.rates)) / 1e9, 1) for name, limit in measured.items()},
    "contenders": [describe(each, reference, int(lengths.sum()), least.get(each.precision)) for each in warm],
    "ratios": list(ratios(warm)),
  }


def warm_up(contender: Contender, sample: Path, scratch: Path) -> None:
  """Has a contender encode a sample, so that what is compiled is compiled, and finds a peer's best batch size."""
  if contender.out:  # of another corpus
    remove(contender.out)
  contender.seconds, contender.write_seconds, contender.out = [], [], None
  out = scratch / "warm-up"

  def once(batch_size: int | None) -> float:
    answer = contender.worker.ask(texts=str(sample), out=str(out), batch_size=batch_size)
    remove(out)
    return float(answer["seconds"])

  once(BATCH_SIZES[0])
  if not contender.is_ours:
    seconds = {size: once(size) for size in BATCH_SIZES}
    contender.batch_size = min(seconds, key=lambda size: seconds[size])


def describe(contender: Contender, reference: np.ndarray, n_tokens: int, least: float | None) -> dict[str, Any]:
  """Returns the row of one contender.

  Args:
    contender: who.
    reference: vectors [N, K] of length 1, by the first one.
    n_tokens: of all texts.
    least: the seconds of the matrix products alone; None where that is not known.
  """
  seconds, (vectors, _) = Timing.of(contender.seconds), contender.vectors()
  row = {
    "name": contender.name,
    "ours": contender.is_ours,
    "precision": contender.precision,
    "versions": contender.versions,
    "batch_size": contender.batch_size,
    "seconds": asdict(seconds),
    "documents_per_second": round(len(vectors) / seconds.median, 1),
    "tokens_per_second": round(n_tokens / seconds.median),
    "write_seconds": None if contender.is_ours else round(Timing.of(contender.write_seconds).median, 3),
  }
  if least is not None:
    row["share_of_limit"] = round(least / seconds.median, 3)
  if vectors.shape == reference.shape:  # not where ours are whitened
    row["lowest_cosine"] = float((vectors.astype(np.float64) * reference).sum(axis=1).min())
  return row


def ratios(contenders: Sequence[Contender]) -> Iterator[dict[str, Any]]:
  """Yields how many times as fast as each peer we were at its precision, round by round."""
  for ours in (each for each in contenders if each.is_ours):
    for peer in (each for each in contenders if not each.is_ours and each.precision == ours.precision):
      each_round = [b / a for a, b in zip(ours.seconds, peer.seconds, strict=True)]
      yield {"ours": ours.name, "peer": peer.name, **asdict(Timing.of(each_round))}


def remove(out: Path) -> None:
  """Removes a file or a folder."""
  if out.is_dir():
    shutil.rmtree(out)
  else:
    out.unlink()
