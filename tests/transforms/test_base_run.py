import pytest

from tests.manifests import manifest
from transforms.base_run import BaseRun, BaseShard
from transforms.errors import StoreError
from transforms.storage import StoredFile


def named(*names):
  files = [{"path": f"runs/r1/vectors/{name}", "rows": 1, "bytes": 2, "sha256": "f"} for name in names]
  return manifest(files={"vectors": files})


def test_a_run_is_its_map_and_its_shards():
  run = BaseRun.of(named("part-00005-of-00016-ab.parquet", "part-00015-of-00016-cd.parquet"))
  assert (run.run_id, run.encoder_fingerprint[:4], run.whitening_fingerprint[:4]) == ("r1", "0123", "fedc")
  assert run.shards[0] == BaseShard(5, 4, StoredFile("runs/r1/vectors/part-00005-of-00016-ab.parquet", 1, 2, "f"))
  assert (run.bits, [shard.bucket for shard in run.shards]) == (4, [5, 15])


def test_in_which_numbers_its_vectors_are_stored():
  said = named("part-00000-of-00001-ab.parquet")
  assert BaseRun.of(said).coding == "float32"  # of an older Sorbus, which does not say it
  said["vectors"] = {"type": "int8", "clipped": 0}
  said["whitening"]["ranges"] = "abc"
  assert BaseRun.of(said).coding == "int8 abc"


def test_what_more_is_said_of_a_file_is_passed_by():
  said = named("part-00000-of-00001-ab.parquet")
  plain = BaseRun.of(said)
  said["files"]["vectors"][0]["more"] = 1
  assert BaseRun.of(said) == plain


def test_a_run_in_one_bucket_and_a_run_of_nothing():
  assert BaseRun.of(named("part-00000-of-00001-ab.parquet")).bits == 0
  empty = BaseRun.of(manifest(files={"vectors": []}) | {"whitening": {"asked": "fit", "refused": "too few"}})
  assert (empty.shards, empty.bits, empty.whitening_fingerprint) == ((), 0, "")


@pytest.mark.parametrize(
  "name",
  ["a.parquet", "part-00005-of-00012-ab.parquet", "part-00004-of-00004-ab.parquet", "part-00000-of-00000-a.parquet"],
)
def test_a_shard_without_its_bucket_is_refused(name):
  with pytest.raises(StoreError, match=rf"^runs/r1/vectors/{name}: no name of a shard of run r1"):
    BaseRun.of(named(name))
