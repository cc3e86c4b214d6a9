"""Reads one file of an encoder through the cache, as a worker process of a host does; for tests that start several.

Usage: python -m tests.encoder_reader ENCODER_URL NAME SHA256
"""

import hashlib
import sys

from transforms.encoder_files import read_checked

if __name__ == "__main__":
  print(hashlib.sha256(read_checked(*sys.argv[1:])).hexdigest(), flush=True)
