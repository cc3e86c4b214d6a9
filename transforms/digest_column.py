"""The text digests of a Parquet file of ours, without the rest of it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.digests import DIGEST_TYPE, from_arrow
from transforms.errors import StoreError


def read_digests(file: Any, path: str) -> np.ndarray | None:
  """Returns the column `text_digest` [N] (S16) of a raw or documents file; only its footer and that column are read.

  Args:
    file: opened for reading, anything that pyarrow takes.
    path: its name in an error.

  Returns:
    The digests; None if it is no such Parquet file, or not any more.

  Raises:
    StoreError: the file system does not give it: the file may be as good as ever.
  """
  try:
    with pq.ParquetFile(file) as parquet:
      column = parquet.read(columns=["text_digest"])["text_digest"]
  except OSError as error:  # pyarrow's own, of what is no Parquet file, have no number
    if error.errno is not None:
      raise StoreError(f"{path}: cannot be read ({error.strerror}); mend that and run again") from error
    return None
  except (pa.ArrowException, ValueError, KeyError, MemoryError):  # a damaged footer may ask for any amount
    return None
  return from_arrow(column) if column.type == DIGEST_TYPE and not column.null_count else None
