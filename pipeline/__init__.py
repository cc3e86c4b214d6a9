"""What a person or a scheduler runs: command line, planning, the Beam graph, the dataset, search."""

import os

__version__ = "0.1.0"

# Bundles work side by side on threads of their own; BLAS's would only be in their way. Before NumPy is first imported,
# which is when OpenBLAS looks; who sets it otherwise keeps it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
