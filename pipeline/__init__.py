"""What a person or a scheduler runs: command line, planning, the Beam graph, the dataset, search."""

__version__ = "0.1.0"
