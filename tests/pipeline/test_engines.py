import pytest

from pipeline.engines import check_ready, choose_engine
from transforms.errors import UsageError

FLINK = ("--flink_master=flink:8081", "--parallelism=6")
DATAFLOW = (
  "--project=a-project",
  "--region=r",
  "--temp_location=gs://bucket/t",
  "--sdk_container_image=i",
  "--max_num_workers=5",
)


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
  found = options_of(*DATAFLOW, runner="DataflowRunner")
  assert found["save_main_session"] is False
  assert found["experiments"] == ["no_use_multiple_sdk_containers"]
  assert (found["machine_type"], found["disk_size_gb"]) == ("n2-standard-8", 50)
  assert choose_engine(DATAFLOW, runner="DataflowRunner").parallelism == 5 * 8


def test_a_users_experiments_are_added_to_ours_and_their_machines_win():
  flags = ("--experiments=a,b", "--machine_type=g2-standard-4", "--number_of_worker_harness_threads=4")
  found = options_of(*DATAFLOW, *flags, "--experiment=c", runner="DataflowRunner")
  assert found["experiments"] == ["no_use_multiple_sdk_containers", "a", "b", "c"]
  assert found["machine_type"] == "g2-standard-4"
  assert choose_engine((*DATAFLOW, *flags), runner="DataflowRunner").parallelism == 5 * 4


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("--temp_location=s3://bucket/t", "Invalid GCS path (s3://bucket/t), given for the option: temp_location"),
    ("--temp_location=gs://bucket", "Invalid GCS path: 'gs://bucket' given for option: temp_location"),
    ("--project=123", "Invalid Project ID (123)"),
    ("--job_name=Tonight", "Invalid job_name (Tonight)"),
  ],
)
def test_what_beam_would_find_out_later_is_refused(flag, said):
  with pytest.raises(UsageError) as error:
    choose_engine([*DATAFLOW, flag], runner="DataflowRunner")
  assert str(error.value).startswith(f"behind '--': {said}") and "\n" not in str(error.value)


def test_only_dataflow_has_a_dry_run():
  """Beam takes the option anywhere, and runs the job."""
  assert choose_engine([*DATAFLOW, "--dry_run=True"], runner="DataflowRunner").is_dry_run
  assert not choose_engine(DATAFLOW, runner="DataflowRunner").is_dry_run
  for runner, flags in (("FnApiRunner", ()), ("FlinkRunner", FLINK)):
    with pytest.raises(UsageError, match=rf"^--dry_run behind '--': only DataflowRunner has one; {runner} would run"):
      choose_engine([*flags, "--dry_run=True"], runner=runner)


PLACES = {"--dataset": ("s3://bucket/d",), "--input": ("gs://bucket/*.gz", "corpus/*.gz"), "--encoder": ("/encoder",)}


def test_on_dataflow_a_path_of_this_machine_is_refused(monkeypatch):
  monkeypatch.setattr("pipeline.engines.import_module", lambda _: None)
  engine = choose_engine(DATAFLOW, runner="DataflowRunner")
  check_ready(engine, {"--input": PLACES["--input"][:1], "--dataset": ("simplecache::s3://b/x",)}, pytest.fail)
  with pytest.raises(UsageError, match=r"^--input corpus/\*\.gz: is on this machine, and Dataflow's workers are not; "):
    check_ready(engine, PLACES, pytest.fail)


@pytest.mark.parametrize(
  ("flags", "runner", "notes"),
  [
    ((), "FnApiRunner", 0),
    (("--flink_master=localhost:8081", "--parallelism=2"), "FlinkRunner", 0),
    (("--flink_master=http://127.0.0.1:8081", "--parallelism=2"), "FlinkRunner", 0),
    (("--job_endpoint=embed",), "PortableRunner", 0),
    (FLINK, "FlinkRunner", 1),
    (("--job_endpoint=jobs:8099",), "PortableRunner", 1),
  ],
)
def test_on_other_machines_a_local_path_is_noted(flags, runner, notes):
  said = []
  check_ready(choose_engine(flags, runner=runner), PLACES, said.append)
  assert said == ["note: --input corpus/*.gz is a local path: every worker has to find the same folder there"][:notes]


def test_packages_that_are_missing_are_named(monkeypatch):
  def fail(_):
    raise ImportError("no google.auth")

  monkeypatch.setattr("pipeline.engines.import_module", fail)
  with pytest.raises(
    UsageError, match=r"^--runner DataflowRunner: it takes `pip install 'sorbus\[dataflow\]'` \(no goo"
  ):
    check_ready(choose_engine(DATAFLOW, runner="DataflowRunner"), {}, pytest.fail)


@pytest.mark.parametrize(
  ("flags", "runner", "missing"),
  [
    (FLINK[1:], "FlinkRunner", "flink_master"),
    (FLINK[:1], "FlinkRunner", "parallelism"),
    ((), "PortableRunner", "job_endpoint"),
    (DATAFLOW[:3], "DataflowRunner", "sdk_container_image"),
    (DATAFLOW[:4], "DataflowRunner", "max_num_workers"),
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
  with pytest.raises(UsageError, match=r"^--runner FlinkRunner, and --runner=DataflowRunner behind '--': leave one"):
    choose_engine(["--runner=DataflowRunner"], runner="FlinkRunner")


@pytest.mark.parametrize("flag", ["--job_nam=x", "--runer=FnApiRunner", "--whitening=none", "--object_reuse"])
def test_a_flag_that_beam_does_not_know_is_refused(flag):
  with pytest.raises(UsageError, match=rf"^{flag.partition('=')[0]} behind '--': Beam has no such option"):
    choose_engine([flag])


def test_what_was_probably_meant_is_named():
  with pytest.raises(
    UsageError, match=r"^--paralelism behind '--': Beam has no such option; did you mean --parallelism"
  ):
    choose_engine([*FLINK, "--paralelism=8"], runner="FlinkRunner")


def test_flags_of_the_flink_job_server_are_known_for_flink_alone():
  for flag in ("--object_reuse=true", "--report_checkpoint_duration=sorbus"):
    assert choose_engine([*FLINK, flag], runner="FlinkRunner")
  for flag in ("--object_resue=true", "--fasterCopy=true"):  # Java's own spelling would be ignored
    with pytest.raises(UsageError, match=rf"^{flag.partition('=')[0]} behind '--': Beam has no such option"):
      choose_engine([*FLINK, flag], runner="FlinkRunner")


def test_a_value_that_beam_cannot_read_is_refused_in_one_line(capfd):
  with pytest.raises(UsageError) as error:
    choose_engine(["--direct_num_workers=many"])
  assert str(error.value) == "behind '--': argument --direct_num_workers: invalid int value: 'many'"
  assert capfd.readouterr() == ("", "")


def test_what_is_no_flag_is_refused():
  with pytest.raises(UsageError, match=r"^'flink:8081' behind '--': Beam's options begin with dashes$"):
    choose_engine(["--flink_master=x", "--parallelism", "2", "flink:8081"], runner="FlinkRunner")
