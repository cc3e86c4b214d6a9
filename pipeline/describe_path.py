"""`sorbus show`: finds out what a path is, and describes that."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from pipeline.dataset import Dataset, is_dataset
from pipeline.show import describe_dataset, show_dataset
from pipeline.show_model import show_model
from transforms.errors import UsageError
from transforms.places import file_system


def describe_path(path: str, *, run_id: str | None = None, **model_options: Any) -> dict[str, Any]:
  """Returns the description of a dataset, checkpoint, encoder folder or graph, with its `kind`.

  Args:
    path: what is described.
    run_id: of a dataset, as in `describe_dataset`.
    model_options: of a model, those of `describe_model`.

  Raises:
    SorbusError: it is none of these, or cannot be described, or an option does not go with it.
  """
  if is_dataset(path):
    for option, value in model_options.items():
      if value:
        raise UsageError(f"--{option.replace('_', '-')}: {path} is a dataset, which has no use for it; leave it out")
    return describe_dataset(Dataset.open(path), run_id)
  if run_id:
    raise UsageError(f"--run: {path} is no dataset, so it has no runs; leave it out")
  from pipeline.model.describe import describe_model  # with TensorFlow, for which a dataset should not wait

  description = describe_model(path, **model_options)
  if description is None:
    what = "nothing that is known here" if _is_there(path) else "nothing is there"
    raise UsageError(
      f"{path}: {what}; give a dataset (`sorbus embed` makes one: dataset.json), an encoder folder (`sorbus freeze`: "
      "encoder.json), a checkpoint (PREFIX.index, or a folder with config.json and model.safetensors), or a GRAPH.pb"
    )
  return description


def _is_there(path: str) -> bool:
  """Says whether a path leads anywhere; of a place that does not answer nobody knows.

  Raises:
    UsageError: there can be no such place, or not without another package.
  """
  fs, root = file_system(path)
  try:
    return bool(fs.exists(root))
  except OSError:
    return True


def show_description(description: Mapping[str, Any], console: Console) -> None:
  """Prints what `describe_path` found, for people."""
  show = show_dataset if description["kind"] == "dataset" else show_model
  show(description, console)
