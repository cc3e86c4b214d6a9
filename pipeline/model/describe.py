"""What a path is that has to do with a model, for `sorbus show`: an encoder folder, a frozen graph or a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.model.describe_checkpoint import describe_checkpoint
from pipeline.model.describe_encoder import describe_encoder
from pipeline.model.describe_graph import describe_graph
from pipeline.model.freeze_graph import is_graph
from pipeline.model.read_checkpoint import checkpoint_kind, list_checkpoint
from pipeline.model.saved_model import is_served_encoder
from transforms.encoder_spec import GRAPH_FILE, SPEC_FILE
from transforms.errors import UsageError
from transforms.input_types import TEXT_COLUMN
from transforms.places import file_system
from transforms.text_sample import Sample


def describe_model(
  path: str,
  *,
  sample: str | None = None,
  text_column: Sequence[str] | None = None,
  no_header: bool = False,
  bert_config: str | None = None,
  vocab: str | None = None,
) -> dict[str, Any] | None:
  """Returns the description of what lies at a path, with its `kind`; None if that is no model.

  Args:
    path: of a checkpoint or a graph, local; of an encoder folder, local or any fsspec URL.
    sample: a file of texts in which to count unknown tokens and truncated texts; not for a graph.
    text_column: where the sample has its texts, in one column or in several; `text` by default.
    no_header: a CSV or TSV sample has none, so that its columns are called 1, 2, 3 …
    bert_config: as in `read_checkpoint`.
    vocab: as in `read_checkpoint`.

  Raises:
    UsageError: an option that does not go with it, or a SavedModel.
    EncoderError: a model in whose place nothing is that could be described.
  """
  if text_column is not None and sample is None:
    columns = " ".join(text_column)
    raise UsageError(f"--text-column {columns}: is where --sample has its texts; give --sample FILE with it")
  texts = Sample(sample, tuple(text_column or [TEXT_COLUMN]), header=not no_header) if sample else None
  if is_encoder_folder(path):
    _refuse(path, "an encoder folder", bert_config=bert_config, vocab=vocab)
    return describe_encoder(path, texts)
  if checkpoint_kind(Path(path)):
    return describe_checkpoint(list_checkpoint(path, bert_config=bert_config, vocab=vocab), texts)
  if is_served_encoder(Path(path)):
    raise UsageError(
      f"{path}: a SavedModel for TensorFlow Serving, as `sorbus freeze --saved-model` writes it; there is no more to "
      "show of it: give the folder of its encoder"
    )
  if is_graph(path):
    _refuse(path, "a graph", bert_config=bert_config, vocab=vocab, sample=sample)
    return describe_graph(path)
  return None


def is_encoder_folder(path: str) -> bool:
  """Says whether there is an encoder's `encoder.json` or graph in a folder; a URL that cannot be asked has none."""
  try:
    fs, root = file_system(path)
    return any(fs.exists(f"{root}/{name}") for name in (SPEC_FILE, GRAPH_FILE))
  except (UsageError, OSError):
    return False


def _refuse(path: str, what: str, **options: str | None) -> None:
  for name, value in options.items():
    if value is not None:
      raise UsageError(f"--{name.replace('_', '-')}: {path} is {what}, which has no use for it; leave it out")
