"""Frozen dataclasses to JSON and back, strictly: a key too many, too few, or of another type is an error."""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any


def to_json_value(value: Any) -> Any:
  """Returns a dataclass (nested ones, tuples and mappings too) as JSON's own types."""
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {field.name: to_json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
  if isinstance(value, tuple | list):
    return [to_json_value(item) for item in value]
  if isinstance(value, Mapping):
    return {key: to_json_value(item) for key, item in value.items()}
  return value


def from_json_value(kind: Any, value: Any, where: str) -> Any:
  """Returns `value`, as parsed from JSON, as the type `kind`; `where` is its path, for messages.

  A type is a dataclass, tuple[X, ...], dict[str, X], X | None, a union of dataclasses or a scalar.

  Raises:
    ValueError: anything is not of its type; the message is `WHERE: ...`.
  """
  origin, arguments = typing.get_origin(kind), typing.get_args(kind)
  if dataclasses.is_dataclass(kind):
    return _dataclass(kind, value, where)
  if origin is tuple:
    _check(isinstance(value, list), where, "a list", value)
    return tuple(from_json_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
  if origin is dict:
    _check(isinstance(value, dict), where, "an object", value)
    return {key: from_json_value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
  if origin is types.UnionType:
    if value is None and types.NoneType in arguments:
      return None
    return from_json_value(_member(arguments, value), value, where)
  if kind is float and type(value) is int:  # JSON writers may drop the point of 1.0
    return float(value)
  _check(type(value) is kind, where, kind.__name__, value)  # not isinstance: True is no number here
  return value


def fingerprint(value: Any) -> str:
  """Returns the sha256 of the canonical JSON of a value: keys sorted, no spaces, no NaN."""
  text = json.dumps(to_json_value(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
  return hashlib.sha256(text.encode()).hexdigest()


def _member(kinds: Sequence[Any], value: Any) -> Any:
  """Returns the type of a union that a value is of: of several dataclasses that with the most of its keys."""
  kinds = [kind for kind in kinds if kind is not types.NoneType]
  keys = value.keys() if isinstance(value, dict) else set[str]()
  return kinds[0] if len(kinds) == 1 else max(kinds, key=lambda kind: len(_names(kind) & keys))


def _names(kind: Any) -> set[str]:
  return {field.name for field in dataclasses.fields(kind)}


def _dataclass(kind: Any, value: Any, where: str) -> Any:
  _check(isinstance(value, dict), where, "an object", value)
  hints = typing.get_type_hints(kind)
  wanted = _names(kind)
  if missing := sorted(wanted - value.keys()):
    raise ValueError(f"{where}: has no {', '.join(missing)}")
  if unknown := sorted(value.keys() - wanted):
    raise ValueError(f"{where}: unknown {', '.join(unknown)}")
  return kind(**{name: from_json_value(hints[name], value[name], f"{where}.{name}") for name in wanted})


def _check(good: bool, where: str, wanted: str, value: Any) -> None:
  if not good:
    raise ValueError(f"{where}: {str(value)[:40]!r} is not {wanted}")
