"""Which encoder a dataset is of, from what is published, and from what is left of it."""

import datetime

import pytest

from pipeline.dataset import Dataset, to_json
from pipeline.dataset_encoder import allow_encoder
from tests.fake_encoder import make_spec
from tests.manifests import manifest
from transforms.errors import UsageError

A, B, C = "aa" * 32, "bb" * 32, "cc" * 32
NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.fixture
def dataset(tmp_path):
  return Dataset.open_or_create(f"{tmp_path}/ds", {"fingerprint": A, "tokenizer": {}})


def publish(dataset, fingerprint, run_id="r1"):
  found = dataset.published()
  dataset.storage.write(f"runs/{run_id}/plan.json", to_json({"encoder": {"fingerprint": fingerprint}}))
  dataset.storage.write(
    f"runs/{run_id}/manifest.json", to_json(manifest(run_id=run_id, encoder={"fingerprint": fingerprint}))
  )
  dataset.publish(run_id, found.number if found else 0, NOON)


def allow(dataset, fingerprint, *, new_encoder=False, damaged=False):
  published = dataset.published()
  readable = dataset.manifest(published.run_id) if published and not damaged else None
  return allow_encoder(dataset, published, readable, fingerprint, new_encoder=new_encoder)


def test_before_anything_is_published_it_is_the_one_it_was_made_for(dataset):
  assert allow(dataset, A) is None
  with pytest.raises(UsageError):
    allow(dataset, B)
  assert allow(dataset, B, new_encoder=True) == (
    f"new encoder {B[:16]} in place of {A[:16]}, of which nothing is published"
  )


def test_another_is_refused_with_both_and_the_way_to_do_it(dataset):
  publish(dataset, A)
  with pytest.raises(UsageError) as error:
    allow(dataset, B)
  assert str(error.value) == (
    f"{dataset.storage.root}: is of encoder aaaaaaaaaaaaaaaa, not of this one (bbbbbbbbbbbbbbbb); their vectors cannot "
    "be mixed: use that encoder or another --dataset, or migrate with --new-encoder (what is published stays until the "
    "new run is whole)"
  )
  assert allow(dataset, B, new_encoder=True) == (
    f"new encoder {B[:16]} in place of {A[:16]}: run r1 stays published until this one is whole and passes its gates; "
    "`sorbus publish` of it is the way back"
  )


def test_the_same_in_another_precision_is_said_to_be_that(dataset):
  spec = make_spec(("a", "b"), 4, 8).at("bfloat16")
  publish(dataset, spec.fingerprint)
  with pytest.raises(UsageError, match=r", the same in precision bfloat16, not of .* add --precision bfloat16 or "):
    published = dataset.published()
    found = dataset.manifest(published.run_id)
    allow_encoder(dataset, published, found, A, new_encoder=False, variants=spec.variants())


def test_it_is_that_of_the_published_run_there_and_back(dataset):
  publish(dataset, A)
  publish(dataset, B, "r2")
  assert allow(dataset, B) is None
  with pytest.raises(UsageError, match=rf"is of encoder {B[:16]}, not of this one \({A[:16]}\)"):
    allow(dataset, A)
  dataset.publish("r1", 2, NOON)
  assert allow(dataset, A) is None
  with pytest.raises(UsageError, match="--new-encoder"):
    allow(dataset, B)


def test_a_migration_to_what_is_there_is_said_to_be_none(dataset):
  publish(dataset, A)
  assert allow(dataset, A, new_encoder=True) == "note: --new-encoder: the dataset is of this encoder already"


def test_a_damaged_manifest_leaves_the_plan_to_tell(dataset):
  publish(dataset, B)
  assert allow(dataset, B, damaged=True) is None
  with pytest.raises(UsageError, match=f"is of encoder {B[:16]}"):
    allow(dataset, A, damaged=True)


@pytest.mark.parametrize("plan", [None, b"{", b"[]", b'{"encoder": 1}', b'{"encoder": {}}'])
def test_where_the_plan_is_damaged_too_nothing_is_taken_for_granted(dataset, plan):
  publish(dataset, A)
  dataset.storage.remove("runs/r1/plan.json")
  if plan is not None:
    dataset.storage.write("runs/r1/plan.json", plan)
  with pytest.raises(UsageError, match=r"run r1 is cannot be told.*restore one, .*--new-encoder"):
    allow(dataset, A, damaged=True)
  assert "in place of an unknown one" in allow(dataset, A, damaged=True, new_encoder=True)
