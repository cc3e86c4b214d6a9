"""`sorbus embed` in this process, on a file system that may fail, and what is published after it."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest

import pipeline.embed
from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.embed import embed
from pipeline.lock import Owner
from pipeline.verify import verify_run
from tests.failing_files import FailingFiles, Fault
from tests.integration.run_files import NIGHT, made_up_texts, published_runs, read_vectors, write_shards
from tests.integration.slow_embed import slow_encoder

FLAGS = ["--id-column", "id", "--encoder", "fake", "--n-components", "16", "--whitening", "fit"]
FLAGS += ["--buckets", "2", "--threads", "1", "--again"]


class Night:
  """A dataset, its input, and the command that makes a run."""

  def __init__(self, folder: Path, n_texts: int = 60):
    self.inputs, self.dataset = write_shards(folder / "input", made_up_texts(n_texts), 2), folder / "dataset"
    self.operations: list[str] = []

  def run(self, fault: Fault = lambda n, what: None) -> tuple[int, str]:
    """Returns (exit code, stderr) of a run on a file system with a fault, and keeps its operations."""
    files, encoder, said = FailingFiles(self.dataset, fault), slow_encoder(0), io.StringIO()
    self.operations = files.operations
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
      # The process that failed would be gone; here it is this one.
      patch.setattr(Owner, "is_known_dead", lambda owner: True)
      fake = {"loaders": encoder.loaders(), "spec": encoder.spec}
      patch.setattr(pipeline.embed, "embed", lambda options, **more: embed(options, **fake, **more))
      files.install(patch)
      command = [*NIGHT, "--input", str(self.inputs), "--dataset", str(self.dataset), *FLAGS]
      with contextlib.redirect_stdout(io.StringIO()):
        code = main(command)
    return code, said.getvalue()

  def vectors(self) -> tuple[list[str], np.ndarray]:
    """Returns (document ids, vectors float32 [N, K]) of the published run."""
    return read_vectors(self.dataset, {"run_id": published_runs(self.dataset)[-1]})

  def equals(self, other: "Night") -> bool:
    """Says whether the published vectors are those of another night."""
    (ids, vectors), (other_ids, other_vectors) = self.vectors(), other.vectors()
    return ids == other_ids and np.allclose(vectors, other_vectors, rtol=0, atol=1e-5)

  def is_sound(self) -> bool:
    """Says whether what is published, if anything is, is whole."""
    last = published_runs(self.dataset)[-1:]
    return all(check.passed for run in last for check in verify_run(Dataset.open(str(self.dataset)), run))
