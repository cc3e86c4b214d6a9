"""Plan a run: list the input, choose buckets and waves, decide the whitening; what cannot be right is found here."""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.choose_whitening import choose_whitening
from pipeline.dataset import Dataset, Published, new_run_id
from pipeline.dataset_encoder import allow_encoder
from pipeline.embed_plan import EmbedPlan
from pipeline.engines import Engine
from pipeline.options import EmbedOptions
from pipeline.publish_plan import PublishPlan
from pipeline.replay import check_replay
from transforms.base_run import BaseRun, vector_type_of
from transforms.digests import MAX_BITS
from transforms.encoder import EncoderSpec
from transforms.errors import StoreError, UsageError
from transforms.input_files import InputFile, Slice, cut_slices, keep_schema, limit_slices, list_files
from transforms.input_slices import piece_bytes
from transforms.long_texts import CHUNKS, TRUNCATE, TRUNCATED, Documents, LongTexts
from transforms.predictions import Predictions
from transforms.raw_store import RawStore
from transforms.read_documents import Wave
from transforms.run_plan import RunPlan
from transforms.self_test import tolerance
from transforms.storage import Storage
from transforms.text_chunks import CHUNK_COLUMNS, check_kept_with_chunks
from transforms.vector_types import FLOAT32

# A bucket is a few minutes of encoding, and what one thread holds in memory while it writes.
BUCKET_TEXT_BYTES = 4 << 20
BUCKETS_PER_THREAD = 4
# Less text than this in a bucket, and threads that end together are not worth what short batches have of padding.
LEAST_BUCKET_TEXT_BYTES = 512 << 10
# What the process holds, and what a shuffle holds for a byte of text: benchmarks/memory.py measures both.
BASE_BYTES = 300 << 20
THREAD_BYTES = 100 << 20
# What TensorFlow holds by itself, and of a loaded encoder, in sizes of its file: benchmarks/load_memory.py measures it.
TENSORFLOW_BYTES = 500 << 20
ENCODER_COPIES = 6
# What of each token is held beside attention's scores, in widths of a block's inner layer: that before its activation
# and after. Measured as are `score_bytes`.
INNER_COPIES = 2
SHUFFLE_BYTES_PER_TEXT_BYTE = 4
# What a thread holds for each label of a head while it writes a bucket of many short texts: a pass of probabilities,
# row groups of them taken and encoded. Measured with 1,000 labels and 50,000 texts.
LABEL_BYTES_PER_THREAD = 700 << 10


def plan_run(
  options: EmbedOptions,
  spec: EncoderSpec,
  encoder_bytes: int,
  engine: Engine,
  now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
  before_new_dataset: Callable[[], object] = lambda: None,
  started: datetime.datetime | None = None,
) -> EmbedPlan:
  """Returns the plan of a run.

  Args:
    options: what is asked.
    spec: the encoder's.
    encoder_bytes: size of its graph on disk.
    engine: where it will run.
    now: the clock.
    before_new_dataset: called before a folder is made, on the first night; if it raises, none is.
    started: when the job did, from which it is told how long it took; None for now.

  Raises:
    UsageError: the job as asked cannot be right; one line names the thing and the remedy.
  """
  started = started or now()
  long_texts = choose_long_texts(options, spec)
  spec = spec.with_long_texts(long_texts)
  published = find_published(options.dataset)
  whitening = choose_whitening(options, spec, published)
  predictions = Predictions.of(spec.head, options.threshold)
  _check_kept(options, predictions)
  if long_texts.mode == CHUNKS:
    check_kept_with_chunks(options.read)
  _check_self_test_error(options.max_self_test_error, tolerance(spec))
  files, slices = list_input(options)
  kept = keep_schema(files, options.read)
  if long_texts.mode == CHUNKS:
    kept = pa.schema([*kept, *CHUNK_COLUMNS])
  text_bytes = sum(piece_bytes(files[piece.file], piece) for piece in slices)
  travelling = round(text_bytes * long_texts.growth)  # what overlaps is in the shuffle, and in a bucket, as often
  bits = choose_bits(options, travelling, engine.parallelism)
  batch = batch_memory(spec, options.token_budget)
  waves = choose_waves(options, travelling, encoder_bytes, bits, engine, len(spec.labels), batch)
  dataset = _open_dataset(options.dataset, spec, before_new_dataset)
  base, base_problem = read_base(dataset, published)
  migration = allow_encoder(
    dataset, published, base, spec.fingerprint, new_encoder=options.new_encoder, variants=list_variants(spec, base)
  )
  if options.replay is not None:
    check_replay(dataset, dataset.manifest(options.replay))
  base_run, compare_problem = find_base_run(base, base_problem)
  other_rows = base is not None and (LongTexts.of(base).mode == CHUNKS) != (long_texts.mode == CHUNKS)
  run = RunPlan(
    run_id=new_run_id(now()),
    files=files,
    options=options.read,
    kept=kept,
    bits=bits,
    store=RawStore(dataset.storage, spec.fingerprint, spec.vector_size, len(spec.labels)),
    token_budget=options.token_budget,
    flush_seconds=options.flush_seconds,
    predictions=predictions,
    vector_type=options.vector_type or (vector_type_of(base) if base else FLOAT32),
    long_texts=long_texts,
  )
  publish = PublishPlan(
    run=run,
    base=published.number if published else 0,
    max_rejected=options.max_rejected,
    max_shrink=options.max_shrink,
    max_broken=options.max_broken,
    replay=options.replay,
    base_rows=_count_base(base, in_documents=other_rows),
    compares_documents=other_rows,
    base_run=base_run,
    base_problem=compare_problem,
    n_slices=len(slices) * len(waves),
    started=started.isoformat(timespec="seconds"),
    options=describe(options) | {"threshold": predictions.threshold} | describe_vector_type(run.vector_type),
    encoder={"url": absolute(options.encoder)} | _describe_encoder(spec),
    whitening=whitening.asked,
  )
  return EmbedPlan(
    *(run, publish, whitening.fit, slices, waves, text_bytes),
    first_run=published is None,
    base=base,
    base_problem=base_problem,
    migration=migration,
    whitening_problem=None if base_problem else whitening.problem,
  )


def _count_base(base: Mapping[str, Any] | None, in_documents: bool) -> int:
  """Returns how many rows the published run has, or how many documents they are of."""
  if base is None:
    return 0
  return Documents.count_written(base["counts"], base.get("long_texts") if in_documents else None)


def list_variants(spec: EncoderSpec, base: Mapping[str, Any] | None) -> dict[str, EncoderSpec]:
  """Returns the encoder in every precision, with what the run does with long texts, and what the published one did."""
  theirs = LongTexts.of(base) if base is not None else TRUNCATED
  return spec.variants() | spec.with_long_texts(theirs).variants()


def choose_long_texts(options: EmbedOptions, spec: EncoderSpec) -> LongTexts:
  """Returns what the options come to for an encoder; raises UsageError for a stride that cannot be."""
  return LongTexts.asked(options.long_texts, options.stride, spec.max_seq_length)


def list_input(options: EmbedOptions) -> tuple[tuple[InputFile, ...], tuple[Slice, ...]]:
  """Returns the input's files, and the slices in which they are read."""
  files = tuple(list_files(options.inputs, options.read))
  slices = cut_slices(files)
  if options.limit is not None:
    slices = limit_slices(files, slices, options.limit, options.read)
  return files, tuple(slices)


def _open_dataset(url: str, spec: EncoderSpec, before_new_dataset: Callable[[], object]) -> Dataset:
  if not Storage.at(url).exists("dataset.json"):
    before_new_dataset()
  return Dataset.open_or_create(url, {"fingerprint": spec.fingerprint, "tokenizer": asdict(spec.tokenizer)})


def find_published(url: str) -> Published | None:
  """Returns the published run to plan upon; None if there is none, or no dataset yet."""
  return Dataset.open(url).published() if Storage.at(url).exists("dataset.json") else None


def read_base(dataset: Dataset, published: Published | None) -> tuple[Mapping[str, Any] | None, str | None]:
  """Returns the published run's manifest, or why it cannot be read: then a new run is just what is needed."""
  if published is None:
    return None, None
  try:
    return dataset.manifest(published.run_id), None
  except UsageError as error:
    return None, str(error)


def find_base_run(base: Mapping[str, Any] | None, problem: str | None) -> tuple[BaseRun | None, str | None]:
  """Returns the run to compare with, given its manifest or why there is none to read; or why there is no comparing."""
  if base is None:
    return None, problem
  try:
    return BaseRun.of(base), None
  except StoreError as error:
    return None, str(error)


def choose_bits(options: EmbedOptions, text_bytes: int, parallelism: int) -> int:
  """Returns how many bits of a digest choose its bucket."""
  if options.buckets is not None:
    return options.buckets.bit_length() - 1
  balanced = min(BUCKETS_PER_THREAD * parallelism, text_bytes / LEAST_BUCKET_TEXT_BYTES)
  wanted = max(text_bytes / BUCKET_TEXT_BYTES, balanced, parallelism, options.waves or 1)
  return min((int(wanted) - 1).bit_length(), MAX_BITS)


def choose_waves(
  options: EmbedOptions,
  text_bytes: int,
  encoder_bytes: int,
  bits: int,
  engine: Engine,
  n_labels: int = 0,
  batch_bytes: int = 0,
) -> tuple[Wave, ...]:
  """Cuts the buckets into as many waves as keep one wave's shuffle within the memory budget; a cluster takes one."""
  n_buckets = 1 << bits
  if not engine.is_local:
    if options.waves:
      raise UsageError(f"--waves {options.waves} with --runner {engine.runner}: a cluster takes one; leave it out")
    return (Wave(0, 0, n_buckets),)
  fixed = fixed_memory(encoder_bytes, engine, n_labels, batch_bytes)
  room = options.memory_budget - fixed
  smallest = fixed + (64 << 20)
  if options.memory_budget < smallest:
    batches, of_it, remedy = batch_bytes * engine.parallelism, "", "or fewer --threads"
    if 2 * batches > fixed:
      of_it = f", {-(-batches // 10**6)}MB of it to compute texts as long as it takes"
      remedy = "fewer --threads, or freeze it with a smaller --max-seq-length"
    raise UsageError(
      f"--memory-budget of {options.memory_budget / 1e6:,.1f}MB: this encoder on {engine.parallelism} threads needs "
      f"{-(-smallest // 10**6)}MB{of_it}; allow more, {remedy}"
    )
  wanted = options.waves or -(-text_bytes * SHUFFLE_BYTES_PER_TEXT_BYTE // room)
  n_waves = max(1, min(wanted, n_buckets))
  edges = [n_buckets * i // n_waves for i in range(n_waves + 1)]
  return tuple(Wave(i, edges[i], edges[i + 1]) for i in range(n_waves))


def fixed_memory(encoder_bytes: int, engine: Engine, n_labels: int = 0, batch_bytes: int = 0) -> int:
  """Returns the bytes that a run here holds whatever the corpus: the process, its threads, the encoder."""
  thread_bytes = THREAD_BYTES + LABEL_BYTES_PER_THREAD * n_labels
  encoder = TENSORFLOW_BYTES + ENCODER_COPIES * encoder_bytes if encoder_bytes else 0
  thread_bytes += batch_bytes if encoder_bytes else 0
  return BASE_BYTES + thread_bytes * engine.parallelism + encoder


def batch_memory(spec: EncoderSpec, token_budget: int) -> int:
  """Returns the bytes that a thread holds while it computes a batch of texts as long as the encoder takes them.

  In bfloat16 it is about half of that. 0 of a graph that was frozen elsewhere, of whose heads nothing is known.
  """
  if spec.config is None:
    return 0
  tokens, T = max(token_budget, spec.max_seq_length), spec.max_seq_length  # a text longer than the budget stands alone
  of_token = 4 * INNER_COPIES * spec.config.intermediate_size + spec.config.score_bytes * spec.config.heads * T
  return tokens * of_token


def absolute(url: str) -> str:
  """Returns a local path in full, so that what reads the manifest need not be started in the same folder."""
  return url if "://" in url else str(Path(url).expanduser().absolute())


def describe(options: EmbedOptions) -> dict[str, Any]:
  """Returns the options that decide a run's content, for plan.json and the manifest; never credentials."""
  read = options.read
  return {
    "inputs": [absolute(pattern) for pattern in options.inputs],
    "text_columns": list(read.text_columns),
    "id_column": read.id_column,
    "keep_columns": list(read.keep_columns),
    "encoding": read.encoding,
    "format": read.format,
    "header": read.header,
    "limit": options.limit,
    "whitening": options.whitening,
    "n_components": options.n_components,
    "refit_above": options.refit_above,
    "max_rejected": options.max_rejected,
    "max_shrink": options.max_shrink,
    "max_broken": options.max_broken,
    "max_self_test_error": options.max_self_test_error,
    "allow_bad_files": read.allow_bad_files,
    "token_budget": options.token_budget,
    **({} if options.long_texts == TRUNCATE else {"long_texts": options.long_texts, "stride": options.stride}),
  }


def describe_vector_type(vector_type: str) -> dict[str, str]:
  """Returns what the options say of it: nothing of float32, so that what an older Sorbus wrote can be unchanged."""
  return {} if vector_type == FLOAT32 else {"vector_type": vector_type}


def _describe_encoder(spec: EncoderSpec) -> dict[str, Any]:
  """Returns what a reader of vectors and `probabilities` needs to know."""
  which = {"fingerprint": spec.fingerprint, "precision": spec.precision, "max_seq_length": spec.max_seq_length}
  positions = spec.config.position_limit if spec.config else None
  which |= {"max_position_embeddings": positions} if positions else {}
  return which | ({"head": spec.head.kind, "labels": list(spec.labels)} if spec.head else {})


def _check_kept(options: EmbedOptions, predictions: Predictions) -> None:
  """Raises UsageError for a kept column that is called as one of the head's, which without a head may be kept."""
  ours = {field.name for field in predictions.fields}
  for name in options.read.keep_columns:
    if name in ours:
      raise UsageError(
        f"--keep-columns {name}: with this encoder's head Sorbus writes a column of that name itself; rename the "
        "input's, or freeze the checkpoint without --head"
      )


def _check_self_test_error(asked: float | None, tolerance: float) -> None:
  """Raises UsageError for an error that no job would reach: beyond the encoder's own tolerance none starts."""
  if asked is not None and not 0 <= asked <= tolerance:
    raise UsageError(
      f"--max-self-test-error {asked:g}: the encoder's own tolerance is {tolerance:g}, and a job beyond it does not "
      f"start; choose 0 to {tolerance:g}"
    )
