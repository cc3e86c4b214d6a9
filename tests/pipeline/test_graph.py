import hashlib

from pipeline.embed_plan import EmbedPlan, write_plan
from pipeline.fit_whitening import FitWhitening
from pipeline.graph import EmbedCorpus
from pipeline.publish_plan import PublishPlan
from tests.run_parts import local_pipeline, make_encoder, make_plan
from transforms.base_run import BaseRun, BaseShard
from transforms.input_files import InputFile, ReadOptions, cut_slices
from transforms.read_documents import Wave
from transforms.storage import StoredFile


def _digest(value):
  return hashlib.sha256(repr(value).encode()).hexdigest()  # nothing that a compressor could make smaller


def _plan(folder, n_files, bits):
  files = [InputFile(f"/in/{i}.txt", f"{i}.txt", 1000 + i, _digest(i), "text", None, 1000) for i in range(n_files)]
  names = [f"runs/r0/vectors/part-{i:05d}-of-{1 << bits:05d}-{_digest(i)[:16]}.parquet" for i in range(1 << bits)]
  shards = [BaseShard(i, bits, StoredFile(name, 9, 10**6 + i, _digest(name))) for i, name in enumerate(names)]
  run = make_plan(folder, files=files, bits=bits, options=ReadOptions(id_column="id"))
  publish = PublishPlan(
    run=run,
    base=1,
    max_rejected=0.1,
    base_run=BaseRun("r0", "e", "w", shards),
    started="2025-01-01",
    options={},
    encoder={"url": "e", "fingerprint": "f"},
    whitening="fit",
  )
  fit, wave = FitWhitening(run.store.fingerprint), Wave(0, 0, 1 << bits)
  plan = EmbedPlan(run, publish, fit, cut_slices(files), (wave,), 0, first_run=True, base=None, base_problem=None)
  return write_plan(plan)


def _graph_bytes(plan):
  """The size of a run's graph as a cluster is given it."""
  p = local_pipeline()
  _ = p | EmbedCorpus(plan.run, plan.waves[0], plan.slices, make_encoder().loaders(), plan.publish, plan.fit)
  return p.to_runner_api().ByteSize()


def test_the_graph_does_not_grow_with_files_slices_and_shards(tmp_path):
  few, many = (_graph_bytes(_plan(tmp_path / name, n, bits)) for name, n, bits in (("a", 1, 0), ("b", 20_000, 14)))
  assert many < few + 1000
