"""A damaged store: found every time, repaired by encoding what was lost and nothing else, never a wrong vector."""

import hashlib
import os
import re
import shutil
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest

import pipeline.embed
import pipeline.repair
from pipeline.engines import choose_engine
from pipeline.options import EmbedOptions
from pipeline.planning import plan_run
from pipeline.repair import repaired
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.raw_damage import KINDS, delete, held_texts, mark_of, replace, spoil_digests
from tests.integration.run_files import (
  embed_fake,
  made_up_texts,
  published_runs,
  raw_files,
  read_vectors,
  write_shards,
)
from tests.run_parts import make_report
from transforms.digests import from_arrow
from transforms.encode_documents import BucketEncoder
from transforms.errors import DamagedFileError, StoreError
from transforms.input_files import ReadOptions
from transforms.raw_store import vectors_of
from transforms.read_documents import SliceReader
from transforms.records import BucketRecord
from transforms.rejected_files import RejectedFiles
from transforms.settle_ids import read_documents_file

TEXTS = made_up_texts(80)
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 16)
# Without a whitening a text's vector follows from the text alone, to the bit.
EMBED = {"read": ReadOptions(id_column="id"), "whitening": "none", "threads": 1}
RUNS, STEPS = 10, 20


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  return write_shards(tmp_path_factory.mktemp("damage") / "input", [*TEXTS, *TEXTS[:10]], 2)


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
  """A dataset whose store has coarse files and fine ones, many small ones, and texts that stand in two."""
  dataset = tmp_path_factory.mktemp("whole") / "dataset"
  for n, options in [(20, {"buckets": 1}), (50, {"buckets": 4, "token_budget": 128, "flush_seconds": 0.0})]:
    run_waves(dataset, write_shards(dataset.parent / f"{n}", TEXTS[:n], 1), **options)
  hidden = dataset.parent / "hidden"
  (dataset / "raw").rename(hidden)
  run_waves(dataset, write_shards(dataset.parent / "some", TEXTS[15:30], 1), buckets=2)
  shutil.copytree(hidden, dataset / "raw", dirs_exist_ok=True)
  assert run_waves(dataset, inputs, buckets=8)[:2] == (30, 50)
  assert len(raw_files(dataset)) > 20
  return dataset


@pytest.fixture(scope="module")
def expected(whole, inputs, tmp_path_factory):
  """(doc ids, vectors) of a dataset that was never damaged."""
  dataset = tmp_path_factory.mktemp("fresh") / "dataset"
  return read_vectors(dataset, embed_fake(ENCODER, dataset, inputs, **EMBED).manifest)


@pytest.fixture(autouse=True, scope="module")
def without_fsync():
  """No power is cut here, and a busy disk would take minutes."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(os, "fsync", lambda descriptor: None)
    yield


@pytest.fixture
def dataset(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / "dataset")


class Once:
  """Does something the first time that it is called."""

  def __init__(self, action=lambda: None):
    self.action, self.calls = action, 0

  def __call__(self):
    self.calls += 1
    if self.calls == 1:
      self.action()


def encode_plainly(plan, wave, between):
  """One wave without an engine: the records of its buckets. `between` is called when all is read."""
  blocks, report, encoder = defaultdict(list), make_report(plan.run), ENCODER.load()
  for piece in plan.slices:
    rejects = RejectedFiles(plan.run.storage, plan.run.folder, f"read-{piece.file}-{piece.begin}-{wave.number}")
    for bucket, block in SliceReader(plan.run, wave, piece, encoder.tokenizer, rejects).blocks(report):
      blocks[bucket].append(block)
  between()
  return [BucketEncoder(plan.run, encoder, report, lambda: 0.0).encode(*keyed) for keyed in sorted(blocks.items())]


def run_waves(dataset, inputs, between=lambda: None, say=lambda line: None, **options):
  """Everything up to the finish, whose engine would take 200 times a second: (encoded, reused, vectors by digest)."""
  options = EmbedOptions(inputs=(str(inputs),), encoder="fake", dataset=str(dataset), **EMBED, **options)
  plan = plan_run(options, ENCODER.spec, 0, choose_engine())
  records = [
    record
    for wave in plan.waves
    for record in repaired(plan.run, wave, lambda wave: encode_plainly(plan, wave, between), say)
  ]
  found = {}
  for record in records:
    digests = from_arrow(read_documents_file(plan.run, record)["text_digest"])
    for _, rows in plan.run.store.select(record.raw_files, np.unique(digests)):
      found |= dict(zip(rows["text_digest"].to_pylist(), vectors_of(rows), strict=True))
  return sum(record.encoded for record in records), sum(record.reused for record in records), found


def digest_of(text):
  return hashlib.blake2b(text.encode(), digest_size=16).digest()


def damage(dataset, rng, kinds, number):
  """Damages a file or more: the texts that no whole file holds any more."""
  held, lost = held_texts(dataset), set()
  for kind in rng.choice(len(kinds), number):
    sound = [path for path in raw_files(dataset) if path.name in held.keys() - lost]
    sound.sort(
      key=lambda path: (path.name.split("-")[0], min(held[path.name]), path.stat().st_mtime_ns)
    )  # ids are random
    path, other = (sound[i] for i in rng.choice(len(sound), 2, replace=False))
    lost |= kinds[kind](path, other, rng)
  left = set().union(*(texts for name, texts in held.items() if name not in lost))
  return set(map(digest_of, TEXTS)) - left


@pytest.mark.parametrize("seed", range(RUNS))
def test_damage_after_damage_is_repaired(whole, dataset, inputs, expected, seed):
  """200 times, one to three kinds at once, before the run or between its reading and its encoding."""
  rng, said = np.random.default_rng(seed), []
  vectors = dict(zip(map(digest_of, TEXTS), ENCODER.load().encode_texts(TEXTS), strict=True))
  for step in range(STEPS):
    if len(held_texts(dataset)) < 6:  # two for each of three kinds
      shutil.rmtree(dataset)
      shutil.copytree(whole, dataset)
    options = {"buckets": int(rng.choice([1, 2, 4]))}
    number, lost = int(rng.integers(1, 4)), set()
    between = Once(lambda number=number, lost=lost: lost.update(damage(dataset, rng, KINDS, number)))
    on_engine = step == STEPS - 1 and seed % 5 == 0
    if on_engine or rng.random() < 0.5:
      between()
    if not on_engine:
      encoded, reused, found = run_waves(dataset, inputs, between, said.append, **options)
      assert {key: vector.tobytes() for key, vector in found.items()} == {k: v.tobytes() for k, v in vectors.items()}
    else:
      manifest = embed_fake(ENCODER, dataset, inputs, **EMBED, **options).manifest
      encoded, reused = manifest["counts"]["encoded"], manifest["counts"]["reused"]
      doc_ids, published = read_vectors(dataset, manifest)
      assert doc_ids == expected[0] and published.tobytes() == expected[1].tobytes()
    assert (encoded, reused) == (len(lost), len(TEXTS) - len(lost)), (seed, step)
  assert any("starts again and encodes them" in line for line in said)


def test_one_repair_is_enough_for_any_number_of_files(dataset, inputs):
  """More files than there are attempts, each in a bucket of its own, and none that a glance finds out."""
  said, lost, before = [], set(), held_texts(dataset)
  for path in raw_files(dataset):
    if re.match("[01]{3}-", path.name):  # of the night with 8 buckets
      vector = pq.read_table(path)["vector"].chunk(0).values.buffers()[1].to_pybytes()
      path.write_bytes(path.read_bytes().replace(vector, vector[::-1]))
      lost |= before[path.name]
  encoded, reused, found = run_waves(dataset, inputs, say=said.append, buckets=8)
  assert (encoded, reused, len(found)) == (len(lost), len(TEXTS) - len(lost), len(TEXTS)) and len(lost) == 30
  assert said == [
    "repair: 30 texts that were known are in no whole raw file (damaged or gone); wave 0 starts again and encodes them"
  ]


def newer_format(path):
  """Writes a file as a later Sorbus might, and returns its name."""
  table = pq.read_table(path)
  metadata = table.schema.metadata | {b"sorbus.format_version": b"2"}
  return max(replace(path, table.replace_schema_metadata(metadata)) - {path.name})


def test_a_file_of_another_format_is_refused_by_name_and_nothing_is_published(dataset, inputs, expected):
  name = newer_format(raw_files(dataset)[0])
  with pytest.raises(StoreError, match=rf"/{name}: format version 2, this Sorbus reads 1; use the Sorbus that"):
    embed_fake(ENCODER, dataset, inputs, **EMBED)
  assert published_runs(dataset) == [] and not list(dataset.glob("raw/*/*.damaged"))
  (path,) = dataset.glob(f"raw/*/{name}")
  path.unlink()
  vectors = read_vectors(dataset, embed_fake(ENCODER, dataset, inputs, **EMBED).manifest)[1]
  assert vectors.tobytes() == expected[1].tobytes()


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_an_engine_hands_the_loss_over_and_the_wave_runs_again(dataset, inputs, expected, monkeypatch, capsys, mode):
  """The damage comes between the glance at what is known and the encoding."""
  rng, lost, glanced = np.random.default_rng(1), set(), pipeline.repair.find_known

  def find_known(*args, **kwargs):
    found = glanced(*args, **kwargs)
    damage_once()
    return found

  damage_once = Once(lambda: lost.update(damage(dataset, rng, (spoil_digests, delete), 3)))
  monkeypatch.setattr(pipeline.repair, "find_known", find_known)
  options = {"buckets": 4, "beam_options": (f"--direct_running_mode={mode}",)}
  run = embed_fake(ENCODER, dataset, inputs, **EMBED, **options)
  counts = run.manifest["counts"]
  assert (counts["encoded"], counts["reused"]) == (len(lost), len(TEXTS) - len(lost)) and lost
  assert read_vectors(dataset, run.manifest)[1].tobytes() == expected[1].tobytes()
  again, set_aside = (line for line in capsys.readouterr().err.splitlines() if line.startswith("repair: "))
  assert again == (
    f"repair: {len(lost)} texts that were known are in no whole raw file (damaged or gone); wave 0 starts again and "
    "encodes them"
  )
  assert set_aside.startswith("repair: damaged or gone in raw/") and set_aside.endswith("what it held is encoded anew")
  assert not list((dataset / "runs" / run.manifest["run_id"]).glob("known/*"))


def test_damage_before_the_finish_stops_the_run_and_the_next_one_repairs_it(dataset, inputs, expected, monkeypatch):
  finish, broken = pipeline.embed.finish, []

  def damage_and_finish(plan, records, options):
    (record, *_) = [record for record in records if isinstance(record, BucketRecord)]
    (path,) = dataset.glob(f"raw/*/{record.raw_files[0]}")
    broken.append(path)
    path.write_bytes(b"")
    finish(plan, records, options)

  monkeypatch.setattr(pipeline.embed, "finish", damage_and_finish)
  with pytest.raises(DamagedFileError, match=r"damaged \(its sha256 is not the one in its name\); run again to encode"):
    embed_fake(ENCODER, dataset, inputs, **EMBED)
  assert published_runs(dataset) == [] and mark_of(broken[0]).exists()
  monkeypatch.setattr(pipeline.embed, "finish", finish)
  vectors = read_vectors(dataset, embed_fake(ENCODER, dataset, inputs, **EMBED).manifest)[1]
  assert vectors.tobytes() == expected[1].tobytes()


def test_files_of_the_run_itself_are_damaged_too(dataset, inputs):
  """The first attempt encodes the low buckets and finds the last one lost; then what it had flushed is damaged."""
  said, own, before = [], [], raw_files(dataset)
  high = [path for path in before if path.name.startswith("1")]
  for path in set(before) - set(high):
    path.write_bytes(b"")

  def between():
    if len(said) == 0:
      max(high).unlink()
    elif len(said) == 1:
      own.extend(set(raw_files(dataset)) - set(before))
      for path in own:
        path.write_bytes(path.read_bytes()[:-9])

  encoded, reused, found = run_waves(dataset, inputs, between, said.append, buckets=8)
  assert len(own) >= 4 and len(said) == 2
  assert len(found) == len(TEXTS) == encoded + reused
  # The third attempt has written them again, under their old names.
  assert not any(mark_of(path).exists() for path in own) and held_texts(dataset).keys() >= {path.name for path in own}
