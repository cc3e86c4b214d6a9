import pytest

from tests.reading import read_all, read_bytes, reasons, verdicts
from transforms.input_files import ReadOptions, list_files
from transforms.rows import Row


def test_csv(tmp_path):
  data = '\ufeffid,text,lang\r\n1,"two\r\nlines, ""quoted""",en\r\n\r\n2,5" pipe,\r\n007,last,de'.encode()
  rows = read_bytes(tmp_path, "a.csv", data, id_column="id", keep_columns=("lang",))
  assert rows == [
    Row(17, "1", 'two\nlines, "quoted"', ("en",)),
    Row(50, "2", '5" pipe', ("",)),
    Row(62, "007", "last", ("de",)),
  ]


@pytest.mark.parametrize(
  ("broken", "detail"),
  [
    (b'2,"nobody closes this', "unexpected end of data"),
    (b'2,"closed" too early', "',' expected after '\"'"),
  ],
)
def test_a_broken_quote_costs_one_line(tmp_path, broken, detail):
  data = b"id,text\n1,a\n" + broken + b"\n3,c\n4,d\n"
  rows = read_bytes(tmp_path, "a.csv", data)
  assert verdicts(rows) == [
    (12, "unclosed quote", detail) if row[0] == 12 else row
    for row in [(8, "a"), (12, ""), (13 + len(broken), "c"), (17 + len(broken), "d")]
  ]


def test_an_unclosed_quote_before_quoted_records(tmp_path):
  rows = read_bytes(tmp_path, "a.csv", b'id,text\n1,"open\n2,"b"\n3,"c\nc"\n')
  assert [row.text for row in rows] == ['1,"open', "b", "c\nc"]
  assert reasons(rows) == ["unclosed quote", None, None]


def test_an_unclosed_quote_is_given_up_after_a_mebibyte(tmp_path):
  filler = b"5,filler line\n" * 100_000
  rows = read_bytes(tmp_path, "a.csv", b'id,text\n1,"open\n' + filler + b'6,"end"\n')
  assert rows[0].detail == "no closing quote in the next 1048576 bytes"
  assert len(rows) == 100_002 and rows[-1].text == "end"


def test_csv_that_is_rejected(tmp_path):
  data = b'id,text\n1,a,b\n2\n3,\xff\n4,"\xff\n\xfe"\n,e\n6,\0\n7,g\n'
  rows = read_bytes(tmp_path, "a.csv", data, id_column="id")
  assert verdicts(rows) == [
    (8, "wrong number of fields", "3 instead of 2"),
    (14, "wrong number of fields", "1 instead of 2"),
    (16, "invalid bytes", "byte 2: ff is not utf-8"),
    (20, "invalid bytes", "byte 3: ff is not utf-8"),
    (28, "empty id", "column 'id'"),
    (31, "NUL character", "character 0"),
    (35, "g"),
  ]
  assert rows[3].text == '4,"\\xff\n\\xfe"'


def test_tsv_has_no_quotes(tmp_path):
  data = b'id\ttext\n1\t"open\n2\tb "c" d\n3\tx\ty\n'
  rows = read_bytes(tmp_path, "a.tsv", data, id_column="id")
  assert verdicts(rows) == [(8, '"open'), (16, 'b "c" d'), (26, "wrong number of fields", "3 instead of 2")]


def test_without_a_header_columns_are_numbers(tmp_path):
  data = b'\xff,x\n1,"a"\n2,b,c\n3,d\n'
  rows = read_bytes(tmp_path, "a.csv", data, header=False, id_column="1", text_columns=("2",))
  assert verdicts(rows) == [
    (0, "invalid bytes", "byte 0: ff is not utf-8"),
    (4, "a"),
    (10, "wrong number of fields", "3 instead of 2"),
    (16, "d"),
  ]


def test_a_later_csv_file_without_the_column_is_rejected_row_by_row(tmp_path):
  (tmp_path / "a.csv").write_text("id,text\n1,a\n")
  (tmp_path / "b.csv").write_text("id,body\n2,b\n3,c\n")
  options = ReadOptions()
  rows = read_all(list_files([f"{tmp_path}/*.csv"], options), options)
  detail = "column 'text'; the file's are: id, body"
  assert verdicts(rows) == [(8, "a"), (8, "missing column", detail), (12, "missing column", detail)]
