"""Say what is other in a run than in the one published before it: counts, options, versions. From two manifests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.dataset import Dataset
from transforms.errors import SorbusError

# Options of a manifest that are called otherwise than their flags.
_FLAGS = {"inputs": "--input", "text_columns": "--text-column", "header": "--no-header"}
_COUNTS = ("read", "written", "distinct", "encoded", "reused", "truncated", "tokens", "unknown_tokens")


@dataclass(frozen=True)
class Comparison:
  """A run beside the one that it leads on from.

  Attributes:
    run_id: of the earlier run.
    counts: (what, then, now).
    settings: (what, then, now) of options, versions, encoder and whitening that are not the same.
    comparable: whether the vectors of both may be compared: one encoder, one whitening.
    problem: why the earlier run cannot be told; the rest is empty then.
  """

  run_id: str
  counts: tuple[tuple[str, int, int], ...] = ()
  settings: tuple[tuple[str, str, str], ...] = ()
  comparable: bool | None = None
  problem: str | None = None


def compare(dataset: Dataset, manifest: Mapping[str, Any]) -> Comparison | None:
  """Returns what is other since the run that `changes.against` names; None where there was none."""
  against = (manifest.get("changes") or {}).get("against")
  if against is None:
    return None
  try:
    then = dataset.manifest(against)
  except (SorbusError, OSError) as error:  # gc may have removed it
    return Comparison(against, problem=str(error))
  return Comparison(
    against,
    tuple((name, _count(then, name), _count(manifest, name)) for name in (*_COUNTS, "rejected")),
    tuple((name, old, new) for name, old, new in _settings(then, manifest) if old != new),
    _map_of(then) == _map_of(manifest),
  )


def _count(manifest: Mapping[str, Any], name: str) -> int:
  value = manifest["counts"][name]
  return sum(value.values()) if isinstance(value, dict) else int(value)


def _map_of(manifest: Mapping[str, Any]) -> tuple[str, str | None]:
  """Returns what decides the vector of a text: the fingerprints of encoder and whitening."""
  return manifest["encoder"]["fingerprint"], manifest["whitening"].get("fingerprint")


def _settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str, str]]:
  pairs = _all(as_typed(then["options"]), as_typed(now["options"]))
  pairs += _all(then.get("versions", {}), now.get("versions", {}))
  for name, key in (("encoder", "fingerprint"), ("precision", "precision")):
    pairs.append((name, *_both(then["encoder"], now["encoder"], key)))
  pairs.append(("whitening", *_both(then["whitening"], now["whitening"], "fingerprint")))
  pairs.append(("components", *_both(then["whitening"], now["whitening"], "n_components")))
  return pairs


def as_typed(options: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the options of a manifest under the flags that a person types."""
  return {
    _FLAGS.get(name, f"--{name.replace('_', '-')}"): not value if name == "header" else value
    for name, value in options.items()
  }


def _all(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str, str]]:
  return [(name, *_both(then, now, name)) for name in sorted({**then, **now})]


def _both(then: Mapping[str, Any], now: Mapping[str, Any], key: str) -> tuple[str, str]:
  return show_value(then.get(key)), show_value(now.get(key))


def show_value(value: Any) -> str:
  """Returns a setting for people: a fingerprint short, a list as its items."""
  if isinstance(value, list | tuple):
    return ", ".join(map(show_value, value)) or "–"
  if value is None or value == "":
    return "–"
  if isinstance(value, bool):
    return "yes" if value else "no"
  text = str(value)
  is_fingerprint = len(text) == 64 and set(text) <= set("0123456789abcdef")
  return text[:12] if is_fingerprint else text
