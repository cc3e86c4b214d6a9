import numpy as np
import pytest

from pipeline.forecast import (
  Costs,
  Count,
  Seconds,
  Work,
  count_documents,
  cut_batches,
  cut_lots,
  fit_line,
  forecast,
  padding_share,
)


def test_what_was_read_whole_is_counted():
  assert count_documents(np.array([3, 5]), np.array([10.0, 20.0]), 30, is_whole=True) == Count(8, 0)
  assert count_documents(np.array([], int), np.array([]), 0, is_whole=True) == Count(0, 0)


def test_even_pieces_leave_no_doubt_and_one_piece_leaves_all():
  assert count_documents(np.array([5, 10]), np.array([100.0, 200.0]), 6000, is_whole=False) == Count(300, 0)
  assert count_documents(np.array([5]), np.array([100.0]), 6000, is_whole=False) == Count(300, 300)


def test_the_margin_by_hand():
  # ratio 0.1; residuals -2 and 2; variance of the mean (4 + 4) / (2 × 1); half of the bytes unread
  found = count_documents(np.array([8, 12]), np.array([100.0, 100.0]), 400, is_whole=False)
  assert found == Count(40, round(1.96 * np.sqrt(0.5 * 8 / 2) / 100 * 400))


def test_the_margin_holds_the_truth_about_as_often_as_it_says():
  generator = np.random.default_rng(0)
  corpus = generator.poisson(generator.uniform(20, 400, 500))  # documents of each of 500 equal pieces
  hits = 0
  for _ in range(200):
    seen = generator.choice(500, 40, replace=False)
    found = count_documents(corpus[seen], np.full(40, 64.0), 500 * 64, is_whole=False)
    hits += abs(found.number - corpus.sum()) <= found.margin
  assert 180 <= hits <= 200


def test_a_whole_sample_is_dealt_as_the_run_deals_it():
  lots = cut_lots(5, 5, 4, np.array([2, 0, 2, 3, 0]))
  assert [lot.tolist() for lot in lots] == [[1, 4], [0, 2], [3]]


def test_lots_of_a_part_are_as_large_as_buckets_will_be():
  lots = cut_lots(100, 64_000, 64)
  assert [len(lot) for lot in lots] == [1000] * 8 and max(lot.max() for lot in lots) < 100
  assert len(cut_lots(100, 3000, 2)) == 2 and cut_lots(0, 0, 2) == []


def test_batches_and_their_padding():
  lengths = np.array([9, 3, 3, 10])
  batches = cut_batches(lengths, [np.array([0, 1]), np.array([2, 3, 3])], token_budget=20)
  assert [sorted(rows.tolist()) for rows in batches] == [[0, 1], [2], [3, 3]] or len(batches) >= 3
  assert [int(lengths[rows].max()) for rows in batches] == sorted(int(lengths[rows].max()) for rows in batches)
  assert sorted(int(i) for rows in batches for i in rows) == [0, 1, 2, 3, 3]
  assert padding_share(lengths, [np.array([0, 3]), np.array([1, 2])]) == pytest.approx(1 / 26)
  assert padding_share(lengths, []) == 0


def test_a_line_through_two_trials():
  assert fit_line((500, 3.0), (2500, 7.0)) == (2.0, 0.002)
  assert fit_line((500, 3.0), (500, 7.0)) == (3.0, 0.0)  # the same documents twice tell nothing of one
  assert fit_line((500, 3.0), (2500, 2.0)) == (3.0, 0.0)
  assert fit_line((500, 1.0), (1000, 4.0)) == (0.0, 0.006)


def test_a_forecast_by_hand():
  work = Work(documents=1000, computed_tokens=10_000, text_bytes=5000, waves=3)
  costs = Costs(loading=7, wave=1, finish=2, per_document=0.01, per_text_byte=0.001, per_token=0.02)
  assert forecast(work, costs) == Seconds(loading=7, encoding=200, rest=3 * 1 + 2 + 10 + 2 * 5)
  assert forecast(work, costs).total == 232
  # Each of several machines loads and starts as one does.
  assert forecast(work, costs, workers=4) == Seconds(loading=7, encoding=50, rest=3 * 1 + 2 + 5)
