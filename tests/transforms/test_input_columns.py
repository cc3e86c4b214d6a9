import pytest

from transforms.errors import UsageError
from transforms.input_columns import check_columns
from transforms.input_types import InputFile, ReadOptions


def refusal(format, columns, **options):
  file = InputFile(f"/in/a.{format}", f"a.{format}", 10, "", format, None, 10)
  with pytest.raises(UsageError) as error:
    check_columns(file, columns, ReadOptions(**options))
  return str(error.value)


def test_columns_that_are_there_once_are_right():
  file = InputFile("/in/a.csv", "a.csv", 10, "", "csv", None, 10)
  check_columns(file, ["id", "text", "lang", "lang"], ReadOptions(id_column="id"))


@pytest.mark.parametrize(
  ("format", "options", "message"),
  [
    ("jsonl", {}, "a.jsonl has no column 'text'; its columns are: id, body; name it with --text-column"),
    ("parquet", {}, "a.parquet has no column 'text'; its columns are: id, body; name it with --text-column"),
    (
      "tsv",
      {},
      "a.tsv has no column 'text'; its columns are: id, body; name it with --text-column, or give --no-header if its "
      "first line is a document already",
    ),
    (
      "jsonl",
      {"text_columns": ("body",), "id_column": "key"},
      "a.jsonl has no column 'key'; its columns are: id, body; name it with --id-column",
    ),
    (
      "jsonl",
      {"text_columns": ("body",), "keep_columns": ("k",)},
      "a.jsonl has no column 'k'; its columns are: id, body; name it with --keep-columns",
    ),
  ],
)
def test_a_column_that_is_missing_is_told_with_the_flag_that_names_it(format, options, message):
  assert refusal(format, ["id", "body"], **options) == message


def test_without_a_header_columns_are_numbers():
  assert refusal("csv", ["1", "2", "3"], header=False) == (
    "a.csv has no column 'text'; its columns are: 1, 2, 3; name it by its number: --text-column 1"
  )


def test_a_column_that_is_there_twice_is_refused():
  assert refusal("csv", ["text", "text"]) == (
    "a.csv has more than one column 'text'; its columns are: text, text; rename all but one of them"
  )


def test_documents_in_the_place_of_names_stay_one_short_line():
  message = refusal("csv", ["a long\nline " * 50] * 500)
  assert "its columns are: a long line a long line a lon…, a long" in message and "… and 488 more; name" in message
  assert "\n" not in message and len(message) < 600
