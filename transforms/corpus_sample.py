"""A uniform sample of a corpus' distinct texts, the same each time, in bounded memory."""

from collections.abc import Sequence
from itertools import chain

from transforms.digests import digest
from transforms.errors import UsageError
from transforms.input_files import ReadOptions, cut_slices, list_files
from transforms.rows import Row, read_slice


def sample_texts(patterns: Sequence[str], options: ReadOptions, n_texts: int) -> list[str]:
  """Returns the `n_texts` distinct texts with the lowest digests, or all if there are fewer, in that order.

  A digest is as good as a random number that belongs to the text, so no seed is needed, nor a second reading: the
  sample does not depend on the order of files or lines, and is nearly the same tomorrow. Lines that `sorbus embed`
  would reject are left out.

  Raises:
    UsageError: no file, no such column, or no text.
    InputFileError: a file cannot be read.
  """
  files = list_files(patterns, options)
  rows = chain.from_iterable(read_slice(files[piece.file], piece.file, piece, options) for piece in cut_slices(files))
  lowest: dict[bytes, str] = {}
  for row in rows:
    if isinstance(row, Row):
      lowest[digest(row.text)] = row.text
      if len(lowest) >= 2 * n_texts + 1000:
        lowest = _first(lowest, n_texts)
  if not lowest:
    raise UsageError(f"{' '.join(patterns)}: has no text; give files with a text a line, or --text-column")
  return list(_first(lowest, n_texts).values())


def _first(texts: dict[bytes, str], n: int) -> dict[bytes, str]:
  return {key: texts[key] for key in sorted(texts)[:n]}
