"""The text digests of a Parquet file of ours, without the rest of it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.digests import DIGEST_TYPE, DigestRange, bucket_of, from_arrow
from transforms.errors import StoreError


def read_digests(file: Any, path: str) -> np.ndarray:
  """Returns the column `text_digest` [N] (S16) of a raw or documents file; only its footer and that column are read.

  Args:
    file: opened for reading, anything that pyarrow takes.
    path: its name in an error.

  Raises:
    StoreError: it is no such Parquet file.
  """
  try:
    with pq.ParquetFile(file) as parquet:
      column = parquet.read(columns=["text_digest"])["text_digest"]
  except (pa.ArrowException, OSError, ValueError, KeyError) as error:
    raise StoreError(f"{path}: damaged ({' '.join(str(error).split())[:120]})") from error
  if column.type != DIGEST_TYPE:
    raise StoreError(f"{path}: damaged (text_digest is {column.type}, not {DIGEST_TYPE})")
  return from_arrow(column)


def within(digests: np.ndarray, wanted: DigestRange) -> np.ndarray:
  """Returns whether each digest [N] (S16) lies in a range, bool [N]."""
  return bucket_of(digests, wanted.bits) == wanted.bucket
