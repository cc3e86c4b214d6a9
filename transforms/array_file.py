"""Named arrays with a format number in one `.npz`: what the dataset's small numeric files are made of.

The bytes are reproducible (no time stamps), and reading never unpickles: a file
from elsewhere can be wrong, it cannot run code, and what it says of its size is not believed.
"""

import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.errors import StoreError

# What the parsers of zip files and of array headers let through; an encrypted member is the RuntimeError.
_BY_THE_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, RuntimeError)
_UNREADABLE = (*_BY_THE_ZIP, ValueError, TypeError, OverflowError, SyntaxError, tokenize.TokenError)
# Headers of plain arrays have 128 bytes; a longer one is there to be expensive.
_MAX_HEADER_BYTES = 1024
# Of a whole file: the scatter of vectors of width 8,192 takes half of it.
_MAX_BYTES = 1 << 30


def pack(format_version: int, arrays: Mapping[str, Any]) -> bytes:
  """Returns the `.npz` bytes of `arrays` (anything `np.asarray` takes but objects) and their format number."""
  buffer = io.BytesIO()
  np.savez(buffer, allow_pickle=False, format_version=format_version, **arrays)
  return buffer.getvalue()


def unpack(data: bytes, name: str) -> dict[str, NDArray[Any]]:
  """Reads every array of an `.npz`; `name` is what errors call it.

  Raises:
    StoreError: the bytes are no `.npz`, are damaged, hold Python objects, or hold NaN or infinity.
  """
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      members = archive.infolist()
      if (size := sum(member.file_size for member in members)) > _MAX_BYTES:
        raise ValueError(f"{size} bytes unpacked, more than {_MAX_BYTES}")
      arrays = {member.filename.removesuffix(".npy"): _parse(archive.read(member)) for member in members}
  except _UNREADABLE as error:
    why = " ".join(str(error).split())[:200]
    raise StoreError(f"{name} is not a readable .npz of plain arrays ({why}); restore it from a copy") from error
  check_finite(arrays, name)
  return arrays


def _parse(npy: bytes) -> NDArray[Any]:
  """Reads the bytes of a `.npy`, once they are known to be as many as its shape says: NumPy would allocate first."""
  file = io.BytesIO(npy)
  version = np.lib.format.read_magic(file)
  if version not in [(1, 0), (2, 0)]:
    raise ValueError(f"an array in format {version}")
  read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
  shape, _, dtype = read(file, max_header_size=_MAX_HEADER_BYTES)
  stored = len(npy) - file.tell()
  if math.prod(shape) * dtype.itemsize != stored and not dtype.hasobject:
    raise ValueError(f"an array of {dtype} {list(shape)} in {stored} bytes")
  file.seek(0)
  array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False, max_header_size=_MAX_HEADER_BYTES)
  return array


def check_finite(arrays: Mapping[str, NDArray[Any]], name: str) -> None:
  """Refuses NaN and infinity.

  Raises:
    StoreError: naming the array.
  """
  for key, array in arrays.items():
    if array.dtype.kind in "fc" and not np.isfinite(array).all():
      raise StoreError(f"{name}: {key} holds NaN or infinity; write the file anew")


def check_version(arrays: Mapping[str, NDArray[Any]], expected: int, name: str) -> None:
  """Refuses arrays of another format, naming both numbers.

  Raises:
    StoreError: `format_version` is absent or another one.
  """
  found = arrays.get("format_version")
  if found is None or found.shape != () or found.dtype.kind != "i":
    raise StoreError(f"{name} states no format_version; this Sorbus reads {expected}")
  if int(found) != expected:
    remedy = "use the newer Sorbus that wrote it" if int(found) > expected else "write it anew with this one"
    raise StoreError(f"{name} has format {int(found)}, this Sorbus reads {expected}: {remedy}")


def check_array(arrays: Mapping[str, NDArray[Any]], key: str, kind: str, shape: tuple[int, ...], name: str) -> None:
  """Refuses an array that is missing or not of the stated dtype kind (`f8`, `i8`, `U`) and shape.

  Raises:
    StoreError: with the dtype and shape found and expected.
  """
  if key not in arrays:
    raise StoreError(f"{name} has no array {key!r} (it holds {', '.join(sorted(arrays)) or 'nothing'})")
  array = arrays[key]
  if not array.dtype.str.lstrip("<|").startswith(kind) or array.shape != shape:
    raise StoreError(f"{name}: {key} is {array.dtype}{list(array.shape)}, expected {kind}{list(shape)}")
