"""Draws docs/report.png: two nights of the demo's corpus, and two parts of the report of the second, side by side.

`make picture` runs it: `python -m tests.browser.picture CHECKPOINT CORPUS PICTURE`. The first night lacks some
documents and has others as they were before an edit; in the second some are rejected.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from pipeline.command_line import main
from tests.browser.chromium import ARGUMENTS, find_chromium

SIZE, SCALE = (1200, 1010), 0.7
PARTS = (".page", "#vectors")  # of the report: where each begins
FRAME = '<iframe src="report.html" style="border: 0; width: {}px; height: {}px; zoom: {}; float: left"></iframe>'


def nights(corpus: Path) -> Iterator[list[list[dict[str, Any]]]]:
  """Yields the files of each night as their documents."""
  files = [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(corpus.glob("*.jsonl"))]
  numbered = [list(enumerate(documents)) for documents in files]
  yield [
    [row | {"text": f"Draft. {row['text']}"} if i % 60 == 7 else row for i, row in documents if i % 16]
    for documents in numbered
  ]
  yield [[row | {"text": ""} if i % 170 == 9 else row for i, row in documents if i % 43 != 5] for documents in numbered]


def make_report(checkpoint: Path, corpus: Path, folder: Path) -> Path:
  """Embeds each night, and returns the report of the last."""
  inputs, dataset, encoder = folder / "documents", folder / "vectors", folder / checkpoint.name
  run("freeze", checkpoint, encoder)
  inputs.mkdir()
  for files in nights(corpus):
    for number, documents in enumerate(files):
      lines = "".join(f"{json.dumps(document)}\n" for document in documents)
      (inputs / f"python-docs-{number}.jsonl").write_text(lines)
    words = ("embed", "--input", inputs, "--id-column", "id", "--encoder", encoder, "--dataset", dataset)
    run(*words, "--whitening", "reuse" if dataset.exists() else "fit", "--n-components", 128)
  return max(dataset.glob("runs/*/report.html"))


def run(*words: object) -> None:
  """Runs a command."""
  if main([str(word) for word in words]):
    sys.exit(f"{words[0]} failed")


def draw(report: Path, picture: Path) -> None:
  """Writes a picture of the parts of a report side by side."""
  width, height = SIZE
  frame = FRAME.format(width / len(PARTS) / SCALE, height / SCALE, SCALE)  # wider than it looks, for small letters
  host = report.with_name("host.html")
  host.write_text(f'<body style="margin: 0">{frame * len(PARTS)}')
  with sync_playwright() as p:
    chromium = p.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
    page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    page.goto(host.as_uri())
    for shown, part in zip(page.frames[1:], PARTS, strict=True):
      shown.eval_on_selector(part, "part => part.scrollIntoView({behavior: 'instant'})")
    page.screenshot(path=picture)
    chromium.close()


if __name__ == "__main__":
  with tempfile.TemporaryDirectory(prefix="sorbus-picture-") as name:
    draw(make_report(Path(sys.argv[1]), Path(sys.argv[2]), Path(name)), Path(sys.argv[3]))
