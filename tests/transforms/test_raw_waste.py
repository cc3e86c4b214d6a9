"""What of raw files is dead, and which are rewritten: by hand, without a file."""

import numpy as np
import pytest

from transforms import raw_waste
from transforms.raw_waste import HeldFile, RawFile, choose_files, find_roots, find_waste

LARGE = raw_waste.SMALL_BYTES


def digests(letters):
  return np.array([letter.encode() * 16 for letter in letters], "S16")


def held(**files):
  """Files named all-<key>-0 with a letter for each text."""
  return [HeldFile(f"all-{key}-0", LARGE, digests(letters)) for key, letters in sorted(files.items())]


def waste(live, **files):
  """{key: (rows, dead, the group's key or None)}."""
  found = find_waste(held(**files), digests(sorted(live)))
  return {f.name[4:-2]: (f.rows, f.dead, f.group and f.group[4:-2]) for f in found}


def test_a_row_is_dead_if_its_text_is():
  assert waste("acd", r1="abc", r2="de") == {"r1": (3, 1, None), "r2": (2, 1, None)}
  assert waste("", r1="abc") == {"r1": (3, 3, None)}
  assert waste("a") == {}


def test_a_row_is_dead_if_a_file_before_has_its_text_and_both_belong_together():
  assert waste("abcd", r1="ab", r2="bc", r3="d") == {"r1": (2, 0, "r1"), "r2": (2, 1, "r1"), "r3": (1, 0, None)}


def test_of_many_texts_in_two_files_the_first_keeps_all():
  many = np.sort(np.random.default_rng(0).integers(0, 1 << 60, (1000, 2)).view("S16")[:, 0])
  both = [HeldFile(f"all-{key}-0", LARGE, many) for key in ("r1", "r2")]
  assert [file.dead for file in find_waste(both, np.unique(many))] == [0, 1000]


def test_files_that_share_texts_by_way_of_others_are_one_group():
  found = waste("abcdef", r1="ab", r2="cd", r3="ef", r4="da", r5="e")
  assert {key: group for key, (_, _, group) in found.items()} == {
    "r1": "r1",
    "r2": "r1",
    "r3": "r3",
    "r4": "r1",
    "r5": "r3",
  }


def test_a_text_twice_in_one_file_is_a_repeat_too():
  assert waste("ab", r1="aab") == {"r1": (3, 1, "r1")}


def test_a_dead_text_binds_no_files():
  assert waste("a", r1="ax", r2="x") == {"r1": (2, 1, None), "r2": (1, 1, None)}


def raw(name, *, bytes=LARGE, rows=100, dead=0, group=None):
  return RawFile(f"{name}-r-0", bytes, rows, dead, group)


def chosen(files, bits=1, protected=()):
  return [f.name.removesuffix("-r-0") for f in choose_files(files, bits, lambda name: name in protected)]


def test_more_than_a_fifth_dead_is_rewritten():
  assert chosen([raw("0", dead=20), raw("1", dead=21)]) == ["1"]
  assert chosen([raw("0", rows=4, dead=1)]) == ["0"]


def test_small_files_are_merged_where_there_are_more_than_eight():
  eight = [raw(f"0{i:03b}", bytes=LARGE - 1) for i in range(8)]
  assert chosen(eight) == []
  assert chosen([*eight, raw("01111")]) == []
  assert chosen([*eight, raw("01111", bytes=1)]) == [*(f"0{i:03b}" for i in range(8)), "01111"]
  assert chosen([*eight, raw("1000", bytes=1)]) == []


def test_what_a_rewrite_leaves_counts_as_a_small_file():
  eight = [raw(f"0{i:03b}", bytes=1) for i in range(8)]
  assert len(chosen([*eight, raw("0", dead=50)])) == 9
  assert chosen([*eight, raw("0", dead=100)]) == ["0"]
  # `all` goes for what is in 1, and leaves one too many in 0.
  nine = [raw(f"1{i:03b}", bytes=1) for i in range(8)]
  assert len(chosen([*eight, *nine[:1], raw("all", dead=50)])) == 9


def test_files_of_a_group_are_always_rewritten():
  assert chosen([raw("0", group="g"), raw("01", group="g"), raw("1")]) == ["0", "01"]


def test_what_is_protected_stays_and_so_does_what_shares_a_text_with_it():
  files = [raw("0", dead=100), raw("00", dead=50, group="g"), raw("01", group="g"), raw("1", dead=100)]
  assert chosen(files, protected={"0-r-0", "01-r-0"}) == ["1"]


def test_protected_small_files_do_not_count():
  files = [raw(f"0{i:03b}", bytes=1) for i in range(8)] + [raw("01111", bytes=1)]
  assert chosen(files, protected={"01111-r-0"}) == []


@pytest.mark.parametrize(
  ("names", "bits", "expected"),
  [
    (["00", "01", "10"], 2, ["00", "01", "10"]),
    (["00", "0", "10"], 2, ["0", "10"]),
    (["all", "10"], 2, ["all"]),
    (["0010", "0011", "0100"], 2, ["00", "01"]),
    (["0010"], 0, ["all"]),
    (["1", "01", "011"], 3, ["01", "1"]),
    ([], 2, []),
  ],
)
def test_roots_share_no_digest_and_are_no_finer_than_new_files(names, bits, expected):
  assert [root.name for root in find_roots(names, bits)] == expected
  assert all(any(root.overlaps(name) for root in find_roots(names, bits)) for name in names)
