"""Lists that grow with the corpus, kept in a file of the run: a plan that names them stays small when it is pickled.

Every step of a graph carries its plan, and engines refuse large graphs (Dataflow above 10 MB) or send them to every
worker. So the driver writes such a list once, and each worker process reads it once, when it is asked for.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self, TypeVar, overload

from transforms.base_run import BaseShard
from transforms.errors import StoreError
from transforms.input_types import InputFile, RowGroup, Slice
from transforms.storage import Storage, StoredFile, sha256

T = TypeVar("T", InputFile, Slice, BaseShard)

_reading = threading.Lock()


@dataclass(frozen=True)
class PlannedList(Sequence[T]):
  """An immutable list in a file, a JSON value a line; pickled it is the file's name and sha256.

  Attributes:
    storage: the dataset's.
    file: of the list; its rows are the values.
    kind: what the values are.
  """

  storage: Storage
  file: StoredFile
  kind: type[T]

  @classmethod
  def write(cls, storage: Storage, folder: str, name: str, kind: type[T], values: Iterable[T]) -> Self:
    """Writes a list; the same list once more writes the same file."""
    lines = [json.dumps(_plain(value), default=vars, separators=(",", ":")) for value in values]
    data = "".join(f"{line}\n" for line in lines).encode()
    return cls(storage, storage.write_content(folder, name, ".jsonl", data, len(lines)), kind)

  def __len__(self) -> int:
    """Returns the number of values; reads nothing."""
    return self.file.rows

  @overload
  def __getitem__(self, index: int) -> T: ...

  @overload
  def __getitem__(self, index: slice) -> tuple[T, ...]: ...

  def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
    """Returns a value, or those of a slice; raises StoreError if the file is missing or not the one written."""
    lines = self._lines()
    return tuple(map(self._value, lines[index])) if isinstance(index, slice) else self._value(lines[index])

  def __iter__(self) -> Iterator[T]:
    """Yields the values."""
    return map(self._value, self._lines())

  def _lines(self) -> tuple[bytes, ...]:
    with _reading:  # else every thread of a worker would begin by reading it
      return read_lines(self.storage, self.file)

  def _value(self, line: bytes) -> T:
    value: T = _KINDS[self.kind](json.loads(line))
    return value


# Lines take a fifth of the memory of the values that they stand for; a worker needs few of these.
@lru_cache(maxsize=4)
def read_lines(storage: Storage, file: StoredFile) -> tuple[bytes, ...]:
  """Returns the lines of a list's file, read once; raises StoreError if it is missing or not the one written."""
  try:
    data = storage.read(file.path)
  except FileNotFoundError as error:
    raise StoreError(f"{file.path}: a file that this run was planned with is gone; run again") from error
  if sha256(data) != file.sha256:
    raise StoreError(f"{file.path}: damaged (its sha256 is not the one that was recorded); run again")
  return tuple(data.splitlines())


def _plain(value: T) -> Mapping[str, Any]:
  """Returns a value's fields; those of Arrow types, from which the plan's `kept` has been decided, stay behind."""
  return {name: field for name, field in vars(value).items() if name != "kept_types"}


def _input_file(values: dict[str, Any]) -> InputFile:
  groups = values.pop("row_groups")
  return InputFile(**values, row_groups=None if groups is None else tuple(RowGroup(*group) for group in groups))


def _base_shard(values: dict[str, Any]) -> BaseShard:
  return BaseShard(values["bucket"], values["bits"], StoredFile(**values["file"]))


_KINDS: Final[Mapping[Any, Callable[[dict[str, Any]], Any]]] = {
  InputFile: _input_file,
  Slice: lambda values: Slice(**values),
  BaseShard: _base_shard,
}
