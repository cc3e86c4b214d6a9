"""`sorbus show`: finds out what a path is, and describes that."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from pipeline.dataset import Dataset, is_dataset
from pipeline.show import describe_dataset, show_dataset
from pipeline.show_model import show_model
from transforms.errors import UsageError


def describe_path(
  path: str,
  *,
  run_id: str | None = None,
  sample: str | None = None,
  bert_config: str | None = None,
  vocab: str | None = None,
) -> dict[str, Any]:
  """Returns the description of a dataset, checkpoint, encoder folder or graph, with its `kind`.

  Args:
    path: what is described.
    run_id: of a dataset, as in `describe_dataset`.
    sample: of a model, as in `describe_model`.
    bert_config: of a checkpoint, as in `describe_model`.
    vocab: of a checkpoint, as in `describe_model`.

  Raises:
    SorbusError: it is none of these, or cannot be described, or an option does not go with it.
  """
  if is_dataset(path):
    for option, value in (("--sample", sample), ("--bert-config", bert_config), ("--vocab", vocab)):
      if value:
        raise UsageError(f"{option}: {path} is a dataset, which has no use for it; leave it out")
    return describe_dataset(Dataset.open(path), run_id)
  if run_id:
    raise UsageError(f"--run: {path} is no dataset, so it has no runs; leave it out")
  from pipeline.model.describe import describe_model  # with TensorFlow, for which a dataset should not wait

  description = describe_model(path, sample=sample, bert_config=bert_config, vocab=vocab)
  if description is None:
    raise UsageError(
      f"{path}: no Sorbus dataset (`sorbus embed` makes one: dataset.json), no encoder folder (`sorbus freeze`: "
      "encoder.json), no checkpoint (PREFIX.index, or a folder with config.json and model.safetensors), and no GRAPH.pb"
    )
  return description


def show_description(description: Mapping[str, Any], console: Console) -> None:
  """Prints what `describe_path` found, for people."""
  show = show_dataset if description["kind"] == "dataset" else show_model
  show(description, console)
