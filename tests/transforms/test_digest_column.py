"""Digests out of a Parquet file: there, not there, and not to be had just now."""

import errno
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.made_nights import H, raw_table
from transforms.digest_column import read_digests
from transforms.digests import digest_array
from transforms.errors import StoreError
from transforms.vector_table import to_parquet

DIGESTS = digest_array(f"text {i}" for i in range(50))
DATA = to_parquet(raw_table(DIGESTS, np.ones((50, H), np.float32)), {})


def parquet(**columns):
  sink = io.BytesIO()
  pq.write_table(pa.table(columns), sink)
  return sink.getvalue()


def test_the_column_is_read():
  assert read_digests(io.BytesIO(DATA), "x").tobytes() == DIGESTS.tobytes()


@pytest.mark.parametrize(
  "data", [b"", DATA[:-1], b"PAR1", parquet(doc_id=["a"]), parquet(text_digest=["a"]), parquet(text_digest=[b"0" * 15])]
)
def test_what_is_no_file_of_ours_has_none(data):
  assert read_digests(io.BytesIO(data), "x") is None


def test_a_file_system_that_fails_is_told_apart():
  class Failing(io.BytesIO):
    def read(self, *_):
      raise OSError(errno.EIO, "Input/output error")

  with pytest.raises(StoreError, match=r"^x: cannot be read \(Input/output error\)"):
    read_digests(Failing(DATA), "x")
