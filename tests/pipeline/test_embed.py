import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.embed import Outcome, find_own_error, graph_bytes, local_options, run_pipeline
from pipeline.options import EmbedOptions
from transforms.errors import EncoderError, InputFileError, KnownTextsLostError, SorbusError, StoreError, UsageError

MESSAGE = "a.gz is damaged (bad: CRC): mend it"


def make_options(*beam_options):
  return EmbedOptions(inputs=("a",), encoder="e", dataset="d", threads=3, beam_options=beam_options)


# --- errors


def test_our_own_class_with_the_place_where_it_ran():
  error = InputFileError(f"{MESSAGE} [while running 'EncodeWave/ReadDocuments/Read']")
  found = find_own_error(str(error), error)
  assert type(found) is InputFileError and str(found) == MESSAGE


def test_a_traceback_as_text():
  text = (
    "Traceback (most recent call last):\n"
    '  File "rows.py", line 9, in read\n'
    "ValueError: bad CRC\n\n"
    "The above exception was the direct cause of the following exception:\n\n"
    f"transforms.errors.InputFileError: {MESSAGE}\n\n"
    "During handling of the above exception, another exception occurred:\n\n"
    f"transforms.errors.InputFileError: {MESSAGE} [while running 'EncodeWave/Read-ptransform-12']\n"
  )
  found = find_own_error(text, RuntimeError(text))
  assert type(found) is InputFileError and str(found) == MESSAGE
  assert find_own_error(text).exit_code == 1


@pytest.mark.parametrize("kind", [SorbusError, UsageError, EncoderError, StoreError, KnownTextsLostError])
def test_every_kind_of_ours_is_found(kind):
  found = find_own_error(f"Traceback\n{kind.__module__}.{kind.__name__}: why\n")
  assert type(found) is kind and str(found) == "why"


@pytest.mark.parametrize("text", ["", "ValueError: x", "other.errors.StoreError: x", "transforms.errors.StoreError"])
def test_other_errors_are_not_ours(text):
  assert find_own_error(text, ValueError(text)) is None


def fail(_):
  raise StoreError("raw/x.parquet: damaged; remove it")


def fail_badly(_):
  raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_an_error_of_a_worker_comes_out_as_itself(mode):
  """Both forms in which Beam hands an error over: as it is, and as a text."""
  options = PipelineOptions(["--runner=FnApiRunner", f"--direct_running_mode={mode}", "--direct_num_workers=2"])
  with pytest.raises(StoreError) as error, run_pipeline(options) as p:
    _ = p | beam.Create([1, 2], reshuffle=False) | "Fail" >> beam.Map(fail)
  assert str(error.value) == "raw/x.parquet: damaged; remove it"
  with pytest.raises(Exception, match="a bug") as other, run_pipeline(options) as p:
    _ = p | beam.Create([1], reshuffle=False) | "Fail" >> beam.Map(fail_badly)
  assert not isinstance(other.value, SorbusError)


# --- Beam's options


@pytest.mark.parametrize(
  "flags", [[], ["--runner=DirectRunner"], ["--runner", "DirectRunner"], ["--runner=FnApiRunner"]]
)
def test_the_runner_is_pinned(flags):
  found = local_options(make_options(*flags)).get_all_options()
  assert found["runner"] == "FnApiRunner"  # DirectRunner would be another engine from time to time
  assert (found["direct_running_mode"], found["direct_num_workers"]) == ("multi_threading", 3)


def test_flags_of_the_user_win():
  found = local_options(make_options("--direct_num_workers=1", "--job_name", "tonight")).get_all_options()
  assert (found["direct_num_workers"], found["job_name"]) == (1, "tonight")


@pytest.mark.parametrize("runner", ["FlinkRunner", "DataflowRunner", "PrismRunner", "nonsense"])
def test_foreign_runners_are_refused(runner):
  with pytest.raises(UsageError, match=rf"^--runner={runner}: this version runs locally only \(FnApiRunner\)$"):
    local_options(make_options(f"--runner={runner}"))


@pytest.mark.parametrize("flag", ["--job_nam=x", "--runer=FnApiRunner", "--whitening=none"])
def test_a_flag_that_beam_does_not_know_is_refused(flag):
  with pytest.raises(UsageError, match=rf"^{flag.partition('=')[0]} behind '--': Beam has no such option$"):
    local_options(make_options(flag))


def test_a_value_that_beam_cannot_read_is_refused_in_one_line(capfd):
  with pytest.raises(UsageError) as error:
    local_options(make_options("--direct_num_workers=many"))
  assert str(error.value) == "behind '--': argument --direct_num_workers: invalid int value: 'many'"
  assert capfd.readouterr() == ("", "")


# --- the rest


def test_outcomes_have_exit_codes():
  assert {status: Outcome(status, {}).exit_code for status in ("published", "held back", "overtaken")} == {
    "published": 0,
    "held back": 1,
    "overtaken": 75,
  }


def test_the_size_of_a_graph(tmp_path):
  (tmp_path / "encoder.pb").write_bytes(b"12345")
  assert graph_bytes(str(tmp_path)) == graph_bytes(f"file://{tmp_path}") == 5
  with pytest.raises(EncoderError, match=r"/nowhere/encoder\.pb: not there; an encoder folder is what"):
    graph_bytes("/nowhere")
