import pytest

from benchmarks.paper import SIZES, Paper, size, table
from pipeline.options import EmbedOptions
from pipeline.planning import choose_bits
from tests.conftest import REPOSITORY
from tests.run_parts import make_plan
from transforms.input_files import InputFile, cut_slices


def test_the_page_has_the_table_that_the_script_prints():
  assert table() in (REPOSITORY / "docs/scaling.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("n", SIZES.values())
def test_slices_buckets_and_parts_are_those_of_the_code(tmp_path, n):
  paper, options = Paper(n), EmbedOptions(inputs=("a",), encoder="e", dataset="d", threads=1)
  assert paper.bits == choose_bits(options, paper.text_bytes, 1)
  assert paper.id_parts == 1 << make_plan(tmp_path, bits=paper.bits).id_bits
  file = InputFile("/in/a", "a", paper.text_bytes, "", "text", None, paper.text_bytes)
  assert paper.slices == len(cut_slices([file]))


def test_a_flush_sends_each_bucket_a_block_while_there_are_rows_enough():
  assert Paper(10**6).blocks == pytest.approx(64 * 10**6 / 94_254, rel=0.01)  # rows of a flush of 32 MiB
  assert Paper(10**10).blocks < 65_536 * 10**10 / 94_254


@pytest.mark.parametrize(
  ("value", "shown"), [(0, "0.0 B"), (999, "999 B"), (1000, "1.0 kB"), (9949, "9.9 kB"), (10**14, "100 TB")]
)
def test_sizes(value, shown):
  assert size(value) == shown
