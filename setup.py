"""The distribution `sorbus`. Tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'__version__ = "(.+)"', Path("pipeline/__init__.py").read_text(encoding="utf-8"))
assert VERSION, "pipeline/__init__.py states no version"

setup(
  name="sorbus",
  version=VERSION[1],
  description="Turns a text corpus into whitened BERT vectors with Apache Beam",
  long_description=Path("README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  classifiers=[
    "Environment :: Console",
    "Operating System :: POSIX",  # its local file systems rename, lock and sync as POSIX says
    "Programming Language :: Python :: 3 :: Only",
    "Topic :: Text Processing :: Linguistic",
  ],
  python_requires=">=3.11,<3.14",  # from NumPy 2.4's first to TensorFlow 2.21's last
  # Ranges that the pins of requirements.txt lie in (a test holds it). Beam and TensorFlow are held to one minor
  # version: the numerics and the runner's behaviour that are relied on were measured there.
  install_requires=[
    "apache-beam>=2.77,<2.78",
    "tensorflow>=2.21,<2.22",
    "numpy>=2.4,<3",
    "pyarrow>=25,<26",
    "protobuf>=6.33,<7",
    "fsspec>=2026.9",
    "tokenizers>=0.23,<0.24",
    "sentencepiece>=0.2.3,<0.3",  # older ones have no offsets
    "safetensors>=0.8,<0.9",
    "rich>=15,<16",
    "scipy>=1.17,<2",
    "pyyaml>=6,<7",
    "matplotlib>=3.11,<4",
    "jinja2>=3.1,<4",
  ],
  extras_require={
    # fsspec's object stores and Beam's cloud runner, unpinned: pip takes what agrees with the lines above.
    "s3": ["s3fs"],
    "gcs": ["gcsfs"],
    "dataflow": ["apache-beam[gcp]"],
    # `sorbus export --to faiss`
    "faiss": ["faiss-cpu>=1.15,<2"],
  },
  # By name: `pipeline` and `transforms` are generic, and `tests` or `benchmarks` on a worker would shadow its own.
  packages=find_packages(include=["pipeline", "pipeline.*", "sorbus", "transforms", "transforms.*"]),
  package_data={"": ["py.typed"], "pipeline": ["report_page.html"]},
  entry_points={"console_scripts": ["sorbus = pipeline.__main__:main"]},
)
