"""Sorbus from Python: encoders, whitenings and datasets, without Beam. The page is docs/python.md.

What stands in `__all__` is the interface; `pipeline` and `transforms` are how it is made.
"""

# First, since it settles how many threads BLAS has before NumPy is imported.
from pipeline import __version__
from pipeline.search import Hit
from sorbus.reading import Dataset, Run
from transforms.encoder import Encoder
from transforms.errors import SorbusError
from transforms.moments import Moments
from transforms.whitening import Whitening

__all__ = ["Dataset", "Encoder", "Hit", "Moments", "Run", "SorbusError", "Whitening", "__version__"]
