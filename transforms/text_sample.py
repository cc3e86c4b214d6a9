"""The first texts of a file, and what a tokenizer makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from transforms.errors import UsageError
from transforms.input_files import ReadOptions, cut_slices, list_files
from transforms.input_types import TEXT_COLUMN
from transforms.rows import Row, read_slice
from transforms.tokenizer import Tokenizer

SAMPLE_SIZE = 5000


@dataclass(frozen=True)
class Sample:
  """Which texts are read.

  Attributes:
    pattern: a file, folder or glob, as `sorbus embed --input` takes it.
    text_columns: where they stand in JSONL, CSV, TSV and Parquet.
    header: a CSV or TSV has one; without, its columns are called 1, 2, 3 …
  """

  pattern: str
  text_columns: tuple[str, ...] = (TEXT_COLUMN,)
  header: bool = True


@dataclass(frozen=True)
class TokenRates:
  """What became of some texts.

  Attributes:
    texts: how many.
    tokens: of the texts that fit, without the specials.
    unknown: how many of these are [UNK].
    truncated: texts with more tokens than fit.
    empty: texts without a token, which would be rejected.
  """

  texts: int
  tokens: int
  unknown: int
  truncated: int
  empty: int


def read_sample(sample: Sample, n_texts: int = SAMPLE_SIZE) -> list[str]:
  """Returns the first texts of what `sorbus embed --input` would read; lines that it would reject are left out.

  Raises:
    UsageError: no file, or no text in it.
    InputFileError: it cannot be read.
  """
  options = ReadOptions(text_columns=sample.text_columns, header=sample.header)
  files = list_files([sample.pattern], options)
  rows = (row for piece in cut_slices(files) for row in read_slice(files[piece.file], piece.file, piece, options))
  texts = [row.text for row in islice((row for row in rows if isinstance(row, Row)), n_texts)]
  if not texts:
    raise UsageError(f"{sample.pattern}: has no text; give a file with a text a line")
  return texts


def measure(texts: Sequence[str], tokenizer: Tokenizer) -> TokenRates:
  """Counts tokens, unknown ones and truncated texts."""
  tokens = tokenizer.tokenise(texts)
  return TokenRates(
    texts=len(texts),
    tokens=int((tokens.lengths - 2).sum()),
    unknown=int(tokens.n_unknown.sum()),
    truncated=int(tokens.truncated.sum()),
    empty=int((tokens.lengths == 2).sum()),
  )
