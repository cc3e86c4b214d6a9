"""What is read, and how: the values that the driver plans with and the workers read by."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, get_args

import pyarrow as pa

from transforms.errors import UsageError
from transforms.url_secrets import check_no_secret_option

Format = Literal["text", "jsonl", "csv", "tsv", "parquet"]
Compression = Literal["gzip", "bz2", "zstd"]

# A plain text file has one column, which has this name.
TEXT_COLUMN: Final = "text"

# Every ASCII character stands for itself; a backslash must not start an escape.
_ASCII_PROBE: Final = bytes(range(128)).replace(b"\\", rb"\u0041") + b"+AGE-"


@dataclass(frozen=True)
class ReadOptions:
  """How documents are found in files.

  Attributes:
    text_columns: the columns that make the text, joined by a line break.
    id_column: the column with the document's id; None: `name#position`.
    keep_columns: the columns that are carried to the output.
    encoding: of text, JSONL, CSV and TSV; one in which the byte 0x0A is always a line break.
    format: of every file; None: by each file's name.
    header: whether the first record of a CSV or TSV file names the columns; if not, they are "1", "2", ...
    allow_bad_files: whether a file that cannot be read is left to be counted instead of ending the run.
    storage: options for the fsspec file system, such as `anon`; they travel with the job, so no credentials.

  Raises:
    UsageError: at construction, if the options cannot be right for any file.
  """

  text_columns: tuple[str, ...] = (TEXT_COLUMN,)
  id_column: str | None = None
  keep_columns: tuple[str, ...] = ()
  encoding: str = "utf-8"
  format: Format | None = None
  header: bool = True
  allow_bad_files: bool = False
  storage: Mapping[str, Any] = field(default_factory=dict)

  def __post_init__(self) -> None:
    if not self.text_columns:
      raise UsageError("no text column is given: --text-column names one")
    for option, columns in (("--text-column", self.text_columns), ("--keep-columns", self.keep_columns)):
      twice = sorted({column for column in columns if columns.count(column) > 1})
      if twice:
        raise UsageError(f"{option} names {twice[0]!r} twice: name each column once")
    if self.format is not None and self.format not in get_args(Format):
      raise UsageError(f"unknown format {self.format!r}: choose one of {', '.join(get_args(Format))}")
    check_no_secret_option(self.storage)
    object.__setattr__(self, "encoding", line_encoding(self.encoding))

  @property
  def columns(self) -> tuple[str, ...]:
    """All columns that are needed, each once: text, id, kept."""
    ids = () if self.id_column is None else (self.id_column,)
    return tuple(dict.fromkeys((*self.text_columns, *ids, *self.keep_columns)))


def line_encoding(encoding: str) -> str:
  """Return Python's name of an encoding whose lines can be cut at the byte 0x0A.

  Raises:
    UsageError: if the encoding is unknown, or ASCII characters are not single bytes in it.
  """
  try:
    name = codecs.lookup(encoding).name
    ascii_is_itself = _ASCII_PROBE.decode(encoding) == _ASCII_PROBE.decode("ascii")
  except UnicodeError:
    ascii_is_itself = False
  except LookupError as error:
    raise UsageError(
      f"unknown encoding {encoding!r}: use a name that Python knows, such as utf-8 or gb18030"
    ) from error
  if not ascii_is_itself:
    raise UsageError(
      f"encoding {encoding!r} cannot be cut into lines: convert the files first (iconv -f {encoding} -t UTF-8)"
    )
  # A byte-order mark is dropped at the file's start only; utf-8-sig would drop one from every line.
  return "utf-8" if name == "utf-8-sig" else name


class RowGroup(NamedTuple):
  """One row group of a Parquet file: its rows, and the bytes of the columns that are read (uncompressed, estimated)."""

  rows: int
  text_bytes: int


@dataclass(frozen=True)
class InputFile:
  """A file as it was listed when the run was planned.

  Attributes:
    url: what fsspec opens.
    name: path relative to the input's root, with "/"; part of ids, so it must not move.
    size: bytes, as stored.
    version: etag, checksum or time of change: whatever the file system offers; "" if nothing.
    format: how it is read.
    compression: what is around it.
    text_bytes: estimate of the bytes of text in it, uncompressed; of a Parquet file, of all columns that are read.
    row_groups: of a Parquet file; None for all others, and for a Parquet file with a damaged footer.
    kept_types: of a Parquet file, the types in which `keep_columns` are carried.
  """

  url: str
  name: str
  size: int
  version: str
  format: Format
  compression: Compression | None
  text_bytes: int
  row_groups: tuple[RowGroup, ...] | None = None
  kept_types: tuple[pa.DataType, ...] = ()


@dataclass(frozen=True)
class Slice:
  """A piece of a file that is read in one go.

  Attributes:
    file: index of the file in the listing.
    begin: byte offset, or number of the first row group of a Parquet file.
    end: the offset (or row group) after the last; None: to the end. A line belongs to the slice in which it starts.
    limit: the number of documents, rejected ones included, after which reading stops; None: no limit.
  """

  file: int
  begin: int = 0
  end: int | None = None
  limit: int | None = None
