"""A manifest with all that its readers need, for tests of what reads one."""

import copy
from typing import Any

MANIFEST: dict[str, Any] = {
  "format_version": 1,
  "run_id": "r1",
  "base": 0,
  "started": "2024-02-29T11:58:30+00:00",
  "finished": "2024-02-29T12:00:00+00:00",
  "options": {"threshold": None},
  "inputs": [],
  "by_input": [],
  "changes": {"against": "r0", "problem": None},
  "counts": {
    "read": 12345,
    "written": 12000,
    "new": 700,
    "changed": 300,
    "unchanged": 11000,
    "gone": 200,
    "rejected": {"duplicate id": 300, "no tokens": 45},
    "distinct": 11000,
    "encoded": 1000,
    "reused": 10000,
    "truncated": 7,
    "unknown_tokens": 3,
    "tokens": 240000,
    "encoded_tokens": 18000,
    "computed_tokens": 20000,
    "bad_files": 0,
  },
  "seconds": {"read": 10.0, "encode": 4.0, "write": 2.0},
  "bad_files": [],
  "encoder": {"url": "/models/minilm", "fingerprint": "0123456789abcdef" * 4},
  "files": {"vectors": [{"path": "runs/r1/vectors/a.parquet", "rows": 12000, "bytes": 9, "sha256": "f" * 64}]},
  "raw_files": ["all-r1-0.parquet"],
  "kept_columns": {},
  "buckets": 16,
  "whitening": {
    "asked": "fit",
    "fingerprint": "fedcba9876543210" * 4,
    "hidden_size": 768,
    "n_components": 256,
    "count": 5000,
    "kept_variance": 0.9312,
  },
  "verdicts": {gate: {"passed": True, "finding": "fine"} for gate in ("documents", "rejected")},
}


def manifest(**changes: Any) -> dict[str, Any]:
  """Returns the manifest with some keys changed, those of a nested mapping one by one."""
  value = copy.deepcopy(MANIFEST)
  for name, change in changes.items():
    value[name] = value[name] | change if isinstance(change, dict) else change
  return value
