import datetime
from dataclasses import replace

import pytest

from pipeline.embed import Outcome, embed, graph_bytes
from pipeline.engines import choose_engine
from pipeline.options import EmbedOptions
from tests.fake_encoder import FakeEncoder, make_vocabulary
from transforms.errors import EncoderError, UsageError

FLINK = ("--flink_master=flink:8081", "--parallelism=2")


def test_outcomes_have_exit_codes():
  assert {status: Outcome(status, {}).exit_code for status in ("published", "held back", "overtaken", "submitted")} == {
    "published": 0,
    "submitted": 0,
    "held back": 1,
    "overtaken": 75,
  }


def test_the_size_of_a_graph(tmp_path):
  (tmp_path / "encoder.pb").write_bytes(b"12345")
  assert graph_bytes(str(tmp_path)) == graph_bytes(f"file://{tmp_path}") == 5
  with pytest.raises(EncoderError, match=r"/nowhere/encoder\.pb: not there; an encoder folder is what"):
    graph_bytes("/nowhere")


def test_a_job_whose_server_ends_with_us_is_not_left_alone(tmp_path):
  asked = {"inputs": ("s3://b/i",), "encoder": "s3://b/e", "dataset": f"{tmp_path}/d", "runner": "FlinkRunner"}
  with pytest.raises(UsageError, match=r"^--detach with --runner FlinkRunner: .*; add --flink_submit_uber_jar behind"):
    embed(EmbedOptions(**asked, detach=True, beam_options=FLINK))
  assert not list(tmp_path.iterdir())
  assert not choose_engine([*FLINK, "--flink_submit_uber_jar"], runner="FlinkRunner").has_own_job_server


def test_a_run_starts_with_its_job_on_the_first_night_too(tmp_path):
  """The first night loads the encoder while it plans, later ones once the plan stands: what a run took has both."""
  (tmp_path / "in.txt").write_text("red\ngreen\nblue\n")
  options = EmbedOptions(
    inputs=(f"{tmp_path}/in.txt",), encoder="enc", dataset=f"{tmp_path}/ds", whitening="none", again=True, threads=1
  )
  encoder = FakeEncoder(make_vocabulary(["red green blue"]), hidden_size=8)
  at = datetime.datetime(2026, 2, 28, 2, tzinfo=datetime.UTC)

  def load():
    nonlocal at
    at += datetime.timedelta(seconds=16)
    return encoder.load()

  def now():  # each look is a second later
    nonlocal at
    at += datetime.timedelta(seconds=1)
    return at

  for _ in range(2):
    began = at + datetime.timedelta(seconds=1)
    loaders = replace(encoder.loaders(), encoder=load)
    manifest = embed(options, loaders, encoder.spec, now=now).manifest
    assert manifest["started"] == began.isoformat()
