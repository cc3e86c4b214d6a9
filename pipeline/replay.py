"""Run the job of an earlier run once more, after what it rejected was mended: what was asked of it, from its manifest.

What became of its rejected documents is told by `replay_account.py`, in the last step of the new run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.dataset import Dataset
from transforms.base_run import vector_type_of
from transforms.errors import UsageError

_NUMBER = int | float
# Flag of `sorbus embed` → (key of the manifest's options, what that has to be); [type] is a list of them.
_RECORDED: dict[str, tuple[str, Any]] = {
  "input": ("inputs", [str]),
  "text_column": ("text_columns", [str]),
  "id_column": ("id_column", str | None),
  "keep_columns": ("keep_columns", [str]),
  "encoding": ("encoding", str),
  "format": ("format", str | None),
  "no_header": ("header", bool),
  "limit": ("limit", int | None),
  "long_texts": ("long_texts", str),
  "stride": ("stride", int | None),
  "whitening": ("whitening", str | None),
  "n_components": ("n_components", _NUMBER | None),
  "refit_above": ("refit_above", _NUMBER | None),
  "max_rejected": ("max_rejected", _NUMBER),
  "max_shrink": ("max_shrink", _NUMBER),
  "max_broken": ("max_broken", _NUMBER),
  "max_self_test_error": ("max_self_test_error", _NUMBER | None),
  "allow_bad_files": ("allow_bad_files", bool),
  "token_budget": ("token_budget", int),
  "vector_type": ("vector_type", str),
  "threshold": ("threshold", _NUMBER | None),
}


@dataclass(frozen=True)
class Replay:
  """A run whose job is to be run again.

  Attributes:
    dataset: its dataset, as the user writes it.
    run_id: its id.
    flags: what its job was asked, by the flags of `sorbus embed` with `_` for `-`.
  """

  dataset: str
  run_id: str
  flags: Mapping[str, Any]


def find_replay(run: str, dataset: str | None) -> Replay:
  """Returns the job of a finished run.

  Args:
    run: its id, or its folder, DATASET/runs/ID.
    dataset: the dataset, None where `run` says it.

  Raises:
    UsageError: there is no such run, it rejected nothing, or its manifest was edited or damaged.
  """
  url, run_id = _parts(run, dataset)
  opened = Dataset.open(url)
  manifest = opened.manifest(run_id)
  check_replay(opened, manifest)
  try:
    flags = _recorded_flags(manifest["options"])
  except ValueError as error:
    raise UsageError(
      f"{opened.storage.root}/runs/{run_id}/manifest.json: {error}; it was edited or damaged: give --input and the "
      "other options of that job instead of --replay"
    ) from error
  encoder = manifest["encoder"]
  precision = {"precision": encoder["precision"]} if "precision" in encoder else {}
  stored = {"vector_type": vector_type_of(manifest)}  # which the options leave out where it is float32
  return Replay(url, run_id, {"encoder": encoder["url"], **precision, **stored, **flags})


def check_replay(dataset: Dataset, manifest: Mapping[str, Any]) -> None:
  """Raises UsageError for a finished run whose rejected documents are none, or gone."""
  run_id = manifest["run_id"]
  if not manifest["counts"]["rejected"] and not manifest["bad_files"]:
    raise UsageError(f"--replay {run_id}: that run rejected nothing; for a night as ever, leave --replay out")
  for file in manifest["files"].get("rejected", ()):
    if dataset.storage.size(file["path"]) != file["bytes"]:
      raise UsageError(
        f"--replay {run_id}: {dataset.storage.root}/{file['path']} is gone or damaged: nothing could be said of its "
        "documents; embed without --replay"
      )


def _parts(run: str, dataset: str | None) -> tuple[str, str]:
  """Returns the dataset and the id that `run` stands for."""
  folder, slash, run_id = run.rstrip("/").rpartition("/")
  if not slash:
    if dataset is None:
      raise UsageError(f"--replay {run}: in which dataset? give --dataset too, or --replay DATASET/runs/ID")
    return dataset, run
  if folder.rpartition("/")[2] != "runs":
    raise UsageError(f"--replay {run}: is no run; give its id, or its folder, DATASET/runs/ID")
  named = folder.removesuffix("runs").rstrip("/") or ("/" if folder.startswith("/") else ".")
  if dataset is not None and Dataset.open(dataset).storage.root != Dataset.open(named).storage.root:
    raise UsageError(f"--replay {run}: is not in --dataset {dataset}; leave --dataset out")
  return named, run_id


def _recorded_flags(options: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what the options of a manifest come to as flags; those that an older Sorbus did not have are left out.

  Raises:
    ValueError: one is not of its type.
  """
  flags = {flag: _checked(options[key], kind, key) for flag, (key, kind) in _RECORDED.items() if key in options}
  if not flags.get("input"):
    raise ValueError("names no 'options.inputs'")
  if "no_header" in flags:
    flags["no_header"] = not flags["no_header"]
  return flags


def _checked(value: Any, kind: Any, key: str) -> Any:
  items = value if isinstance(kind, list) and isinstance(value, list) else [value]
  wanted = kind[0] if isinstance(kind, list) else kind
  if isinstance(kind, list) != isinstance(value, list) or not all(_is(item, wanted) for item in items):
    raise ValueError(f"has {str(value)[:40]!r} as 'options.{key}'")
  return value


def _is(value: Any, kind: Any) -> bool:
  return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))  # True is no number here
