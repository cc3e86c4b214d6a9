import pytest

from tests.run_parts import make_plan


@pytest.mark.parametrize(("bits", "expected"), [(0, 0), (3, 3), (6, 6), (12, 6), (13, 7), (16, 10)])
def test_a_part_of_all_ids_has_as_many_as_64_buckets_have_rows_at_most(tmp_path, bits, expected):
  assert make_plan(tmp_path, bits=bits).id_bits == expected
  assert bits - expected <= 6
