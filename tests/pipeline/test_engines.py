import pytest

from pipeline.engines import choose_engine
from transforms.errors import UsageError

FLINK = ("--flink_master=flink:8081", "--parallelism=6")


def options_of(*flags, **given):
  return choose_engine(flags, **given).beam_options.get_all_options()


@pytest.mark.parametrize(
  "flags", [[], ["--runner=DirectRunner"], ["--runner", "DirectRunner"], ["--runner=FnApiRunner"]]
)
def test_the_local_runner_is_pinned(flags):
  engine = choose_engine(flags, threads=3)
  found = engine.beam_options.get_all_options()
  assert found["runner"] == "FnApiRunner"  # DirectRunner would be another engine from time to time
  assert (found["direct_running_mode"], found["direct_num_workers"]) == ("multi_threading", 3)
  assert (engine.is_local, engine.parallelism, engine.threads) == (True, 3, 3)


def test_flags_of_the_user_win():
  found = options_of("--direct_num_workers=1", "--job_name", "tonight", threads=3)
  assert (found["direct_num_workers"], found["job_name"]) == (1, "tonight")
  found = options_of(*FLINK, "--environment_config=pool:7000", runner="FlinkRunner")
  assert (found["environment_type"], found["environment_config"]) == ("EXTERNAL", "pool:7000")


def test_a_cluster_takes_its_slots_and_the_threads_of_its_workers():
  engine = choose_engine(FLINK, runner="FlinkRunner")
  assert (engine.runner, engine.is_local, engine.parallelism, engine.threads) == ("FlinkRunner", False, 6, None)
  assert choose_engine(FLINK, runner="FlinkRunner", threads=2).threads == 2


def test_flink_tries_again_and_needs_no_docker():
  found = choose_engine(FLINK, runner="FlinkRunner").beam_options.get_all_options(retain_unknown_options=True)
  assert found["number_of_execution_retries"] in (3, "3")
  assert (found["environment_type"], found["environment_config"]) == ("EXTERNAL", "localhost:50000")
  assert int(found["sdk_worker_parallelism"]) == 1


def test_dataflow_pickles_no_session_and_has_one_process_a_machine():
  flags = ("--project=p", "--region=r", "--temp_location=gs://b/t", "--sdk_container_image=i")
  found = options_of(*flags, runner="DataflowRunner")
  assert found["save_main_session"] is False
  assert "no_use_multiple_sdk_containers" in found["experiments"]


@pytest.mark.parametrize(
  ("flags", "runner", "missing"),
  [
    (FLINK[1:], "FlinkRunner", "flink_master"),
    (FLINK[:1], "FlinkRunner", "parallelism"),
    ((), "PortableRunner", "job_endpoint"),
    (("--project=p", "--region=r", "--temp_location=gs://b/t"), "DataflowRunner", "sdk_container_image"),
  ],
)
def test_what_a_runner_cannot_do_without(flags, runner, missing):
  with pytest.raises(UsageError, match=rf"^--runner {runner} needs --{missing}=… behind '--': "):
    choose_engine(flags, runner=runner)


@pytest.mark.parametrize("runner", ["PrismRunner", "SparkRunner", "nonsense"])
def test_other_runners_are_refused(runner):
  chosen = "choose FnApiRunner, FlinkRunner, PortableRunner, DataflowRunner"
  for asked in ({"runner": runner}, {"beam_options": [f"--runner={runner}"]}):
    with pytest.raises(UsageError, match=rf"^--runner {runner}: not one that Sorbus runs on; {chosen}$"):
      choose_engine(**asked)


def test_two_runners_are_refused():
  with pytest.raises(UsageError, match="^--runner FlinkRunner, and --runner=DataflowRunner behind '--': leave one"):
    choose_engine(["--runner=DataflowRunner"], runner="FlinkRunner")


@pytest.mark.parametrize("flag", ["--job_nam=x", "--runer=FnApiRunner", "--whitening=none", "--object_reuse"])
def test_a_flag_that_beam_does_not_know_is_refused(flag):
  with pytest.raises(UsageError, match=rf"^{flag.partition('=')[0]} behind '--': Beam has no such option$"):
    choose_engine([flag])


def test_flags_of_the_flink_job_server_are_known_for_flink_alone():
  assert choose_engine([*FLINK, "--object_reuse=true"], runner="FlinkRunner")
  with pytest.raises(UsageError, match="^--object_resue behind '--'"):
    choose_engine([*FLINK, "--object_resue=true"], runner="FlinkRunner")


def test_a_value_that_beam_cannot_read_is_refused_in_one_line(capfd):
  with pytest.raises(UsageError) as error:
    choose_engine(["--direct_num_workers=many"])
  assert str(error.value) == "behind '--': argument --direct_num_workers: invalid int value: 'many'"
  assert capfd.readouterr() == ("", "")


def test_what_is_no_flag_is_refused():
  with pytest.raises(UsageError, match=r"^'flink:8081' behind '--': Beam's options begin with dashes$"):
    choose_engine(["--flink_master=x", "--parallelism", "2", "flink:8081"], runner="FlinkRunner")
