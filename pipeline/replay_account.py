"""What became, in a replay, of the documents that the run before it rejected."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import Dataset
from transforms.digests import DIGEST_BYTES, digest
from transforms.errors import StoreError, UsageError
from transforms.long_texts import CHUNKS, LongTexts
from transforms.rejected import DUPLICATE_ID
from transforms.storage import Storage
from transforms.text_chunks import PARENT_ID

_KEY = f"S{DIGEST_BYTES}"


@dataclass(frozen=True)
class _Rejects:
  """Rejected documents of one run, 16 to 32 bytes each.

  Attributes:
    keys: what each is found by, S16 [N]: its id, or its place where it has no id of its own.
    places: where each was read, S16 [N].
    reasons: of each, as a number, int16 [N].
    names: the reasons.
  """

  keys: np.ndarray
  places: np.ndarray
  reasons: np.ndarray
  names: tuple[str, ...]

  def find(self, keys: np.ndarray, reason: int) -> np.ndarray:
    """Returns which of `keys` [N] are the id or the place of a document rejected for a reason, bool [N]."""
    rows = self.reasons == reason
    return np.isin(keys, self.keys[rows]) | np.isin(keys, self.places[rows])


def account_for_replay(dataset: Dataset, run_id: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what became of the documents that run `run_id` rejected, for the manifest of the run that replays it.

  A document is found again by its id. One without an id of its own (`file#position`), or rejected because another had
  its id, is found by its place: in a text file in which something before it was mended, it then counts as gone. Memory
  holds one bucket's documents, and 48 bytes for each rejected document of either run.

  Args:
    dataset: an open dataset.
    run_id: the run that is replayed.
    manifest: of the run that replays it, finished but for this.

  Returns:
    `run_id`, and how many documents it `rejected`, of which now are `written`, `still_rejected` by reason, and `gone`
    from the input; or the `problem` that keeps this from being told: raising would undo a run that is whole.
  """
  numbers = {file["name"]: i for i, file in enumerate(manifest["inputs"])}
  try:
    before = _read_rejects(dataset.storage, dataset.manifest(run_id), numbers)
    now = _read_rejects(dataset.storage, manifest, numbers)
    written = _find_written(dataset.storage, manifest, before.keys, now.places)
  except (StoreError, UsageError) as error:
    return {"run_id": run_id, "problem": str(error)}
  still, by_reason = written.copy(), {}
  for i, reason in enumerate(now.names):
    found = now.find(before.keys, i) & ~still
    still |= found
    if found.any():
      by_reason[reason] = int(found.sum())
  n, n_written, gone = len(written), int(written.sum()), int((~still).sum())
  return {"run_id": run_id, "rejected": n, "written": n_written, "still_rejected": by_reason, "gone": gone}


def _read_rejects(storage: Storage, manifest: Mapping[str, Any], numbers: Mapping[str, int]) -> _Rejects:
  """Reads what a run rejected; `numbers` are those of the input files now, a file that is gone has none."""
  keys: list[bytes] = []
  places: list[bytes] = []
  reasons: list[int] = []
  names: dict[str, int] = {}
  for file in manifest["files"].get("rejected", ()):
    for line in _lines(storage, file["path"]):
      place = _place(numbers.get(line["file"], -1 - len(places)), line["position"])
      own = line["doc_id"] != f"{line['file']}#{line['position']}" and line["reason"] != DUPLICATE_ID
      keys.append(_id_key(line["doc_id"]) if own else place)
      places.append(place)
      reasons.append(names.setdefault(line["reason"], len(names)))
  return _Rejects(_array(keys), _array(places), np.array(reasons, np.int16), tuple(names))


def _lines(storage: Storage, path: str) -> Iterator[dict[str, Any]]:
  try:
    with storage.open(path) as file:
      for line in file:
        value = json.loads(line)
        yield {
          **{key: str(value[key]) for key in ("doc_id", "file", "reason")},
          "position": int(value["position"]),
        }
  except (OSError, ValueError, LookupError, TypeError) as error:
    raise StoreError(f"{path}: missing or damaged ({error})") from error


def _find_written(
  storage: Storage, manifest: Mapping[str, Any], keys: np.ndarray, rejected_places: np.ndarray
) -> np.ndarray:
  """Returns which of `keys` [N] are an id or a place of a document that was not rejected in the end, bool [N]."""
  # What was rejected before it was cut had the id of the document, not of a chunk.
  names = ["doc_id", PARENT_ID] if LongTexts.of(manifest).mode == CHUNKS else ["doc_id"]
  written = np.zeros(len(keys), bool)
  for file in manifest["files"]["documents"]:
    try:
      with storage.open(file["path"]) as opened, pq.ParquetFile(opened) as parquet:
        table = parquet.read(columns=[*names, "source_file", "source_position"], use_threads=False)
    except (OSError, pa.ArrowException) as error:
      raise StoreError(f"{file['path']}: missing or damaged ({error})") from error
    places = _places(table["source_file"].to_numpy(), table["source_position"].to_numpy())
    kept = ~np.isin(places, rejected_places)
    rows = table.filter(pa.array(kept))
    ids = _array([_id_key(doc_id) for name in names for doc_id in rows[name].to_pylist()])
    written |= np.isin(keys, ids) | np.isin(keys, places[kept])
  return written


def _id_key(doc_id: str) -> bytes:
  # A rejected document's id may hold half a surrogate pair, which has no UTF-8; no other document has such an id.
  return digest(doc_id.encode("utf-8", "backslashreplace").decode())


def _place(file: int, position: int) -> bytes:
  return np.array([file, position], ">i8").tobytes()


def _places(files: np.ndarray, positions: np.ndarray) -> np.ndarray:
  return np.frombuffer(np.stack([files, positions], axis=1).astype(">i8").tobytes(), _KEY)


def _array(keys: list[bytes]) -> np.ndarray:
  return np.frombuffer(b"".join(keys), _KEY)
