"""A run of the sample without its encoder: what reading, tokenising, shuffling and writing take, and what they write.

It is the real run, on this machine, into a folder that goes away: only the vectors are not those of the texts.
"""

import functools
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.dataset import Dataset
from pipeline.embed import encode_wave, finish, load_same_tokenizer
from pipeline.embed_plan import write_plan
from pipeline.engines import Engine
from pipeline.graph import Loaders
from pipeline.options import FIT, NONE, EmbedOptions
from pipeline.planning import plan_run
from pipeline.report import write_report
from transforms.encoder import Encoder, EncoderSpec, load_tokenizer, read_spec
from transforms.input_files import ReadOptions
from transforms.long_texts import TRUNCATED, LongTexts
from transforms.rows import Row


@dataclass(frozen=True)
class Trial:
  """What a run of some documents took.

  Attributes:
    documents: how many it wrote.
    texts: how many distinct ones they have.
    wave_seconds: of reading, tokenising, shuffling and storing raw vectors.
    finish_seconds: of all that follows: the whitening, the vectors, publishing.
    report_seconds: of its report; 0 where none was asked for.
    raw_bytes: in the store.
    output_bytes: of the run: vectors, documents, changes.
    n_components: K of the whitening; None where there was none to be had of so few documents.
  """

  documents: int
  texts: int
  wave_seconds: float
  finish_seconds: float
  report_seconds: float
  raw_bytes: int
  output_bytes: int
  n_components: int | None


def try_run(
  rows: Sequence[Row],
  options: EmbedOptions,
  spec: EncoderSpec,
  engine: Engine,
  vectors: np.ndarray,
  n_components: int | float | None,
  *,
  report: bool,
) -> Trial:
  """Runs some documents through everything but the encoder.

  Args:
    rows: the documents.
    options: of the run that is estimated.
    spec: of its encoder.
    engine: this machine.
    vectors: float32 [N, W], which take the place of the texts' own.
    n_components: of the whitening; None for the default, 0 for no whitening.
    report: write one, as the run will.
  """
  with tempfile.TemporaryDirectory(prefix="sorbus-estimate-") as name:
    folder = Path(name)
    np.save(folder / "vectors.npy", vectors)
    _write(rows, folder / "input", options.read, engine.parallelism)
    asked = replace(
      options,
      inputs=(str(folder / "input"),),
      dataset=str(folder / "dataset"),
      read=ReadOptions(id_column="id" if options.read.id_column else None, keep_columns=options.read.keep_columns),
      limit=None,
      whitening=NONE if n_components == 0 else FIT,
      n_components=n_components or None,
      refit_above=None,
      replay=None,
      buckets=None,
      waves=1,
    )
    return _run(asked, spec, engine, str(folder / "vectors.npy"), report=report)


def _run(options: EmbedOptions, spec: EncoderSpec, engine: Engine, vectors: str, *, report: bool) -> Trial:
  started = time.perf_counter()
  loaders = Loaders(
    functools.partial(load_same_tokenizer, options.encoder, spec.fingerprint, (options.long_texts, options.stride)),
    functools.partial(load_idle, options.encoder, spec.fingerprint, vectors, spec.long_texts or TRUNCATED),
  )
  plan = write_plan(plan_run(options, spec, 0, engine))
  records = encode_wave(plan, plan.waves[0], loaders, engine)
  encoded = time.perf_counter()
  finish(plan, records, engine)
  finished = time.perf_counter()
  storage = plan.run.storage
  if report:
    write_report(Dataset(storage), plan.run.run_id)
  reported = time.perf_counter()
  manifest = Dataset(storage).manifest(plan.run.run_id)
  files = [file for kind in ("vectors", "documents", "changes") for file in manifest["files"][kind]]
  return Trial(
    documents=manifest["counts"]["written"],
    texts=manifest["counts"]["distinct"],
    wave_seconds=encoded - started,
    finish_seconds=finished - encoded,
    report_seconds=reported - finished,
    raw_bytes=sum(storage.sizes(plan.run.store.folder).values()),
    output_bytes=sum(file["bytes"] for file in files),
    n_components=manifest["whitening"].get("n_components"),
  )


def _write(rows: Sequence[Row], folder: Path, read: ReadOptions, n_files: int) -> None:
  """Writes documents as JSONL, a file for each thread, so that all of them read."""
  folder.mkdir()
  for i in range(n_files):
    lines = [
      json.dumps(
        {**dict(zip(read.keep_columns, map(_plain, row.kept), strict=True)), "id": row.doc_id, "text": row.text}
      )
      for row in rows[i::n_files]
    ]
    (folder / f"{i:03d}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _plain(value: object) -> object:
  return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def load_idle(url: str, fingerprint: str, vectors: str, long_texts: LongTexts = TRUNCATED) -> Encoder:
  """Returns an encoder that hands out vectors of a file, whatever the text, at once."""
  spec = read_spec(url).with_long_texts(long_texts).variants()[fingerprint]
  table = np.load(vectors)

  def run(input_ids: np.ndarray, _: np.ndarray) -> np.ndarray:
    return table[(int(input_ids.sum()) + np.arange(len(input_ids))) % len(table)]

  def run_head(input_ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return run(input_ids, mask), np.full((len(input_ids), len(spec.labels)), 0.5, np.float32)

  return Encoder(spec, load_tokenizer(url, spec), run, run_head if spec.head else None)
