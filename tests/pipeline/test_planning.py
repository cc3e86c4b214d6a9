import datetime
import json
from dataclasses import fields, replace

import numpy as np
import pytest

from pipeline.dataset import Dataset, to_json
from pipeline.embed_plan import start_run
from pipeline.engines import choose_engine
from pipeline.options import EmbedOptions
from pipeline.planning import absolute, batch_memory, choose_bits, choose_waves, describe, fixed_memory, plan_run
from tests.manifests import manifest
from tests.run_parts import H, make_encoder
from transforms.encoder_spec import BertConfig, Head, XlnetConfig
from transforms.errors import UsageError
from transforms.input_files import ReadOptions
from transforms.whitening import Whitening

GB, MB = 1 << 30, 1 << 20
HERE = choose_engine(threads=2)
FLINK = choose_engine(["--flink_master=f:8081", "--parallelism=8"], runner="FlinkRunner")


def make_options(tmp_path="", **fields):
  values = {"inputs": (f"{tmp_path}/in/*",), "encoder": "enc", "dataset": f"{tmp_path}/ds"}
  return EmbedOptions(**values | {"memory_budget": 2 * GB} | fields)


@pytest.mark.parametrize(
  ("text_bytes", "threads", "buckets", "bits"),
  [
    (0, 1, None, 0),  # one for each thread
    (0, 3, None, 2),  # rounded up to a power of two
    (MB, 2, None, 1),
    (2 * MB, 2, None, 2),  # half a MB each
    (8 * MB, 2, None, 3),  # four for each thread
    (8 * MB, 16, None, 4),
    (64 * MB, 2, None, 4),  # 4 MB each
    (65 * MB, 2, None, 4),
    (68 * MB, 2, None, 5),
    (1 << 50, 2, None, 16),  # no more than a digest's first two bytes tell apart
    (1 << 50, 2, 1, 0),
    (0, 2, 1024, 10),
  ],
)
def test_choose_bits(text_bytes, threads, buckets, bits):
  assert choose_bits(make_options(buckets=buckets), text_bytes, threads) == bits


@pytest.mark.parametrize("text_bytes", [0, 1, 50 * MB, 800 * MB, 7 * GB, 1 << 45])
@pytest.mark.parametrize("budget", [600 * MB, 1 * GB, 3 * GB, 64 * GB])
@pytest.mark.parametrize("bits", [0, 1, 7, 12])
def test_waves_cover_every_bucket_once(text_bytes, budget, bits):
  waves = choose_waves(make_options(memory_budget=budget), text_bytes, 0, bits, HERE)
  assert [wave.number for wave in waves] == list(range(len(waves)))
  assert [bucket for wave in waves for bucket in range(wave.first, wave.stop)] == list(range(1 << bits))
  sizes = [wave.stop - wave.first for wave in waves]
  assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


def test_waves_grow_with_the_text_and_shrink_with_the_budget():
  def n_waves(text_bytes, budget, encoder_bytes=0, threads=2, **fields):
    engine = choose_engine(threads=threads)
    return len(choose_waves(make_options(memory_budget=budget, **fields), text_bytes, encoder_bytes, 10, engine))

  assert n_waves(100 * MB, 1 * GB) == 1  # 400 MB of shuffle beside 500 MB of everything else
  assert n_waves(200 * MB, 1 * GB) == 2
  assert n_waves(800 * MB, 1 * GB) == 7
  assert n_waves(800 * MB, 8 * GB) == 1
  assert n_waves(800 * MB, 3 * GB) == 2
  assert n_waves(800 * MB, 3 * GB, encoder_bytes=100 * MB) == 3  # 600 MB of encoder, 500 MB of TensorFlow
  assert n_waves(800 * MB, 1 * GB, threads=1) == 6
  assert n_waves(800 * MB, 1 * GB, waves=3) == n_waves(0, 1 * GB, waves=3) == 3
  assert n_waves(0, 1 * GB, waves=5000) == 1024  # no more than buckets


def test_labels_take_memory_in_each_thread():
  def n_waves(n_labels, threads):
    engine = choose_engine(threads=threads)
    return len(choose_waves(make_options(memory_budget=1 * GB), 400 * MB, 0, 10, engine, n_labels))

  assert n_waves(0, 1) == n_waves(28, 1) == 3
  assert (n_waves(500, 1), n_waves(300, 2)) == (6, 15)  # 342 MB of 624, 410 of 524


def of_sizes(max_seq_length, **sizes):
  spec = make_encoder().spec
  kind = XlnetConfig if "head_size" in sizes else BertConfig
  known = {field.name: getattr(spec.config, field.name, 0) for field in fields(kind)}
  return replace(spec, max_seq_length=max_seq_length, config=kind(**known | sizes))


BASE = {"heads": 12, "intermediate_size": 3072}


@pytest.mark.parametrize(
  ("spec", "token_budget", "measured"),
  [  # MB that one thread took: python -m benchmarks.load_memory, and the like for encoders of these sizes
    (of_sizes(512, **BASE), 2048, 99),
    (of_sizes(2048, **BASE), 2048, 256),
    (of_sizes(1024, heads=4, intermediate_size=512), 2048, 35),
    (of_sizes(512, **BASE, head_size=64), 2048, 373),
    (of_sizes(2048, **BASE, head_size=64), 2048, 1371),
    (of_sizes(2048, heads=4, intermediate_size=512, head_size=32), 512, 512),  # a text alone, longer than the budget
  ],
)
def test_a_batch_of_the_longest_texts_is_counted_as_it_was_measured(spec, token_budget, measured):
  assert measured < batch_memory(spec, token_budget) / 1e6 < 1.5 * measured


def test_nothing_is_counted_of_a_network_that_is_not_known():
  assert batch_memory(replace(make_encoder().spec, config=None), 2048) == 0


def test_attention_over_long_texts_counts_in_the_memory_that_is_planned(corpus):
  spec = of_sizes(8192, **BASE, head_size=64)  # 12 heads of 32 bytes, 8192² times: 25.8 GB a thread
  with pytest.raises(UsageError) as error:
    plan_run(make_options(corpus), spec, 1 * MB, HERE)
  assert str(error.value) == (
    "--memory-budget of 2,147.5MB: this encoder on 2 threads needs 53065MB, 51943MB of it to compute texts as long as "
    "it takes; allow more, fewer --threads, or freeze it with a smaller --max-seq-length"
  )
  fixed = fixed_memory(1 * MB, HERE)
  assert fixed_memory(1 * MB, HERE, batch_bytes=MB) == fixed + 2 * MB


def test_too_small_a_budget_is_refused_with_numbers():
  with pytest.raises(UsageError) as error:
    choose_waves(make_options(memory_budget=593 * MB), 0, 10 * MB, 4, HERE)
  assert str(error.value) == (
    "--memory-budget of 621.8MB: this encoder on 2 threads needs 1179MB; allow more, or fewer --threads"
  )
  assert choose_waves(make_options(memory_budget=1179 * 10**6), 0, 10 * MB, 4, HERE)


def test_a_cluster_takes_all_buckets_in_one_wave_whatever_the_memory_here():
  (wave,) = choose_waves(make_options(memory_budget=1), 1 << 45, 0, 12, FLINK)
  assert (wave.first, wave.stop) == (0, 1 << 12)
  with pytest.raises(UsageError, match=r"^--waves 3 with --runner FlinkRunner: a cluster takes one; leave it out$"):
    choose_waves(make_options(waves=3), 0, 0, 4, FLINK)


def test_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", "/home/me")
  assert [absolute(url) for url in ("enc", "/enc", "~/enc", "s3://bucket/enc")] == [
    *(f"{tmp_path}/enc", "/enc", "/home/me/enc", "s3://bucket/enc")
  ]


def test_credentials_are_refused_and_options_of_a_file_system_not_described():
  with pytest.raises(
    UsageError, match=r"^storage option 'secret' is a credential, which would be sent along"
  ) as caught:
    ReadOptions(storage={"secret": "hunter2"})
  assert "hunter2" not in str(caught.value)
  read = ReadOptions(storage={"profile": "hunter2"})
  assert "hunter2" not in json.dumps(describe(make_options(read=read)))


@pytest.fixture
def corpus(tmp_path):
  (tmp_path / "in").mkdir()
  (tmp_path / "in/a.txt").write_text("red\ngreen\n")
  (tmp_path / "in/b.jsonl").write_text('{"text": "blue"}\n')
  return tmp_path


def plan_it(options, spec=None):
  lines = []
  plan = plan_run(options, spec or make_encoder().spec, 0, HERE)
  start_run(plan, options, lines.append)
  return plan, lines


def test_a_plan_says_what_it_decided(corpus):
  plan, lines = plan_it(make_options(corpus))
  assert lines[0] == f"run {plan.run.run_id}: 2 files, about 0.0 MB of text, 2 buckets, 1 wave"
  assert lines[1].startswith("note: without --id-column ids are file#position") and len(lines) == 2
  assert plan_it(make_options(corpus, waves=3))[1][0].endswith("4 buckets, 3 waves")


def test_a_whitening_left_out_by_default_is_said(corpus):
  spec = replace(make_encoder().spec, for_cosine=True)
  plan, lines = plan_it(make_options(corpus), spec)
  assert plan.publish.whitening == "none" and plan.fit.given.n_components == H
  assert lines[1] == (
    "whitening none: this encoder was trained for cosine similarity as it is (--whitening fit to whiten all the same)"
  )
  assert len(plan_it(make_options(corpus, whitening="none"), spec)[1]) == 2


def test_from_the_second_run_on_ids_of_places_are_warned_of(corpus):
  plan, _ = plan_it(make_options(corpus))
  Dataset(plan.run.storage).publish(plan.run.run_id, 0, datetime.datetime.now())
  second, lines = plan_it(make_options(corpus))
  assert (second.publish.base, second.first_run) == (1, False)
  unknown = (
    "warning: this run cannot be compared with the published one, but takes its place"  # it has no manifest here
  )
  assert lines[1].startswith(f"{unknown} with float32 vectors (--vector-type for others): ")
  asked = plan_it(make_options(corpus, vector_type="int8"))[1][1]
  assert asked.startswith(f"{unknown}: ")
  assert lines[2].startswith("warning: without --id-column ids are file#position")
  assert plan_it(make_options(corpus, limit=1))[1][3].startswith("warning: --limit 1: this run, once published, takes")
  (corpus / "in/a.txt").unlink()
  assert len(plan_it(make_options(corpus, read=ReadOptions(id_column="text")))[1]) == 2


def test_a_migration_is_said_and_still_compares_rows(corpus):
  old, _ = plan_it(make_options(corpus))
  dataset, run_id = Dataset(old.run.storage), old.run.run_id
  theirs = manifest(run_id=run_id, encoder={"fingerprint": old.run.store.fingerprint}, counts={"written": 9})
  dataset.storage.write(f"runs/{run_id}/manifest.json", to_json(theirs))
  dataset.publish(run_id, 0, datetime.datetime.now())
  spec = make_encoder(hidden_size=H + 1).spec
  with pytest.raises(UsageError, match=rf"is of encoder {old.run.store.fingerprint[:16]}, .* --new-encoder"):
    plan_it(make_options(corpus), spec)
  new, lines = plan_it(make_options(corpus, new_encoder=True), spec)
  assert lines[1].startswith(f"new encoder {spec.fingerprint[:16]} in place of {old.run.store.fingerprint[:16]}: run")
  assert (new.publish.base_rows, new.run.store.folder) == (9, f"raw/{spec.fingerprint}")
  assert new.find_unchanged() is None


def test_an_error_of_the_self_test_that_no_job_reaches_is_refused(corpus):
  spec = replace(make_encoder().spec, self_test=replace(make_encoder().spec.self_test, tolerance=1e-4))
  plan_it(make_options(corpus, max_self_test_error=1e-4), spec)
  for asked in (2e-4, -1.0, float("nan")):
    with pytest.raises(UsageError, match=r"the encoder's own tolerance is 0\.0001, .*choose 0 to 0\.0001$"):
      plan_it(make_options(corpus, max_self_test_error=asked), spec)


def test_the_plan_is_written(corpus):
  plan, _ = plan_it(make_options(corpus, waves=2))
  written = json.loads(plan.run.storage.read(f"runs/{plan.run.run_id}/plan.json"))
  assert (written["buckets"], written["waves"], written["base"]) == (2, [[0, 1], [1, 2]], 0)
  assert [item["name"] for item in written["inputs"]] == ["a.txt", "b.jsonl"]
  assert written["text_bytes"] == plan.text_bytes == 27 and written["whitening"] == "fit"
  spec = make_encoder().spec
  assert written["encoder"] == {
    "fingerprint": spec.fingerprint,
    "url": absolute("enc"),
    "precision": "float32",
    "max_seq_length": spec.max_seq_length,
    "max_position_embeddings": spec.config.max_position_embeddings,
  }


def spec_with(kind):
  return replace(make_encoder().spec, head=Head(kind, ("a", "b"))).with_fingerprint()


@pytest.mark.parametrize(
  ("kind", "asked", "threshold"), [("softmax", None, None), ("sigmoid", None, 0.5), ("sigmoid", 0.25, 0.25)]
)
def test_a_head_is_planned_with(corpus, kind, asked, threshold):
  plan, _ = plan_it(make_options(corpus, threshold=asked), spec_with(kind))
  assert (plan.run.store.n_labels, plan.run.predictions.labels, plan.run.predictions.threshold) == (
    2,
    ("a", "b"),
    threshold,
  )
  assert plan.publish.options["threshold"] == threshold
  assert (plan.publish.encoder["head"], plan.publish.encoder["labels"]) == (kind, ["a", "b"])


def test_a_heads_labels_count_in_the_memory_that_is_planned(corpus):
  spec = replace(make_encoder().spec, head=Head("softmax", tuple(map(str, range(1000))))).with_fingerprint()
  with pytest.raises(UsageError, match=r"^--memory-budget of 1,073\.7MB: this encoder on 2 threads needs 2025MB"):
    plan_it(make_options(corpus, memory_budget=1 * GB), spec)


@pytest.mark.parametrize("spec", [make_encoder().spec, spec_with("softmax")])
def test_a_threshold_needs_a_sigmoid_head(corpus, spec):
  with pytest.raises(
    UsageError, match=r"^--threshold 0\.5: this encoder has no sigmoid head, whose labels it would choose"
  ):
    plan_it(make_options(corpus, threshold=0.5), spec)
  assert not (corpus / "ds").exists()


@pytest.mark.parametrize(
  ("spec", "free", "reserved"),
  [
    (make_encoder().spec, ("probabilities", "labels"), ()),
    (spec_with("softmax"), ("labels",), ("probabilities",)),
    (spec_with("sigmoid"), ("label",), ("probabilities", "labels")),
  ],
)
def test_a_heads_columns_are_reserved_where_there_is_one(corpus, spec, free, reserved):
  (corpus / "in/a.txt").unlink()
  for name in reserved:
    with pytest.raises(
      UsageError, match=rf"^--keep-columns {name}: with this encoder's head Sorbus writes a column of"
    ):
      plan_it(make_options(corpus, read=ReadOptions(keep_columns=(name,))), spec)
  assert not (corpus / "ds").exists()
  (corpus / "in/b.jsonl").write_text('{"text": "blue", "probabilities": "x", "labels": "y", "label": "z"}\n')
  assert plan_it(make_options(corpus, read=ReadOptions(keep_columns=free)), spec)[0].run.kept.names == list(free)


def test_chunks_have_columns_of_their_own(corpus):
  (corpus / "in/a.txt").unlink()
  run = plan_it(make_options(corpus, read=ReadOptions(keep_columns=("text",)), long_texts="chunks"))[0].run
  assert run.kept.names == ["text", "parent_id", "chunk_start", "chunk_end"] and run.input_kept.names == ["text"]
  assert run.store.fingerprint == make_encoder().spec.fingerprint
  with pytest.raises(UsageError, match="--keep-columns parent_id: with --long-texts chunks"):
    plan_it(make_options(corpus, read=ReadOptions(keep_columns=("parent_id",)), long_texts="chunks"))


def test_windows_that_overlap_take_more_buckets(corpus):
  """And waves, by the same number: their tokens travel as often as they are taken."""
  (corpus / "in/b.jsonl").write_text('{"text": "blue"}\n' * 60_000)  # 1 MB

  def bits(**asked):
    return plan_run(make_options(corpus, **asked, new_encoder=True), make_encoder().spec, 0, HERE).run.bits

  assert (bits(), bits(long_texts="windows", stride=14), bits(long_texts="windows", stride=7)) == (1, 1, 3)


def test_a_limit_takes_the_first_documents_only(corpus):
  plan, _ = plan_it(make_options(corpus, limit=2))
  assert [(piece.file, piece.limit) for piece in plan.slices] == [(0, 2)] and plan.text_bytes == 10


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"n_components": H + 1}, "--n-components 5: the encoder's vectors have 4; choose 1 to 4"),
    ({"n_components": 1.5}, "--n-components 1.5: a share of the variance lies between 0 and 1"),
    ({"memory_budget": 1 * MB}, "--memory-budget of 1.0MB: this encoder on 2 threads needs 592MB"),
    ({"inputs": ("/nowhere/*.txt",)}, "/nowhere/*.txt"),
    ({"dataset": "abfs://b/ds"}, "dataset 'abfs://b/ds': 'abfs' is not a file system that a dataset can live on"),
    ({"limit": 0}, "a limit of 0 documents leaves nothing to read"),
    ({"long_texts": "windows", "stride": 3}, "--stride 3: 14 tokens of a text fit this encoder at once, so choose 4"),
  ],
)
def test_what_cannot_be_right_is_found_before_anything_is_written(corpus, fields, message):
  with pytest.raises(UsageError) as error:
    plan_it(make_options(corpus, **fields))
  assert message in str(error.value) and "\n" not in str(error.value)
  assert not (corpus / "ds").exists()


def test_a_whitening_file_is_checked_against_the_encoder(corpus):
  (corpus / "w.npz").write_bytes(Whitening.none(H + 2).to_bytes())
  with pytest.raises(UsageError, match=r"w\.npz is for vectors of width 6, the encoder's have 4$"):
    plan_it(make_options(corpus, whitening=f"{corpus}/w.npz"))
  given = Whitening(np.ones(H), np.eye(H)[:, :3], np.empty(0), 0, "")
  (corpus / "w.npz").write_bytes(given.to_bytes())
  plan, _ = plan_it(make_options(corpus, whitening=f"{corpus}/w.npz", n_components=2))
  assert plan.fit.given.fingerprint == given.first(2).fingerprint
