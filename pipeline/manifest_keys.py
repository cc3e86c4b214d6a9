"""What a manifest has to hold for its readers: show, search, verify and publish take these keys without asking.

Sorbus writes them all (docs/formats.md); a manifest that lacks one was edited by hand, or damaged.
"""

from collections.abc import Iterator, Mapping
from typing import Any

# What is wanted of a value: a type; a mapping with these keys; [what every item of a list has to be].
EACH = "*"  # what every other value of a mapping has to be
_NUMBER = int | float
_FILE = {"path": str, "rows": int, "bytes": int, "sha256": str}
_COUNTS = (
  *("read", "written", "new", "changed", "unchanged", "gone"),
  *("distinct", "encoded", "reused", "truncated", "unknown_tokens", "tokens"),
  *("encoded_tokens", "computed_tokens", "bad_files"),
)
_MANIFEST: dict[str, Any] = {
  "run_id": str,
  "base": int,
  "started": str,
  "finished": str,
  "options": dict,
  "inputs": [{"name": str, "url": str, "bytes": int}],
  "encoder": {"url": str, "fingerprint": str},
  "kept_columns": dict,
  "buckets": int,
  "by_input": [{"read": int, "written": int, "rejected": int}],
  "counts": {**dict.fromkeys(_COUNTS, int), "rejected": {EACH: int}},
  "seconds": {"read": _NUMBER, "encode": _NUMBER, "write": _NUMBER},
  "files": {"vectors": [_FILE], EACH: [_FILE]},
  "raw_files": [str],
  "bad_files": [str],
  "verdicts": {EACH: {"passed": bool, "finding": str}},
}
# Where none could be fitted, `refused` stands in place of these.
_WHITENING: dict[str, Any] = {
  "asked": str,
  "fingerprint": str,
  "hidden_size": int,
  "n_components": int,
  "count": int,
  "kept_variance": _NUMBER | None,
}
# Of a replay only. Where its documents could not be accounted for, `problem` stands in place of the numbers.
_REPLAY: dict[str, Any] = {"run_id": str, "rejected": int, "written": int, "still_rejected": {EACH: int}, "gone": int}
# Of runs since there was a choice.
_LONG_TEXTS = {"mode": str, "room": int, "stride": int | None, "long": int, "chunks": int | None}
_CHANGES: dict[str, Any] = {"against": str | None, "problem": str | None}
# Of runs since there was a choice.
_VECTORS: dict[str, Any] = {"type": str, "clipped": int}
# Null on the first night, and where there is no whitening to drift from.
_DRIFT: dict[str, Any] = {
  "against": str,
  "mean": _NUMBER | None,
  "covariance": _NUMBER | None,
  "neighbours": _NUMBER | None,
  "sample": int,
  "reason": str | None,
}


def find_fault(manifest: Mapping[str, Any]) -> str | None:
  """Returns the first thing that keeps a manifest from being read, such as "has no 'counts.read'", or None."""
  whitening = manifest.get("whitening")
  refused = isinstance(whitening, dict) and "refused" in whitening
  wanted = _MANIFEST | {"whitening": {"refused": str} if refused else _WHITENING}
  if "replay" in manifest:
    untold = isinstance(manifest["replay"], dict) and "problem" in manifest["replay"]
    wanted["replay"] = {"run_id": str, "problem": str} if untold else _REPLAY
  if "long_texts" in manifest:
    wanted["long_texts"] = _LONG_TEXTS
  if not refused:  # where nothing was written, nothing is known of changes
    wanted["changes"] = _CHANGES
  wanted |= {"vectors": _VECTORS} if "vectors" in manifest else {}
  wanted |= {"drift": _DRIFT} if manifest.get("drift") is not None else {}
  return next(_faults(manifest, wanted), None)


def _faults(value: Any, wanted: Any, where: str = "") -> Iterator[str]:
  kind = type(wanted) if isinstance(wanted, dict | list) else wanted
  if not isinstance(value, kind):
    yield f"has {type(value).__name__} as {where!r}"
  elif isinstance(value, list) and isinstance(wanted, list):
    for i, item in enumerate(value):
      yield from _faults(item, wanted[0], f"{where}.{i}")
  elif isinstance(value, dict) and isinstance(wanted, dict):
    yield from _faults_of_keys(value, wanted, f"{where}." if where else "")


def _faults_of_keys(value: dict[str, Any], wanted: dict[str, Any], prefix: str) -> Iterator[str]:
  for key in wanted:
    if key != EACH and key not in value:
      yield f"has no {prefix + key!r}"
  for key, child in value.items():
    if key in wanted or EACH in wanted:
      yield from _faults(child, wanted.get(key, wanted.get(EACH)), prefix + key)
