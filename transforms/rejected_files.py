"""Write rejected documents as JSON lines, in pieces of bounded size."""

from collections import Counter

from transforms.rejected import RejectedDocument
from transforms.storage import Storage, StoredFile

_PIECE_BYTES = 8 << 20


class RejectedFiles:
  """Collects rejected documents of one piece of work; memory is bounded however many there are.

  Pieces are named after the work and their content, so that work done twice leaves the same files.
  """

  def __init__(self, storage: Storage, run_folder: str, name: str):
    self.counts: Counter[str] = Counter()
    self.by_file: Counter[str] = Counter()
    self._storage, self._folder, self._name = storage, f"{run_folder}/rejected", name
    self._lines: list[str] = []
    self._bytes = 0
    self._files: list[StoredFile] = []

  def add(self, document: RejectedDocument) -> None:
    """Takes one rejected document."""
    line = document.to_json_line()
    self.counts[document.reason] += 1
    self.by_file[document.file] += 1
    self._lines.append(line)
    self._bytes += len(line)
    if self._bytes >= _PIECE_BYTES:
      self._write_piece()

  def close(self) -> tuple[StoredFile, ...]:
    """Writes what is left and returns the files, in order."""
    if self._lines:
      self._write_piece()
    return tuple(self._files)

  def _write_piece(self) -> None:
    data = "".join(f"{line}\n" for line in self._lines).encode()
    name = f"{self._name}-{len(self._files):03d}"
    self._files.append(self._storage.write_content(self._folder, name, ".jsonl", data, len(self._lines)))
    self._lines, self._bytes = [], 0
