"""Named arrays with a format number in one `.npz`: what the dataset's small numeric files are made of.

The bytes are reproducible (no time stamps), and reading never unpickles: a file
from elsewhere can be wrong, it cannot run code.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.errors import StoreError

# What NumPy lets through from its zip and array parsers; a lone `.npy` is the TypeError (an array opens no `with`).
_UNREADABLE = (ValueError, TypeError, OSError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error)


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
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
      arrays = {key: archive[key] for key in archive.files}
  except _UNREADABLE as error:
    raise StoreError(f"{name} is not a readable .npz of plain arrays ({error}); restore it from a copy") from error
  for key, array in arrays.items():
    if array.dtype.kind in "fc" and not np.isfinite(array).all():
      raise StoreError(f"{name}: {key} holds NaN or infinity; write the file anew")
  return arrays


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
