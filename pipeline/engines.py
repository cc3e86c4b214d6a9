"""Where a run runs: this machine, Flink, Dataflow or any portable runner, and the Beam options each is given unasked.

A user's own options, behind '--', come after ours and win; experiments are a list, to which they add.
"""

import difflib
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from typing import Any

import fsspec
from apache_beam.options.pipeline_options import FlinkRunnerOptions, GoogleCloudOptions, PipelineOptions, TestOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

from pipeline.options import available_threads
from transforms.errors import UsageError

_RUNNERS = LOCAL, FLINK, PORTABLE, DATAFLOW = "FnApiRunner", "FlinkRunner", "PortableRunner", "DataflowRunner"
# DirectRunner would try to download Prism, and changes engines silently for some transforms.
_NAMES = {"DirectRunner": LOCAL} | {runner: runner for runner in _RUNNERS}
# In place of an address: Beam starts these itself, here.
STARTED_BY_BEAM = ("embed", "[local]", "[auto]")

# One process a worker, of which all slots share the encoder: two would be two sessions in memory. It comes from a
# worker pool beside each worker, at Beam's usual port, so that no worker needs Docker.
_WORKER_POOL = ("--sdk_worker_parallelism=1", "--environment_type=EXTERNAL", "--environment_config=localhost:50000")
_DEFAULTS: Mapping[str, Sequence[str]] = {
  FLINK: (
    *_WORKER_POOL,
    # Flink's own default is not to try again. A retry is the whole job once more, which finds what was encoded. In
    # milliseconds, and longer than the slots of a dead TaskManager count as there (20 s, deploy/flink/config.yaml).
    "--number_of_execution_retries=3",
    "--execution_retry_delay=30000",
  ),
  # Five minutes is Beam's own patience with a job server that is not there.
  PORTABLE: (*_WORKER_POOL, "--job_server_timeout=60"),
  DATAFLOW: (
    "--no_save_main_session",  # the image has our package; a pickled session would bring the launcher's along
    # One process a machine, for the same reason as above: Dataflow's default is one for each core. So its threads have
    # to be told, or the image, which asks for a core a process, might be given one.
    "--experiments=no_use_multiple_sdk_containers",
    "--number_of_worker_harness_threads=8",
    # Dataflow's default has one core and 3.75 GB. All N2 are Intel's with AVX-512, so a text's vector does not depend
    # on which of them it met; 8 cores are a third of what a new project may have in a region.
    "--worker_machine_type=n2-standard-8",
    "--disk_size_gb=50",  # Dataflow's default is 25, of which the image takes 6, beside an encoder and a shard a thread
  ),
}
# What a job cannot be right without, and what to say.
_NEEDED: Mapping[str, Mapping[str, str]] = {
  FLINK: {
    "flink_master": "the cluster's HOST:PORT; without it Beam starts a small Flink of its own",
    "parallelism": "the slots to use, no more than are left when a TaskManager is lost; Flink's default is 1",
  },
  PORTABLE: {"job_endpoint": "HOST:PORT of the job server, or embed"},
  DATAFLOW: {
    "project": "the Google Cloud project",
    "region": "where the workers run",
    "temp_location": "gs://BUCKET/FOLDER for Dataflow's own files",
    "sdk_container_image": "the worker image, which has this package (deploy/worker)",
    "max_num_workers": "machines at most: what you pay for, and what buckets are planned for",
  },
}
# Options of the Flink job server that Beam's Python does not know: those of FlinkPipelineOptions.java, in Python's
# spelling, as far as its source could be seen. It ignores one that it does not know either, as a typing mistake is.
_FLINK_OPTIONS = frozenset(
  {
    "allow_non_restored_state",
    "attached_mode",
    "auto_balance_write_files_sharding_enabled",
    "auto_watermark_interval",
    "checkpoint_timeout_millis",
    "checkpointing_interval",
    "checkpointing_mode",
    "disable_metrics",
    "enable_stable_input_drain",
    "execution_mode_for_batch",
    "execution_retry_delay",
    "externalized_checkpoints_enabled",
    "fail_on_checkpointing_errors",
    "faster_copy",
    "finish_bundle_before_checkpointing",
    "flink_conf_dir",
    "force_slot_sharing_group",
    "force_unaligned_checkpoint_enabled",
    "job_check_interval_in_secs",
    "latency_tracking_interval",
    "max_bundle_size",
    "max_bundle_time_mills",
    "min_pause_between_checkpoints",
    "num_concurrent_checkpoints",
    "number_of_execution_retries",
    "object_reuse",
    "operator_chaining",
    "re_iterable_group_by_key_result",
    "report_checkpoint_duration",
    "retain_externalized_checkpoints_on_cancellation",
    "savepoint_path",
    "shutdown_sources_after_idle_ms",
    "state_backend",
    "state_backend_factory",
    "state_backend_storage_path",
    "unaligned_checkpoint_enabled",
    "use_data_stream_for_batch",
  }
)


@dataclass(frozen=True)
class Engine:
  """Where a run runs.

  Attributes:
    runner: Beam's name of it.
    beam_options: all of Beam's options, ours among them.
    parallelism: bundles at a time, as far as it is known.
    threads: of an encoder's operation; None for every core of the machine that it is on.
  """

  runner: str
  beam_options: PipelineOptions = field(compare=False)
  parallelism: int
  threads: int | None

  @property
  def is_local(self) -> bool:
    """Says whether it runs in this process, which then has to hold every shuffle: a cluster takes all in one wave."""
    return self.runner == LOCAL

  @property
  def has_own_job_server(self) -> bool:
    """Says whether the job server is a child of this process, which may stop before the cluster has the job."""
    flink = self.beam_options.view_as(FlinkRunnerOptions)
    return self.runner == FLINK and not flink.flink_submit_uber_jar

  @property
  def is_dry_run(self) -> bool:
    """Says whether Dataflow is only asked in make-believe: Beam makes the whole job, and sends it nowhere."""
    return bool(self.beam_options.view_as(TestOptions).dry_run)


def choose_engine(beam_options: Sequence[str] = (), *, runner: str | None = None, threads: int | None = None) -> Engine:
  """Returns where to run.

  Args:
    beam_options: Beam's own, `--runner` among them if it is not given as `runner`.
    runner: Beam's name of it; None for this machine.
    threads: of an encoder's operation; None for every core of the machine that it is on.

  Raises:
    UsageError: an option behind '--' that Beam does not know, a runner that there is not, or one that lacks an option.
  """
  flags = list(beam_options)
  stray = [flag for before, flag in pairwise(["", *flags]) if not flag.startswith("-") and not before.startswith("-")]
  if stray:
    raise UsageError(f"{stray[0]!r} behind '--': Beam's options begin with dashes")
  given = _parse(flags)
  runner = _choose_runner(runner, given.get("runner"))
  _check_known(flags, given, runner)
  for name, what in _NEEDED.get(runner, {}).items():
    if f"--{name}" not in {flag.partition("=")[0] for flag in flags}:
      raise UsageError(f"--runner {runner} needs --{name}=… behind '--': {what}")
  cores = threads or available_threads()
  local = ("--direct_running_mode=multi_threading", f"--direct_num_workers={cores}")
  ours = _DEFAULTS.get(runner, local)
  chosen = PipelineOptions([*ours, *_without_runner(flags), f"--runner={runner}"])
  _check_values(chosen, runner)
  if runner == LOCAL:
    return Engine(runner, chosen, cores, cores)
  return Engine(runner, chosen, _parallelism(chosen, runner, cores), threads)


def check_ready(engine: Engine, places: Mapping[str, Sequence[str]], say: Callable[[str], None]) -> None:
  """Refuses what would fail once a run is planned: packages that are missing, paths that a worker could not reach.

  Args:
    engine: where the run will run.
    places: paths and URLs, by the flag that named them.
    say: is told.

  Raises:
    UsageError: with one line that names the package or path.
  """
  if engine.runner == DATAFLOW:
    try:
      import_module("apache_beam.runners.dataflow.internal.apiclient")
    except ImportError as error:
      raise UsageError(f"--runner {DATAFLOW}: it takes `pip install 'sorbus[dataflow]'` ({error})") from error
  local = [f"{flag} {url}" for flag, urls in places.items() for url in urls if _is_local(url)]
  if not local or _is_on_this_machine(engine):
    return
  if engine.runner == DATAFLOW:
    raise UsageError(
      f"{local[0]}: is on this machine, and Dataflow's workers are not; name a URL such as s3://BUCKET/…"
    )
  say(f"note: {local[0]} is a local path: every worker has to find the same folder there")


def _is_local(url: str) -> bool:
  return url.startswith("/") or fsspec.utils.get_protocol(url.rpartition("::")[2]) in ("file", "local")


def _is_on_this_machine(engine: Engine) -> bool:
  options = engine.beam_options.get_all_options(retain_unknown_options=True)
  address = str(options.get({FLINK: "flink_master", PORTABLE: "job_endpoint"}.get(engine.runner, "")) or "")
  host = address.rpartition("://")[2].partition(":")[0]
  return engine.is_local or host in ("localhost", "127.0.0.1", *STARTED_BY_BEAM)


def _choose_runner(asked: str | None, behind_dashes: str | None) -> str:
  if asked and behind_dashes and asked != behind_dashes:
    raise UsageError(f"--runner {asked}, and --runner={behind_dashes} behind '--': leave one of them out")
  runner = asked or behind_dashes or LOCAL
  if runner not in _NAMES:
    raise UsageError(f"--runner {runner}: not one that Sorbus runs on; choose {', '.join(_RUNNERS)}")
  return _NAMES[runner]


def _parallelism(options: PipelineOptions, runner: str, cores: int) -> int:
  """Returns how many bundles a cluster takes at a time: what it is told, or what a machine like this would."""
  found = options.get_all_options()
  if runner == DATAFLOW:
    return int(found["max_num_workers"] * found["number_of_worker_harness_threads"])
  return int(found["parallelism"]) if found["parallelism"] > 0 else cores


def _check_values(options: PipelineOptions, runner: str) -> None:
  """Refuses what Beam would find out only once the run has been planned, or never."""
  if runner != DATAFLOW:
    if options.view_as(TestOptions).dry_run:
      raise UsageError(f"--dry_run behind '--': only {DATAFLOW} has one; {runner} would run the job")
    return
  google = options.view_as(GoogleCloudOptions)
  validator = PipelineOptionsValidator(options, None)
  # First: for a bucket that cannot be, Beam would ask Google for another one.
  wrong = validator.validate_gcs_path(google, "temp_location") + validator.validate_cloud_options(google)
  if wrong:
    raise UsageError(f"behind '--': {wrong[0]}")


def _check_known(flags: Sequence[str], given: Mapping[str, Any], runner: str) -> None:
  unknown = set(PipelineOptions(flags).get_all_options(retain_unknown_options=True)) - set(given)
  if runner in (FLINK, PORTABLE):
    unknown -= _FLINK_OPTIONS
  if unknown:
    known = [*given, *(_FLINK_OPTIONS if runner in (FLINK, PORTABLE) else ())]
    close = difflib.get_close_matches(sorted(unknown)[0], known, n=1)
    meant = f"; did you mean --{close[0]}?" if close else ""
    raise UsageError(f"--{sorted(unknown)[0]} behind '--': Beam has no such option{meant}")


def _without_runner(flags: Sequence[str]) -> list[str]:
  """Returns the flags without --runner NAME or --runner=NAME."""
  return [flag for before, flag in pairwise(["", *flags]) if not flag.startswith("--runner") and before != "--runner"]


def _parse(flags: list[str]) -> dict[str, Any]:
  said = io.StringIO()
  try:
    with redirect_stderr(said):
      return PipelineOptions(flags).get_all_options()
  except SystemExit as error:  # after three pages of usage
    raise UsageError(f"behind '--': {said.getvalue().strip().rpartition('error: ')[2]}") from error
