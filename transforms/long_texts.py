"""What becomes of a text that has more tokens than an encoder takes, and where windows and chunks begin and end."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from transforms.errors import UsageError
from transforms.rejected import DUPLICATE_ID, ENCODER_FAILED, VECTOR_NOT_FINITE, ZERO_VECTOR

TRUNCATE, HEAD_TAIL, WINDOWS, CHUNKS = "truncate", "head-tail", "windows", "chunks"
MODES = (TRUNCATE, HEAD_TAIL, WINDOWS, CHUNKS)
# What Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?", found best: the first 128 of 510 tokens and
# the last 382.
_HEAD_SHARE = 128 / 510
# For these chunks are rejected, one by one; for any other reason a document is, before it is cut.
_OF_CHUNKS = (DUPLICATE_ID, ENCODER_FAILED, VECTOR_NOT_FINITE, ZERO_VECTOR)
# A smaller stride would give a text many times to the encoder: this bounds it.
_LEAST_STRIDES = 4


@dataclass(frozen=True)
class LongTexts:
  """What a run does with long texts.

  Attributes:
    mode: one of MODES.
    room: tokens of a text that fit, without the specials.
    stride: of windows and chunks: tokens from where one begins to where the next does, at most; None for other modes.
  """

  mode: str = TRUNCATE
  room: int = 0
  stride: int | None = None

  @classmethod
  def asked(cls, mode: str, stride: int | None, max_seq_length: int) -> Self:
    """Returns what `--long-texts` and `--stride` mean for an encoder; raises UsageError for a stride that cannot be."""
    room = max_seq_length - 2
    if mode not in (WINDOWS, CHUNKS):
      return cls(mode, room)
    least = -(-room // _LEAST_STRIDES)
    if stride is not None and not least <= stride <= room:
      raise UsageError(
        f"--stride {stride}: {room} tokens of a text fit this encoder at once, so choose {least} (which gives it each "
        f"text about {_LEAST_STRIDES} times) to {room} (without overlap)"
      )
    return cls(mode, room, stride or (max(least, 3 * room // 4) if mode == WINDOWS else room))

  @classmethod
  def of(cls, manifest: Mapping[str, Any]) -> Self:
    """Returns what the run of a manifest did; an older Sorbus truncated, and said nothing of it."""
    found = manifest.get("long_texts") or {}
    return cls(found.get("mode", TRUNCATE), found.get("room", 0), found.get("stride"))

  def describe(self) -> dict[str, Any]:
    """Returns what the manifest says of it."""
    return asdict(self)

  @property
  def of_encoder(self) -> "LongTexts | None":
    """What makes other vectors than `truncate` does of the same texts; a chunk is a text of its own, and fits."""
    return self if self.mode in (HEAD_TAIL, WINDOWS) else None

  def count_long(self, rows: pa.Table) -> int:
    """Returns how many published rows have a text that did not fit."""
    is_long = rows["n_tokens"].to_numpy() > self.room + 2 if self.mode == WINDOWS else rows["truncated"].to_numpy()
    return int(np.count_nonzero(is_long))

  @property
  def head(self) -> int:
    """Of `head-tail`: how many of the first tokens stay; the rest of the room is for the last."""
    return round(self.room * _HEAD_SHARE)

  @property
  def growth(self) -> float:
    """How many times a token of a long text is taken, at most, as windows and chunks overlap."""
    return 4 * self.room / (3 * self.stride) if self.stride is not None and self.stride < self.room else 1.0


TRUNCATED = LongTexts()


@dataclass(frozen=True)
class Documents:
  """Documents of a run whose counts are of chunks: how many were read, and how many of them rejected uncut."""

  read: int
  rejected: int

  @classmethod
  def of(cls, counts: Mapping[str, Any], long_texts: Mapping[str, Any] | None) -> Self | None:
    """Returns them, given what a manifest says; None for a run that made no chunks."""
    if long_texts is None or long_texts["chunks"] is None:
      return None
    rejected = sum(n for reason, n in counts["rejected"].items() if reason not in _OF_CHUNKS)
    return cls(counts["read"] - long_texts["chunks"] + long_texts["long"], rejected)

  @classmethod
  def count_written(cls, counts: Mapping[str, Any], long_texts: Mapping[str, Any] | None) -> int:
    """Returns how many documents a run has rows of, whether these are chunks or not."""
    found = cls.of(counts, long_texts)
    return counts["written"] if found is None else found.read - found.rejected


def lay_windows(bounds: np.ndarray, ends: np.ndarray, room: int, stride: int) -> list[tuple[int, int]]:
  """Lays windows over a text: (first token, token behind the last) of each, in order; every token is in one.

  A window ends with the last sentence that ends in its last quarter, or else where it is full; the next begins
  `stride` tokens after it began, or where a sentence ends in the last quarter of these.

  Args:
    bounds: int [M], ascending: the tokens before which a window may begin, 0 first, and n of a text of n > 0 tokens.
    ends: int, a subset of them: where a sentence ends.
    room: tokens of a window; it has more where it has to, since the next bound is farther away.
    stride: at most `room`.
  """
  n = int(bounds[-1])
  spans: list[tuple[int, int]] = []
  ends, begin = np.append(ends, n), 0
  while True:
    stop = _reach(bounds, ends, begin, room)
    spans.append((begin, stop))
    if stop == n:
      return spans
    begin = _reach(bounds, ends, begin, stride)  # by the same rule, and so not behind `stop`


def _reach(bounds: np.ndarray, ends: np.ndarray, begin: int, most: int) -> int:
  """Returns where to cut at most so many tokens behind `begin`, and behind `begin` in any case."""
  end = int(ends[max(0, int(np.searchsorted(ends, begin + most, "right")) - 1)])
  if begin + most - most // 4 <= end <= begin + most:
    return end
  at = int(np.searchsorted(bounds, begin + most, "right")) - 1
  return int(bounds[at] if bounds[at] > begin else bounds[at + 1])
