"""What benchmarks share: peers by turns in one run, and results that say on what machine they were seen."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
  """Seconds of several rounds.

  Attributes:
    median: the middle one.
    low, high: the fastest and the slowest.
  """

  median: float
  low: float
  high: float

  @classmethod
  def of(cls, seconds: list[float]) -> "Timing":
    """Returns that of some rounds, of which there is one at least."""
    return cls(statistics.median(seconds), min(seconds), max(seconds))


def timed(work: Callable[[], object]) -> float:
  """Returns the seconds that some work takes."""
  started = time.perf_counter()
  work()
  return time.perf_counter() - started


def alternate(rivals: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
  """Lets rivals work by turns, so that what the machine does beside it hits all; each returns the seconds it took.

  Every other round goes backwards: nobody always comes after the same one.
  """
  seconds: dict[str, list[float]] = {name: [] for name in rivals}
  for i in range(rounds):
    for name in list(rivals)[:: -1 if i % 2 else 1]:
      seconds[name].append(rivals[name]())
  return {name: Timing.of(values) for name, values in seconds.items()}


def machine() -> dict[str, Any]:
  """Returns what a figure depends on: processor, cores, memory, system and Python."""
  flags = _cpu_info("flags").split()
  return {
    "processor": _cpu_info("model name") or platform.processor(),
    "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    "bfloat16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags],
    "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
    "system": platform.system(),
    "python": platform.python_version(),
  }


def read_results(name: str) -> dict[str, Any]:
  """Returns benchmarks/results/NAME.json; nothing where it was not measured yet."""
  path = RESULTS / f"{name}.json"
  return dict(json.loads(path.read_text())) if path.exists() else {}


def add_results(name: str, figures: str, entry: str, value: Mapping[str, Any]) -> None:
  """Writes one entry of `figures` in benchmarks/results/NAME.json, beside those that are there."""
  write_results(name, {figures: read_results(name).get(figures, {}) | {entry: value}})


def write_results(name: str, value: Mapping[str, Any]) -> None:
  """Writes benchmarks/results/NAME.json with the machine's description."""
  RESULTS.mkdir(exist_ok=True)
  (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine(), **value}, indent=2) + "\n")


def _cpu_info(key: str) -> str:
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return ""
  return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
