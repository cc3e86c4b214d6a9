"""Where a run runs: this machine, Flink, Dataflow or any portable runner, and the Beam options each is given unasked.

A user's own options, behind '--', come after ours and win.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.options import available_threads
from transforms.errors import UsageError

LOCAL, FLINK, PORTABLE, DATAFLOW = "FnApiRunner", "FlinkRunner", "PortableRunner", "DataflowRunner"
# DirectRunner would try to download Prism, and changes engines silently for some transforms.
_NAMES = {"DirectRunner": LOCAL} | {runner: runner for runner in (LOCAL, FLINK, PORTABLE, DATAFLOW)}

# One process a worker, of which all slots share the encoder: two would be two sessions in memory. It comes from a
# worker pool beside each worker, at Beam's usual port, so that no worker needs Docker.
_WORKER_POOL = ("--sdk_worker_parallelism=1", "--environment_type=EXTERNAL", "--environment_config=localhost:50000")
_DEFAULTS: Mapping[str, Sequence[str]] = {
  FLINK: (
    *_WORKER_POOL,
    # Flink's own default is not to try again. A retry is the whole job once more, which finds what was encoded.
    "--number_of_execution_retries=3",
    "--execution_retry_delay=10000",
  ),
  PORTABLE: _WORKER_POOL,
  DATAFLOW: (
    "--no_save_main_session",  # the image has our package; a pickled session would bring the launcher's along
    # One process a VM, for the same reason as above; its threads are Beam's default, one for each core.
    "--experiments=no_use_multiple_sdk_containers",
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
  },
}
# Options of the Flink job server that Beam's Python does not know (FlinkPipelineOptions.java of 2.77). The server
# ignores one that it does not know either, so a typing mistake would pass.
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
    "fasterCopy",
    "faster_copy",
    "files_to_stage",
    "finish_bundle_before_checkpointing",
    "flink_conf_dir",
    "force_slot_sharing_group",
    "force_unaligned_checkpoint_enabled",
    "jobCheckIntervalInSecs",
    "latency_tracking_interval",
    "max_bundle_size",
    "max_bundle_time_mills",
    "min_pause_between_checkpoints",
    "num_concurrent_checkpoints",
    "number_of_execution_retries",
    "object_reuse",
    "operator_chaining",
    "re_iterable_group_by_key_result",
    "reinterpret_partitioned_key",
    "retain_externalized_checkpoints_on_cancellation",
    "savepoint_path",
    "shutdown_sources_after_idle_ms",
    "state_backend",
    "state_backend_factory",
    "state_backend_storage_path",
    "tolerable_checkpoint_failure_number",
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
  if runner == LOCAL:
    return Engine(runner, chosen, cores, cores)
  return Engine(runner, chosen, _parallelism(given, cores), threads)


def _choose_runner(asked: str | None, behind_dashes: str | None) -> str:
  if asked and behind_dashes and asked != behind_dashes:
    raise UsageError(f"--runner {asked}, and --runner={behind_dashes} behind '--': leave one of them out")
  runner = asked or behind_dashes or LOCAL
  if runner not in _NAMES:
    raise UsageError(
      f"--runner {runner}: not one that Sorbus runs on; choose {', '.join(dict.fromkeys(_NAMES.values()))}"
    )
  return _NAMES[runner]


def _parallelism(given: Mapping[str, Any], cores: int) -> int:
  """Returns how many bundles a cluster takes at a time: what it is told, or what a machine like this would."""
  slots = given.get("parallelism") or given.get("max_num_workers") or given.get("num_workers") or 0
  return int(slots) if int(slots) > 0 else cores


def _check_known(flags: Sequence[str], given: Mapping[str, Any], runner: str) -> None:
  unknown = set(PipelineOptions(flags).get_all_options(retain_unknown_options=True)) - set(given)
  if runner in (FLINK, PORTABLE):
    unknown -= _FLINK_OPTIONS
  if unknown:
    raise UsageError(f"--{sorted(unknown)[0]} behind '--': Beam has no such option")


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
