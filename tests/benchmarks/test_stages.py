import pytest

from benchmarks.stages import shares


def test_stages_and_what_is_left_are_the_whole():
  seconds = {"read, bucket, tokenise": 3.0, "of these, tokenise": 2.0, "encode": 10.0, "of these, the encoder": 9.0}
  found = shares(seconds, available=20.0)
  assert found == {
    "read, bucket, tokenise": 0.05,
    "tokenise": 0.1,
    "encode": 0.05,
    "the encoder": 0.45,
    "Beam and waiting": 0.35,
  }
  assert sum(found.values()) == pytest.approx(1)
