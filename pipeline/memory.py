"""Keep the process as small as what it really holds.

Freed blocks stay with the allocator and the thread that used them, unless told otherwise; benchmarks/memory.py measures
the same job both ways.
"""

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

_M_MMAP_THRESHOLD = -3  # from glibc's malloc.h
# glibc raises its threshold with every large block that is freed, up to 32 MB, and keeps all that is smaller.
_MMAP_THRESHOLD_BYTES = 256 << 10


def _libc(name: str) -> Any:
  """Returns a function of the C library, None where it has no such function (other systems than glibc's)."""
  try:
    return getattr(ctypes.CDLL(None), name, None)
  except OSError:
    return None


def bound_allocators() -> None:
  """Makes large blocks go back to the system as soon as they are freed, for the rest of the process's life."""
  pa.set_memory_pool(pa.system_memory_pool())
  mallopt = _libc("mallopt")
  if mallopt is not None:
    mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
  """Spares the collector what is there before a run, modules and the encoder: it would walk them every time."""
  gc.collect()
  gc.freeze()
  try:
    yield
  finally:
    gc.unfreeze()


def release_memory() -> None:
  """Gives what a pipeline has freed back to the system: the next wave would come on top of it."""
  gc.collect()
  trim = _libc("malloc_trim")
  if trim is not None:
    trim(0)
