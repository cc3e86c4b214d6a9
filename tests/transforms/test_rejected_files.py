import json

import pytest

from transforms import rejected, rejected_files
from transforms.rejected import RejectedDocument
from transforms.rejected_files import RejectedFiles
from transforms.storage import Storage


@pytest.fixture
def storage(tmp_path):
  return Storage.at(str(tmp_path))


def make_documents(n, text=None):
  reasons = (rejected.NULL, rejected.NO_TOKENS, rejected.NULL)
  return [RejectedDocument(f"id-{i}", "a.txt", i, reasons[i % 3], "", text) for i in range(n)]


def collect(storage, documents, name="read-0"):
  files = RejectedFiles(storage, "runs/r1", name)
  for document in documents:
    files.add(document)
  return files.close(), files.counts


def test_every_document_is_a_line(storage):
  documents = make_documents(4, "é\nx")
  files, counts = collect(storage, documents)
  assert counts == {"null": 3, "no tokens": 1}
  assert [file.rows for file in files] == [4]
  assert files[0].path.startswith("runs/r1/rejected/read-0-000-") and files[0].path.endswith(".jsonl")
  lines = storage.read(files[0].path).splitlines()
  assert [RejectedDocument(**json.loads(line)) for line in lines] == documents


def test_nothing_rejected_writes_nothing(storage):
  files, counts = collect(storage, [])
  assert files == () and not counts and storage.names("runs/r1/rejected") == []


def test_pieces_are_bounded_and_lose_nothing(storage, monkeypatch):
  monkeypatch.setattr(rejected_files, "_PIECE_BYTES", 2000)
  documents = make_documents(100, "x" * 50)
  files, counts = collect(storage, documents)
  assert len(files) > 5 and counts.total() == sum(file.rows for file in files) == 100
  line = len(documents[-1].to_json_line())
  assert all(file.bytes < 2000 + line + file.rows for file in files)
  lines = [line for file in files for line in storage.read(file.path).decode().splitlines()]
  assert lines == [document.to_json_line() for document in documents]


def test_the_same_work_twice_leaves_the_same_files(storage):
  first, _ = collect(storage, make_documents(5))
  assert collect(storage, make_documents(5))[0] == first
  assert len(storage.names("runs/r1/rejected")) == 1
  other, _ = collect(storage, make_documents(6))
  assert other[0].path != first[0].path
  assert collect(storage, make_documents(5), "read-1")[0][0].path != first[0].path


def test_rejects_are_counted_by_file_too(storage):
  files = RejectedFiles(storage, "runs/r1", "read-0")
  for name in ("a.txt", "b.txt", "a.txt"):
    files.add(RejectedDocument("id", name, 0, rejected.NULL, "", None))
  assert files.by_file == {"a.txt": 2, "b.txt": 1}
