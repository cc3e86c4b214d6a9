"""Damage to a file that leaves its size: what only a checksum finds out."""

from pathlib import Path


def flipped(data: bytes) -> bytes:
  """Returns the bytes with one bit in the middle changed."""
  middle = len(data) // 2
  return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def flip(path: Path) -> None:
  """Changes one bit in the middle of a file."""
  path.write_bytes(flipped(path.read_bytes()))
