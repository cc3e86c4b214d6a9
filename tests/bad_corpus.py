"""A corpus with every bad input among good documents, and what must become of each."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import rejected
from transforms.input_types import ReadOptions

V = TypeVar("V")

# Found by the tokeniser and by settling ids; everything else is found while reading.
AFTER_READING = frozenset({rejected.NO_TOKENS, rejected.DUPLICATE_ID})


@dataclass
class BadCorpus:
  """What `write_bad_corpus` wrote.

  Attributes:
    patterns: what to read.
    options: how to read it.
    n_written: documents that must be published.
    rejected: how many must be rejected, by reason, at the end of the pipeline.
    n_bad_files: files that cannot be read and give no document (only if asked for; needs `allow_bad_files`).
  """

  patterns: tuple[str, ...]
  options: ReadOptions
  n_written: int = 0
  rejected: Counter[str] = field(default_factory=Counter)
  n_bad_files: int = 0

  @property
  def n_read(self) -> int:
    """All documents, good and bad."""
    return self.n_written + self.rejected.total()

  @property
  def rejected_by_reading(self) -> dict[str, int]:
    """What reading alone rejects, before the tokeniser and before ids are settled."""
    return {reason: count for reason, count in self.rejected.items() if reason not in AFTER_READING}

  @property
  def n_rows(self) -> int:
    """Documents that come out of reading as rows."""
    return self.n_read - sum(self.rejected_by_reading.values())


def write_bad_corpus(
  folder: Path, *, n_good: int = 200, with_ids: bool = False, too_long: bool = True, bad_files: bool = False
) -> BadCorpus:
  """Write text, JSONL, CSV, TSV and Parquet files, plain and compressed, and return what must come of them.

  Args:
    folder: an empty folder.
    n_good: good documents in each file, around and between the bad ones; all their texts differ.
    with_ids: read an id column (and keep the column `lang`): plain text is left out, bad and repeated ids come in.
    too_long: with a line of more than 64 MiB (in a file of 64 kB).
    bad_files: with a file cut in its compression and a damaged Parquet file.
  """
  options = ReadOptions(allow_bad_files=bad_files)
  if with_ids:
    options = ReadOptions(id_column="id", keep_columns=("lang",), allow_bad_files=bad_files)
  corpus = BadCorpus((f"{folder}/*",), options)
  writer = _Writer(folder, corpus, n_good, with_ids)
  if not with_ids:
    writer.text()
  writer.jsonl()
  writer.csv()
  writer.tsv()
  writer.parquet()
  if too_long:
    writer.too_long()
  if bad_files:
    writer.bad_files()
  return corpus


class _Writer:
  def __init__(self, folder: Path, corpus: BadCorpus, n_good: int, with_ids: bool) -> None:
    self._folder, self._corpus, self._n_good, self._with_ids = folder, corpus, n_good, with_ids

  def text(self) -> None:
    lines = [line.encode() for line in self._good("text", 5)]
    lines[1:1] = [self._bad(b"invalid \xff\xfe bytes", rejected.INVALID_BYTES)]
    lines[4:4] = [self._bad(b"a NUL \0 in the text", rejected.NUL_CHARACTER)]
    lines[5:5] = [self._bad(line.encode(), rejected.NO_TOKENS) for line in ("", "   ", "\u200b", "\ufffd")]
    lines[6] += b"\r"
    self._corpus.n_written += 1
    lines.append(b"one line of five megabytes " * 200_000)  # truncated, not rejected
    plain = b"\xef\xbb\xbf" + b"\n".join(lines)  # a byte-order mark, and no line break at the end
    self._write("text.txt", plain)
    for i, (name, compress) in enumerate((("gz", gzip.compress), ("bz2", bz2.compress), ("zst", _zstd))):
      good = "\n".join(self._good(name, 10 + i)).encode() + b"\n"
      self._write(f"text.txt.{name}", compress(good[:99]) + compress(good[99:]))
    self._write("empty.txt", b"")

  def jsonl(self) -> None:
    good = [json.dumps(row) for row in self._rows("jsonl", 20)]
    bad = [
      self._bad('{"id": "x1", "text": "cut in ha', rejected.INVALID_JSON),
      self._bad("[" * 100_000, rejected.INVALID_JSON),
      self._bad('["not", "an object"]', rejected.NOT_AN_OBJECT),
      self._bad('{"id": "x2", "body": "no text"}', rejected.MISSING_COLUMN),
      self._bad('{"id": "x3", "text": null}', rejected.NULL),
      self._bad('{"id": "x4", "text": 5}', rejected.NOT_A_STRING),
      self._bad('{"id": "x5", "text": "lone \\ud800 surrogate"}', rejected.LONE_SURROGATE),
      self._bad('{"id": "x6", "text": "a NUL \\u0000"}', rejected.NUL_CHARACTER),
      self._bad('{"id": "x7", "text": ""}', rejected.NO_TOKENS),
    ]
    if self._with_ids:
      bad += [
        self._bad('{"text": "without an id"}', rejected.MISSING_COLUMN),
        self._bad('{"id": null, "text": "with a null id"}', rejected.NULL),
        self._bad('{"id": 1.5, "text": "with half an id"}', rejected.NOT_A_STRING),
        self._bad('{"id": "", "text": "with an empty id"}', rejected.EMPTY_ID),
        self._bad(json.dumps({"id": "jsonl-0", "text": "the same id, another text"}), rejected.DUPLICATE_ID),
        self._bad(good[1], rejected.DUPLICATE_ID),
      ]
    lines = [good[0], *bad, *good[1:], ""]  # a blank line is no document
    self._write(
      "rows.jsonl", "\n".join(lines).encode() + b"\n" + self._bad(b'{"text": "\xff"}', rejected.INVALID_BYTES)
    )
    more = "\n".join(json.dumps(row) for row in self._rows("gz-jsonl", 21))
    self._write("rows.jsonl.gz", gzip.compress(more.encode()))

  def csv(self) -> None:
    out = io.StringIO()
    rows = list(self._rows("csv", 30))
    rows[3]["text"] += '\nwith a second line, a comma and a "quote"'
    table = csv.DictWriter(out, ["id", "text", "lang"], lineterminator="\r\n")
    table.writeheader()
    table.writerows(rows)
    bad = [
      self._bad(b'y1,"a quote that nobody closes,en', rejected.UNCLOSED_QUOTE),
      self._bad(b"y2,one field too many,en,more", rejected.WRONG_NUMBER_OF_FIELDS),
      self._bad(b"y3,one too few", rejected.WRONG_NUMBER_OF_FIELDS),
      self._bad(b"y4,invalid \xff bytes,en", rejected.INVALID_BYTES),
      self._bad(b"y5,,en", rejected.NO_TOKENS),
    ]
    last = self._row("csv-last", 31, 0)  # not swallowed by the quote
    lines = [*bad, ",".join(last.values()).encode()]
    self._corpus.n_written += 1
    self._write("table.csv", out.getvalue().encode() + b"\n".join(lines) + b"\n")
    other = [f"{i},{self._bad('no such column', rejected.MISSING_COLUMN)},en" for i in range(3)]
    self._write("table2.csv", "\n".join(["id,body,lang", *other]).encode())

  def tsv(self) -> None:
    lines = ["\t".join(row.values()) for row in self._rows("tsv", 40)]
    lines[2:2] = [self._bad("z1\ttoo few", rejected.WRONG_NUMBER_OF_FIELDS)]
    lines[3] = lines[3].replace("document", 'a "quote" in a document')
    self._write("table.tsv.bz2", bz2.compress("\n".join(["id\ttext\tlang", *lines]).encode()))

  def parquet(self) -> None:
    rows = list(self._rows("parquet", 50))
    bad = [
      {"id": "p1", "text": self._bad(None, rejected.NULL), "lang": "en"},
      {"id": "p2", "text": self._bad(b"invalid \xff bytes", rejected.INVALID_BYTES), "lang": "en"},
      {"id": "p3", "text": self._bad(b"a NUL \0", rejected.NUL_CHARACTER), "lang": "en"},
      {"id": "p4", "text": self._bad(b" ", rejected.NO_TOKENS), "lang": None},
    ]
    if self._with_ids:
      bad.append({"id": None, "text": self._bad(b"with a null id", rejected.NULL), "lang": "en"})
    rows[1:1] = bad
    texts = [row["text"] if not isinstance(row["text"], str) else row["text"].encode() for row in rows]
    # Bytes under the name of strings: pyarrow does not look, as other writers do not.
    column = pa.Array.from_buffers(pa.string(), len(texts), pa.array(texts, pa.binary()).buffers())
    ids, langs = [row["id"] for row in rows], [row["lang"] for row in rows]
    pq.write_table(
      pa.table({"id": pa.array(ids, pa.string()), "text": column, "lang": langs}),
      self._folder / "rows.parquet",
      row_group_size=50,
    )

  def too_long(self) -> None:
    row = self._row("after", 60, 0)
    self._corpus.n_written += 1
    long = self._bad("long " * (13 << 20), rejected.DOCUMENT_TOO_LONG)
    self._write("long.jsonl.gz", gzip.compress(f"{long}\n{json.dumps(row)}\n".encode(), 1))

  def bad_files(self) -> None:
    lines = "\n".join(json.dumps(self._row("lost", 70, i)) for i in range(100))
    self._write("cut.jsonl.gz", gzip.compress(lines.encode())[:-20])
    self._write("damaged.parquet", b"PAR1 this is none PAR1")
    self._corpus.n_bad_files += 2

  def _good(self, name: str, seed: int) -> list[str]:
    return [row["text"] for row in self._rows(name, seed)]

  def _rows(self, name: str, seed: int) -> Iterator[dict[str, str]]:
    for i in range(self._n_good):
      yield self._row(name, seed, i)
    self._corpus.n_written += self._n_good

  def _row(self, name: str, seed: int, i: int) -> dict[str, str]:
    words = ["red", "green", "blue", "white", "black", "small", "large", "old", "new", "good"]
    text = f"document {i} of {name}: a {words[i % 10]} and {words[(i // 10 + seed) % 10]} house in town {seed}"
    return {"id": f"{name}-{i}", "text": text, "lang": "en"}

  def _bad(self, value: V, reason: str) -> V:
    self._corpus.rejected[reason] += 1
    return value

  def _write(self, name: str, data: bytes) -> None:
    (self._folder / name).write_bytes(data)


def _zstd(data: bytes) -> bytes:
  return pa.Codec("zstd").compress(data, asbytes=True)
