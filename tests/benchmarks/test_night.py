import itertools

from benchmarks.night import changed_each_night


def test_each_night_edits_one_in_a_hundred_and_others_than_the_nights_before():
  corpora = [[f"text {i}" for i in range(250)]]
  corpora += changed_each_night(corpora[0], nights=3)
  edited = [{i for i in range(250) if old[i] != new[i]} for old, new in itertools.pairwise(corpora)]
  assert [len(rows) for rows in edited] == [2, 2, 2] and len(set().union(*edited)) == 6
  assert len(set(corpora[-1])) == 250
