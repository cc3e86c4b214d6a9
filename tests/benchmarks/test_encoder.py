"""What the share of the limit is made of, counted by hand."""

import numpy as np
import pytest

from benchmarks.encoder import Work, multiplying, product, read_texts, shapes
from tests.fake_encoder import make_spec

WORK = Work([(np.zeros((2, 3), np.int32), np.zeros((2, 3), np.int32))], np.array([3, 1]))


def test_operations_are_those_of_real_tokens_and_of_attention_within_each_text():
  config = make_spec(["a"], hidden_size=2, max_seq_length=8).config  # H = 2, inner 1
  dense, attention = 4 * 2 * (4 * 2 * 2 + 2 * 2 * 1), (3 * 3 + 1 * 1) * 2 * 2 * 2
  assert WORK.matrix_flops(config, 1) == dense + attention
  assert WORK.matrix_flops(config, 3) == 3 * (dense + attention)
  assert WORK.padding == pytest.approx(1 / 3)


def test_the_matrices_are_those_of_the_dense_layers():
  assert list(shapes(make_spec(["a"], 2, 8).config).values()) == [(2, 6), (2, 2), (2, 1), (1, 2)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_are_computed_and_timed(precision):
  run = product(4, 3, 2, precision, 1)
  assert np.isfinite(float(run())) and float(run()) != 0
  assert multiplying(run)() > 0


def test_texts_come_from_files_a_line_each(tmp_path):
  (tmp_path / "a.txt").write_text("one\ntwo\n")
  assert read_texts([f"mine={tmp_path / 'a.txt'}"]) == {"mine": ["one", "two"]}
