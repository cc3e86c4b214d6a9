"""Which files are read: the listing that the driver makes once, and that the whole run is held to."""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from transforms.csv_records import read_records
from transforms.errors import InputFileError, UsageError
from transforms.input_columns import check_columns
from transforms.input_slices import cut_slices, limit_slices
from transforms.input_source import InputSource, file_facts, with_retries
from transforms.input_types import TEXT_COLUMN, Compression, Format, InputFile, ReadOptions, RowGroup, Slice
from transforms.parquet_rows import with_footer
from transforms.places import file_system, is_local
from transforms.row_maker import BadDocument
from transforms.rows import csv_columns, json_object, open_lines

__all__ = [
  "InputFile",
  "ReadOptions",
  "RowGroup",
  "Slice",
  "cut_slices",
  "keep_schema",
  "limit_slices",
  "list_files",
]

Sleep = Callable[[float], object]

_COMPRESSIONS: Final[dict[str, Compression]] = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_FORMATS: Final[dict[str, Format]] = {
  ".txt": "text",
  ".text": "text",
  ".jsonl": "jsonl",
  ".ndjson": "jsonl",
  ".json": "jsonl",
  ".csv": "csv",
  ".tsv": "tsv",
  ".parquet": "parquet",
  ".pq": "parquet",
}
# Reading these as lines of text could only make a mess.
_UNREADABLE: Final = (
  *(".7z", ".lz4", ".rar", ".tar", ".tgz", ".xz", ".zip"),
  *(".arrow", ".avro", ".docx", ".feather", ".orc", ".pdf", ".pkl", ".xlsx"),
)
_COMPRESSED_RATIO: Final = 4  # text shrinks to about a quarter
_LISTING_THREADS: Final = 16  # a request per file, each some tens of milliseconds on an object store
_PEEKED_LINES: Final = 100
_LISTING_REMEDY: Final = "is it spelt right, and can this machine reach it?"
# gcsfs alone tries for half a minute: who has not answered by then is more often out of reach than overloaded.
_LISTING_SECONDS: Final = 30.0


@dataclass(frozen=True)
class _Found:
  """A file that a pattern matched, on its file system."""

  fs: Any
  path: str
  url: str

  @property
  def place(self) -> str:
    """The same for all names of one file; a local one may have several, by links."""
    return os.path.realpath(self.path) if is_local(self.fs) else self.url


def list_files(
  patterns: Sequence[str],
  options: ReadOptions,
  *,
  sleep: Callable[[float], object] = time.sleep,
  clock: Callable[[], float] = time.monotonic,
) -> list[InputFile]:
  """List the input files, each once, sorted by name, and check that they have the columns that are asked for.

  A pattern is a file, a glob or a folder, local or any fsspec URL. Of a folder, and the folders in it, the files with
  known endings are taken, except those whose name begins with "." or "_"; if a format is asked for, all but those. A
  file with an unknown ending that is named or matched is text. A link to a file is that file, under the link's name; a
  link to a folder is followed if it is named, not if it is met in a folder. The root that names are relative to is the
  deepest folder common to all patterns; with several file systems a name is the whole URL. A file with several names is
  read once, under the lowest.

  Raises:
    UsageError: if a pattern matches no file, a link leads nowhere, or a file cannot hold the columns asked for.
    InputFileError: if a file cannot be read, unless `options.allow_bad_files`.
  """
  found: list[_Found] = []
  roots = []
  for pattern in patterns:
    fs, path = _file_system(pattern, options)
    match = partial(_match, fs, path, options)
    matched = with_retries(pattern, match, remedy=_LISTING_REMEDY, patience=_LISTING_SECONDS, sleep=sleep, clock=clock)
    if not matched:
      raise UsageError(f"no file matches {pattern}: check the path, or quote the pattern against the shell")
    found += [_Found(fs, path, _url(pattern, fs, path)) for path in matched]
    roots.append((fs, _fixed_part(fs, path)))
  root = _common_root(roots)
  once = {file.place: file for file in sorted(found, key=lambda file: file.url, reverse=True)}  # the lowest name stays
  with ThreadPoolExecutor(_LISTING_THREADS) as threads:
    files = list(threads.map(lambda file: _listed(file, root, options, sleep), once.values()))
  files.sort(key=lambda file: file.name)
  _check_lines(files, options, sleep)
  return files


def keep_schema(files: Iterable[InputFile], options: ReadOptions) -> pa.Schema:
  """Return the types of the kept columns: those of the Parquet files if all files are Parquet and agree, else string.

  Values that are not strings are then kept as text, nested ones and those of JSON as JSON.
  """
  footers = {file.kept_types if file.format == "parquet" else None for file in files if not _is_damaged(file)}
  types = [set(column) for column in zip(*footers, strict=True)] if footers and None not in footers else []
  kinds = [kinds.pop() if len(kinds) == 1 else pa.string() for kinds in types]
  return pa.schema(list(zip(options.keep_columns, kinds or [pa.string()] * len(options.keep_columns), strict=True)))


def _is_damaged(file: InputFile) -> bool:
  return file.format == "parquet" and file.row_groups is None


def _file_system(pattern: str, options: ReadOptions) -> tuple[Any, str]:
  fs, path = file_system(pattern, options.storage)
  return fs, _plain(path) if is_local(fs) else path


def _plain(path: str) -> str:
  """Return a local path without "//", "." and ".."; where a ".." follows a link, it goes up from the link's target."""
  plain = posixpath.normpath("/" + path.lstrip("/"))
  real = os.path.realpath(path)
  return plain if os.path.realpath(plain) == real else real


def _match(fs: Any, path: str, options: ReadOptions) -> list[str]:
  kind = _kind(fs, path)  # first, as a file's own name may have brackets in it
  if kind == "file":
    return [path]
  if kind == "directory":
    below = (name for name, info in fs.find(path, detail=True).items() if _is_file(fs, name, info))
    return sorted(name for name in below if _is_taken(name[len(path.rstrip("/")) :], options))
  if not _has_magic(path):
    return []
  return sorted(name for name, info in fs.glob(path, detail=True).items() if _is_file(fs, name, info))


def _kind(fs: Any, path: str) -> str | None:
  """Return what is there, "file" or "directory"; None if there is neither.

  `isfile` and `isdir` say no as well where a service does not answer, each after all the tries of its client.
  """
  if is_local(fs):
    return "file" if fs.isfile(path) else "directory" if fs.isdir(path) else None
  try:
    return str(fs.info(path)["type"])
  except (FileNotFoundError, NotADirectoryError):
    return None


def _is_file(fs: Any, path: str, info: dict[str, Any]) -> bool:
  if info["type"] == "file":
    return True
  is_link = info["type"] == "link" or bool(info.get("islink"))  # file systems differ in how they say it
  return is_link and (fs.isfile(path) or not fs.exists(path))  # one to nothing is not passed over: listing refuses it


def _has_magic(path: str) -> bool:
  return any(character in path for character in "*?[")


def _is_taken(below: str, options: ReadOptions) -> bool:
  if any(part.startswith((".", "_")) for part in below.split("/")):
    return False
  return options.format is not None or _endings(below)[0] in _FORMATS


def _url(pattern: str, fs: Any, path: str) -> str:
  """Return what opens the matched path; in a chain of file systems, the path lies in the first link that has one."""
  first, *rest = pattern.split("::")
  if is_local(fs):
    return path
  if not rest:
    return str(fs.unstrip_protocol(path))
  if "://" in first:
    return "::".join([f"{first.partition('://')[0]}://{path.lstrip('/')}", *rest])
  return "::".join([first, *_with_path(rest, path)])


def _with_path(links: list[str], path: str) -> list[str]:
  protocol, has_protocol, _ = links[0].partition("://")
  return [f"{protocol}://{path}" if has_protocol else path, *links[1:]]


def _fixed_part(fs: Any, path: str) -> list[str]:
  """Return the folders above the first wildcard; a pattern without one is a folder, or a file in a folder."""
  if fs.isdir(path):
    return path.rstrip("/").split("/")
  parts = path.split("/")[:-1]
  first_magic = next((i for i, part in enumerate(parts) if _has_magic(part)), len(parts))
  return parts[:first_magic] if not fs.isfile(path) else parts


def _common_root(roots: list[tuple[Any, list[str]]]) -> str | None:
  if any(fs != roots[0][0] for fs, _ in roots):
    return None
  folders = [folder for _, folder in roots]
  n_common = next((i for i, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1), None)
  common = folders[0][: min(map(len, folders)) if n_common is None else n_common]
  return "".join(f"{part}/" for part in common)


def _endings(path: str) -> tuple[str, Compression | None]:
  """Return the ending that tells the format, in lower case, and the compression."""
  stem, ending = posixpath.splitext(path.lower())
  compression = _COMPRESSIONS.get(ending)
  return (posixpath.splitext(stem)[1], compression) if compression else (ending, None)


def _listed(found: _Found, root: str | None, options: ReadOptions, sleep: Sleep) -> InputFile:
  name = found.url if root is None else found.path.removeprefix(root)
  if is_local(found.fs) and not (path := Path(found.path)).exists() and path.is_symlink():
    raise UsageError(f"{name} is a link to {path.readlink()}, where nothing is: mend it or remove it")
  size, version = with_retries(name, lambda: file_facts(found.fs, found.path), sleep=sleep)
  if size is None:
    raise UsageError(f"{name} has no size on its file system: copy it to one that tells sizes")
  ending, compression = _endings(found.path)
  file = InputFile(found.url, name, size, version, _format(name, ending, options), compression, size)
  _check_name(file, options)
  if file.format != "parquet":
    return replace(file, text_bytes=size * (_COMPRESSED_RATIO if compression else 1))
  try:
    return with_footer(file, options, sleep=sleep)
  except InputFileError:
    if not options.allow_bad_files:
      raise
    return file


def _format(name: str, ending: str, options: ReadOptions) -> Format:
  if options.format is not None:
    return options.format
  if ending in _UNREADABLE:
    raise UsageError(
      f"{name} cannot be read: convert it to text, JSONL, CSV, TSV or Parquet (.gz, .bz2, .zst), or leave it out"
    )
  return _FORMATS.get(ending, "text")


def _check_name(file: InputFile, options: ReadOptions) -> None:
  try:
    file.name.encode("utf-8")
  except UnicodeEncodeError as error:
    raise UsageError(f"{file.name!r} is not a UTF-8 file name: rename it, as names are parts of ids") from error
  if file.format == "parquet" and file.compression:
    raise UsageError(f"{file.name} is a compressed Parquet file: decompress it, Parquet has compression of its own")
  foreign = next((column for column in options.columns if column != TEXT_COLUMN), None)
  if file.format == "text" and foreign is not None:
    raise UsageError(
      f"{file.name} is read as plain text, which has the column {TEXT_COLUMN!r} only, not {foreign!r}: "
      "--format says how files are read whose names do not"
    )


def _check_lines(files: list[InputFile], options: ReadOptions, sleep: Sleep) -> None:
  """Look into the first file of each format with named columns: a mistyped column would reject every document."""
  for format in ("jsonl", "csv", "tsv"):
    file = next((file for file in files if file.format == format and file.size), None)
    if file is None:
      continue
    source = InputSource(file, options.storage, sleep=sleep)
    try:
      columns = _jsonl_columns(source, options) if format == "jsonl" else _header(source, options)
    except InputFileError:
      if not options.allow_bad_files:
        raise
      continue
    finally:
      source.close()
    if columns:
      check_columns(file, columns, options)


def _header(source: InputSource, options: ReadOptions) -> list[str]:
  lines = open_lines(source, Slice(0), options)
  first = next(read_records(lines, options.encoding, source.file.format), None)
  return [] if first is None else csv_columns(first.fields, options)


def _jsonl_columns(source: InputSource, options: ReadOptions) -> list[str]:
  """Return the columns of the first lines: one line alone may lack what the others have."""
  columns: dict[str, None] = {}
  for _, line in islice(open_lines(source, Slice(0), options), _PEEKED_LINES):
    try:
      columns.update(dict.fromkeys(json_object(line, options.encoding)))
    except BadDocument:
      continue  # the worker that reads the line rejects it
  return list(columns)
