from benchmarks.sweep import Rounds


def test_the_ratio_is_taken_round_by_round():
  found = Rounds(passes=[1.0, 2.0, 4.0], sweeps=[3.0, 2.0, 6.0], scores=[0.5, 0.25, 0.75], lines=9).describe()
  assert found["ratio"] == {"median": 1.5, "low": 1.0, "high": 3.0}
  assert found["pass"]["median"] == 2 and found["sweep"]["median"] == 3 and found["of_these_scores"]["median"] == 0.5
  assert found["lines"] == 9 and found["rounds"] == 3
