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


FIRST = [{"id": f"{i:03d}", "text": text, "title": f"title {i}"} for i, text in enumerate(TEXTS)]
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 16, max_seq_length=32)


def make_runs(folder: Path) -> Dataset:
  """Embeds twice; the second night has lost N_GONE documents, gained hostile ones, and rejects N_BAD + N_NULL."""
  dataset = embed_small(folder, max_rejected=0.2)
  hostile = {"id": HOSTILE, "text": f"{HOSTILE} {TEXTS[0]}", "title": HOSTILE}
  bad = [{"id": f"bad {i}", "text": f"  secret\0{HOSTILE}", "title": ""} for i in range(N_BAD)]
  bad += [{"id": f"null {i}", "text": None, "title": ""} for i in range(N_NULL)]
  inputs = _write(folder / "second", [*FIRST[N_GONE:], hostile, *bad])
  embed_fake(ENCODER, folder / "ds", inputs, threads=1, read=READ, max_rejected=0.2)
  return dataset


def embed_small(folder: Path, **options: Any) -> Dataset:
  """Embeds the first night alone."""
  embed_fake(ENCODER, folder / "ds", _write(folder / "first", FIRST), threads=1, read=READ, **options)
  return Dataset.open(str(folder / "ds"))


def _write(folder: Path, rows: list[dict[str, Any]]) -> Path:
  folder.mkdir()
  (folder / "documents.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return folder
