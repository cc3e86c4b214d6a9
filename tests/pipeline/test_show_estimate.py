import pytest

from pipeline.show_estimate import duration


@pytest.mark.parametrize(
  ("seconds", "words"),
  [
    *((0.2, "0 s"), (8.4, "8 s"), (89, "89 s"), (90, "1.5 min"), (599, "10.0 min"), (600, "10 min")),
    *((5399, "90 min"), (5400, "1.5 h"), (86400, "24 h"), (129_600, "1.5 days"), (8_640_000, "100 days")),
  ],
)
def test_times_have_two_or_three_digits(seconds, words):
  assert duration(seconds) == words
