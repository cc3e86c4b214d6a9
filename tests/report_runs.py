"""A small dataset to make reports of: two nights, the second with other texts, rejected documents and hostile ones."""

import json
from pathlib import Path
from typing import Any

from pipeline.dataset import Dataset
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts
from transforms.input_files import ReadOptions

N_TEXTS, N_GONE, N_BAD, N_NULL = 400, 30, 15, 9
HOSTILE = "<script>alert('x')</script> \"><img src=https://example.com/x onerror=alert(1)>"
TEXTS = made_up_texts(N_TEXTS)
READ = ReadOptions(id_column="id", keep_columns=("title", "text"))


def make_runs(folder: Path) -> Dataset:
  """Embeds twice; the second night has lost N_GONE documents, gained hostile ones, and rejects N_BAD + N_NULL."""
  encoder = FakeEncoder(make_vocabulary(TEXTS), 16, max_seq_length=32)
  options: dict[str, Any] = {"max_rejected": 0.2, "threads": 1, "read": READ}
  first = [{"id": f"{i:03d}", "text": text, "title": f"title {i}"} for i, text in enumerate(TEXTS)]
  embed_fake(encoder, folder / "ds", _write(folder / "first", first), **options)
  hostile = {"id": HOSTILE, "text": f"{HOSTILE} {TEXTS[0]}", "title": HOSTILE}
  bad = [{"id": f"bad {i}", "text": f"  secret\0{HOSTILE}", "title": ""} for i in range(N_BAD)]
  bad += [{"id": f"null {i}", "text": None, "title": ""} for i in range(N_NULL)]
  embed_fake(encoder, folder / "ds", _write(folder / "second", [*first[N_GONE:], hostile, *bad]), **options)
  return Dataset.open(str(folder / "ds"))


def _write(folder: Path, rows: list[dict[str, Any]]) -> Path:
  folder.mkdir()
  (folder / "documents.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return folder
