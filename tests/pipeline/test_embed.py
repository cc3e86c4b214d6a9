import pytest

from pipeline.embed import Outcome, graph_bytes
from transforms.errors import EncoderError


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
