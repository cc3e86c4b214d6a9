from pathlib import Path

import numpy as np
import pytest

from benchmarks.measure import read_results
from benchmarks.precision import spearman, table

NUMERICS = Path(__file__).parents[2] / "docs" / "numerics.md"


def test_the_page_has_the_tables_of_the_results():
  page = NUMERICS.read_text(encoding="utf-8")
  for each in table(read_results("precision")["precisions"]).split("\n\n"):
    assert each in page, "as `python -m benchmarks.precision` prints it"


def test_ranks_are_correlated_and_equal_numbers_share_theirs():
  assert spearman(np.array([1.0, 2, 30]), np.array([4.0, 5, 6])) == pytest.approx(1)
  assert spearman(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(np.sqrt(3) / 2)
