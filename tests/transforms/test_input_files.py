import dataclasses
import gzip
import os
import pickle
import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.errors import InputFileError, UsageError
from transforms.input_files import ReadOptions, Slice, cut_slices, keep_schema, limit_slices, list_files
from transforms.input_source import with_retries
from transforms.rows import read_slice


def write(path, data=b"a\nb\n"):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)
  return path


def names(*patterns, **options):
  return [file.name for file in list_files([f"{pattern}" for pattern in patterns], ReadOptions(**options))]


def write_parquet(path, **columns):
  pq.write_table(pa.table(columns), path, row_group_size=2)


@pytest.fixture
def memory():
  fs = fsspec.filesystem("memory")
  yield fs
  fs.store.clear()


# --- options


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"text_columns": ()}, "no text column is given: --text-column names one"),
    ({"text_columns": ("a", "a")}, "--text-column names 'a' twice: name each column once"),
    ({"keep_columns": ("a", "b", "a")}, "--keep-columns names 'a' twice: name each column once"),
    ({"format": "xml"}, "unknown format 'xml': choose one of text, jsonl, csv, tsv, parquet"),
    ({"encoding": "utf9"}, "unknown encoding 'utf9': use a name that Python knows, such as utf-8 or gb18030"),
    ({"encoding": "hex"}, "unknown encoding 'hex': use a name that Python knows, such as utf-8 or gb18030"),
    *(
      (
        {"encoding": name},
        f"encoding {name!r} cannot be cut into lines: convert the files first (iconv -f {name} -t UTF-8)",
      )
      for name in ("utf-16", "UTF-16-LE", "utf-32", "utf-7", "cp037", "unicode_escape")
    ),
  ],
)
def test_options_that_cannot_be_right(options, message):
  with pytest.raises(UsageError) as error:
    ReadOptions(**options)
  assert str(error.value) == message


@pytest.mark.parametrize("name", ["utf-8", "gb18030", "gbk", "big5", "euc-kr", "cp932", "latin-1", "cp1252", "koi8-r"])
def test_encodings_that_can_be_cut_into_lines(name):
  ReadOptions(encoding=name)


def test_a_byte_order_mark_is_no_matter_of_the_encoding():
  assert ReadOptions(encoding="UTF-8-SIG").encoding == "utf-8"


def test_columns_are_text_id_and_kept_each_once():
  options = ReadOptions(text_columns=("b", "a"), id_column="id", keep_columns=("a", "c", "id"))
  assert options.columns == ("b", "a", "id", "c")


def test_the_plan_travels_to_workers(tmp_path):
  write_parquet(tmp_path / "a.parquet", text=["x"], n=[1])
  options = ReadOptions(keep_columns=("n",))
  files = list_files([f"{tmp_path}"], options)
  assert pickle.loads(pickle.dumps((files, options, cut_slices(files)))) == (files, options, cut_slices(files))


# --- what is listed


def test_files_are_listed_by_name_with_what_they_are(tmp_path):
  write(tmp_path / "b.JSONL.gz", gzip.compress(b'{"text": "x"}\n'))
  write(tmp_path / "a.txt")
  write(tmp_path / "sub" / "part-00000")
  files = list_files([f"{tmp_path}/*", f"{tmp_path}/sub/*"], ReadOptions())
  assert [(file.name, file.format, file.compression, file.size, file.text_bytes) for file in files] == [
    ("a.txt", "text", None, 4, 4),
    ("b.JSONL.gz", "jsonl", "gzip", files[1].size, 4 * files[1].size),
    ("sub/part-00000", "text", None, 4, 4),
  ]
  assert files[0].url == f"{tmp_path}/a.txt"
  assert files[0].version == str(os.stat(tmp_path / "a.txt").st_mtime)  # noqa: PTH116


@pytest.mark.parametrize(
  ("name", "format", "compression"),
  [
    ("a.txt", "text", None),
    ("a", "text", None),
    ("a.log.bz2", "text", "bz2"),
    ("a.ndjson.zst", "jsonl", "zstd"),
    ("a.json", "jsonl", None),
    ("a.csv.gz", "csv", "gzip"),
    ("a.TSV", "tsv", None),
  ],
)
def test_the_name_tells_the_format(tmp_path, name, format, compression):
  write(tmp_path / name, b"")
  file = list_files([f"{tmp_path}/{name}"], ReadOptions())[0]
  assert (file.format, file.compression) == (format, compression)


def test_the_option_overrules_the_name(tmp_path):
  write(tmp_path / "a.txt", b'{"text": "x"}\n')
  assert list_files([f"{tmp_path}/a.txt"], ReadOptions(format="jsonl"))[0].format == "jsonl"


def test_names_are_relative_to_the_folder_that_all_patterns_share(tmp_path):
  for name in ("x/1.txt", "x/y/2.txt", "z/3.txt", "xy/4.txt"):
    write(tmp_path / name)
  assert names(tmp_path / "x/*.txt") == ["1.txt"]
  assert names(tmp_path / "x/1.txt") == ["1.txt"]
  assert names(tmp_path / "x") == ["1.txt", "y/2.txt"]
  assert names(f"{tmp_path}/x/") == ["1.txt", "y/2.txt"]
  assert names(tmp_path / "x/*.txt", tmp_path / "x/y/*.txt") == ["1.txt", "y/2.txt"]
  assert names(tmp_path / "x/*.txt", tmp_path / "z/3.txt") == ["x/1.txt", "z/3.txt"]
  assert names(tmp_path / "x/*.txt", tmp_path / "xy/*.txt") == ["x/1.txt", "xy/4.txt"]
  assert names(f"{tmp_path}/*/*.txt") == ["x/1.txt", "xy/4.txt", "z/3.txt"]
  assert names(f"{tmp_path}/**/*.txt") == ["x/1.txt", "x/y/2.txt", "xy/4.txt", "z/3.txt"]
  assert names(f"{tmp_path}/x/../z/*.txt") == ["3.txt"]


def test_relative_paths(tmp_path, monkeypatch):
  write(tmp_path / "x/1.txt")
  monkeypatch.chdir(tmp_path)
  assert names("x/*.txt") == names("./x/1.txt") == names("x") == ["1.txt"]
  assert list_files(["x/1.txt"], ReadOptions())[0].url == f"{tmp_path}/x/1.txt"


def test_a_file_that_is_matched_twice_counts_once(tmp_path):
  write(tmp_path / "a.txt")
  write(tmp_path / "b.txt")
  assert names(tmp_path / "*.txt", tmp_path / "a.txt", f"file://{tmp_path}/b.txt", tmp_path) == ["a.txt", "b.txt"]


def test_a_folder_gives_its_files_with_known_endings(tmp_path):
  for name in ("a.txt", "b.csv.gz", "_SUCCESS", ".a.txt.crc", "_tmp/c.txt", "notes.md", "sub/d.txt"):
    write(tmp_path / name, gzip.compress(b"id,text\n") if name.endswith("gz") else b"x\n")
  assert names(tmp_path) == ["a.txt", "b.csv.gz", "sub/d.txt"]
  assert names(tmp_path, format="text") == ["a.txt", "b.csv.gz", "notes.md", "sub/d.txt"]
  assert names(tmp_path / "*.md") == ["notes.md"]


def test_a_file_name_may_look_like_a_glob(tmp_path):
  write(tmp_path / "a[1].txt")
  assert names(tmp_path / "a[1].txt") == ["a[1].txt"]


def test_several_file_systems_have_whole_urls_for_names(tmp_path, memory):
  memory.pipe("/in/b.txt", b"x\n")
  write(tmp_path / "a.txt")
  assert names("memory://in/*.txt") == ["b.txt"]
  assert names("memory://in/*.txt", tmp_path / "*") == [f"{tmp_path}/a.txt", "memory:///in/b.txt"]


def test_a_remote_file_is_read_and_held_to_its_listing(memory):
  memory.pipe("/in/a.txt", b"one\ntwo\n")
  options = ReadOptions()
  file = list_files(["memory://in/a.txt"], options)[0]
  rows = [row for piece in cut_slices([file], 3) for row in read_slice(file, 0, piece, options)]
  assert [(row.doc_id, row.text) for row in rows] == [("a.txt#0", "one"), ("a.txt#4", "two")]
  memory.pipe("/in/a.txt", b"one\nTWO\n")  # of the same size
  with pytest.raises(InputFileError, match="changed since it was listed"):
    list(read_slice(file, 0, Slice(0), options))


def test_a_chain_of_file_systems(tmp_path):
  with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
    archive.writestr("in/a.txt", "one\n")
  options = ReadOptions()
  for pattern in (f"zip://in/*.txt::file://{tmp_path}/a.zip", f"simplecache::file://{tmp_path}/*.zip"):
    file = list_files([pattern], dataclasses.replace(options, format="text"))[0]
    with fsspec.open(file.url, "rb") as stream:
      assert len(stream.read()) == file.size


# --- links, and other ways to one file


def link(path, target):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.symlink_to(target)


def rows_of(file):
  return [(row.doc_id, row.text) for row in read_slice(file, 0, Slice(0), ReadOptions())]


def test_links_to_files_are_files(tmp_path):
  write(tmp_path / "blobs/6b86b2", b"one\n")
  link(tmp_path / "snapshot/a.txt", "../blobs/6b86b2")  # a cache of downloads
  write(tmp_path / "mount/..2024/b.txt", b"two\n")
  link(tmp_path / "mount/..data", "..2024")
  link(tmp_path / "mount/b.txt", "..data/b.txt")  # a volume of a cluster
  for pattern in ("snapshot", "snapshot/*", "snapshot/a.txt"):
    assert names(tmp_path / pattern) == ["a.txt"]
  assert names(tmp_path / "mount") == names(tmp_path / "mount/*") == ["b.txt"]
  files = list_files([f"{tmp_path}/*/?.txt"], ReadOptions())
  assert [file.name for file in files] == ["mount/b.txt", "snapshot/a.txt"]
  assert [rows_of(file) for file in files] == [[("mount/b.txt#0", "two")], [("snapshot/a.txt#0", "one")]]


def test_links_to_folders_are_followed_where_they_are_named(tmp_path):
  write(tmp_path / "in/a.txt")
  write(tmp_path / "other/b.txt")
  link(tmp_path / "in/linked.txt", "../other")
  assert names(tmp_path / "in", format="text") == names(tmp_path / "in/*") == ["a.txt"]
  assert names(tmp_path / "in/linked.txt") == names(tmp_path / "in/linked.txt/*") == ["b.txt"]


def test_a_linked_file_is_held_to_its_target(tmp_path):
  targets = [write(tmp_path / name, b"one\n") for name in ("1", "2")]
  for target, seconds in zip(targets, (1_000, 2_000), strict=True):
    os.utime(target, (seconds, seconds))
  link(tmp_path / "a.txt", "1")
  file = list_files([f"{tmp_path}/*.txt"], ReadOptions())[0]
  assert (file.size, file.version) == (4, "1000.0")
  (tmp_path / "a.txt").unlink()
  link(tmp_path / "a.txt", "2")
  with pytest.raises(InputFileError, match=r"a\.txt changed since it was listed"):
    rows_of(file)


@pytest.mark.parametrize("pattern", ["in", "in/*", "in/*.txt"])
def test_a_link_to_nothing_is_named(tmp_path, pattern):
  write(tmp_path / "in/a.txt")
  link(tmp_path / "in/b.txt", "../gone")
  with pytest.raises(UsageError) as error:
    names(tmp_path / pattern)
  assert str(error.value) == "b.txt is a link to ../gone, where nothing is: mend it or remove it"


def test_a_file_with_several_names_is_read_once_under_the_lowest(tmp_path):
  write(tmp_path / "ina/x.txt")
  write(tmp_path / "inb/y.txt")
  link(tmp_path / "inc", "ina")
  ways = ("inc/x.txt", "inb/../ina/x.txt", "/ina//x.txt", "./ina/*", "inc", "inc/../ina")
  assert names(*(f"{tmp_path}/{way}" for way in ways)) == ["ina/x.txt"]
  assert names(*(f"{tmp_path}/{way}" for way in ("inb", *ways))) == ["ina/x.txt", "inb/y.txt"]
  assert names(f"/{tmp_path}/ina/x.txt", tmp_path / "inb") == ["ina/x.txt", "inb/y.txt"]


def test_up_from_a_link_is_up_from_its_target(tmp_path):
  write(tmp_path / "far/x.txt", b"far\n")
  write(tmp_path / "near/x.txt", b"near\n")
  (tmp_path / "far/in").mkdir()
  link(tmp_path / "near/in", "../far/in")
  assert rows_of(list_files([f"{tmp_path}/near/in/../*.txt"], ReadOptions())[0]) == [("x.txt#0", "far")]


def test_a_local_name_may_look_like_a_chain_of_file_systems(tmp_path):
  write(tmp_path / "in::1/a::b.txt", b"one\n")
  for pattern in ("in::1", "in::1/a::b.txt", "*/*.txt"):
    file = list_files([f"{tmp_path}/{pattern}"], ReadOptions())[0]
    assert [text for _, text in rows_of(file)] == ["one"]


# --- what is refused


@pytest.mark.parametrize("pattern", ["none.txt", "*.none", "none/*.txt", "only-folders/*", "no-known", "[x].txt"])
def test_a_pattern_without_a_match_is_named(tmp_path, pattern):
  write(tmp_path / "a.txt")
  write(tmp_path / "only-folders/b/c.txt")
  write(tmp_path / "no-known/readme.md")
  with pytest.raises(UsageError) as error:
    list_files([f"{tmp_path}/a.txt", f"{tmp_path}/{pattern}"], ReadOptions())
  assert str(error.value) == (
    f"no file matches {tmp_path}/{pattern}: check the path, or quote the pattern against the shell"
  )


def test_an_unknown_protocol_is_named():
  with pytest.raises(UsageError, match=r"^nosuch://a/b: cannot be opened \(Protocol not known: nosuch\)"):
    list_files(["nosuch://a/b"], ReadOptions())


@pytest.mark.parametrize(
  ("name", "data", "options", "message"),
  [
    ("a.txt.xz", b"x", {}, "a.txt.xz cannot be read: convert it to text, JSONL, CSV, TSV or Parquet"),
    ("a.parquet.gz", b"x", {}, "a.parquet.gz is a compressed Parquet file: decompress it"),
    ("a.txt", b"x", {"id_column": "id"}, "a.txt is read as plain text, which has the column 'text' only, not 'id'"),
    (
      "a.log",
      b"x",
      {"text_columns": ("body",)},
      "a.log is read as plain text, which has the column 'text' only, not 'body'",
    ),
    ("a.csv", b"id,body\n1,x\n", {}, "a.csv has no column 'text'; its columns are: id, body"),
    ("a.csv", b"text,text\n1,x\n", {}, "a.csv has more than one column 'text'; its columns are: text, text"),
    ("a.csv", b"id,text\n1,x\n", {"header": False}, "a.csv has no column 'text'; its columns are: 1, 2"),
    ("a.tsv", b"id\ttext\n", {"id_column": "key"}, "a.tsv has no column 'key'; its columns are: id, text"),
    (
      "a.jsonl",
      b'{"id": 1, "text": "x"}',
      {"keep_columns": ("k",)},
      "a.jsonl has no column 'k'; its columns are: id, text",
    ),
  ],
)
def test_what_cannot_be_right_is_said_before_any_work(tmp_path, name, data, options, message):
  write(tmp_path / name, data)
  with pytest.raises(UsageError) as error:
    list_files([f"{tmp_path / name}"], ReadOptions(**options))
  assert str(error.value).startswith(message)


def test_input_for_which_there_are_no_credentials_is_not_asked_for_again():
  botocore = pytest.importorskip("botocore.exceptions", reason="needs s3fs, which is not installed")
  pauses = []

  def ask():
    raise botocore.NoCredentialsError

  with pytest.raises(UsageError, match=r"^s3://b/\*: no credentials for it .*; set AWS_ACCESS_KEY_ID and ") as error:
    with_retries("s3://b/*", ask, sleep=pauses.append)
  assert pauses == [] and "--allow-bad-files" not in str(error.value)


@pytest.mark.parametrize("url", ["memory://in/*.txt", "memory://in/a.txt", "memory://in"])
def test_a_place_that_cannot_be_listed_is_no_bad_file(monkeypatch, url):
  def unreachable(*_):
    raise ConnectionError("no route")

  monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "info", unreachable)
  with pytest.raises(InputFileError) as error:
    list_files([url], ReadOptions(allow_bad_files=True), sleep=lambda seconds: None)
  assert str(error.value) == (
    f"{url} cannot be read (ConnectionError: no route): is it spelt right, and can this machine reach it?"
  )


def test_the_first_lines_of_jsonl_have_the_columns_together(tmp_path):
  write(tmp_path / "a.jsonl", b'{"id": 1}\nno json\n{"text": "x", "lang": "en"}\n')
  assert names(tmp_path / "a.jsonl", id_column="id", keep_columns=("lang",)) == ["a.jsonl"]


@pytest.mark.parametrize(
  ("columns", "options", "message"),
  [
    ({"body": ["x"]}, {}, "has no column 'text'; its columns are: body"),
    ({"text": [1]}, {}, "column 'text' of a.parquet is int64: a text column must be of strings"),
    ({"text": [b"x"]}, {}, "column 'text' of a.parquet is binary: a text column must be of strings"),
    (
      {"text": ["x"], "id": [1.0]},
      {"id_column": "id"},
      "column 'id' of a.parquet is double: ids must be strings or integers",
    ),
    ({"text": ["x"], "k": [b"x"]}, {"keep_columns": ("k",)}, "column 'k' of a.parquet is binary: bytes cannot be kept"),
  ],
)
def test_every_parquet_footer_is_looked_at(tmp_path, columns, options, message):
  write_parquet(tmp_path / "a.parquet", **columns)
  with pytest.raises(UsageError) as error:
    list_files([f"{tmp_path}/a.parquet"], ReadOptions(**options))
  assert message in str(error.value) and "a.parquet" in str(error.value)


def test_a_damaged_file_ends_the_listing_or_is_left_to_be_counted(tmp_path):
  write(tmp_path / "a.parquet", b"PAR1 damaged PAR1")
  write(tmp_path / "b.jsonl.gz", gzip.compress(b'{"text": "x"}')[:-5])
  for name in ("a.parquet", "b.jsonl.gz"):
    with pytest.raises(InputFileError, match=rf"^{name} .*--allow-bad-files"):
      names(tmp_path / name)
  options = ReadOptions(allow_bad_files=True, keep_columns=())
  files = list_files([f"{tmp_path}/*"], options)
  assert cut_slices(files) == [Slice(0), Slice(1)]
  for index, file in enumerate(files):
    with pytest.raises(InputFileError):
      list(read_slice(file, index, Slice(index), options))


# --- the kept columns' types


def schema_of(folder, *keep):
  options = ReadOptions(keep_columns=keep)
  return keep_schema(list_files([f"{folder}/*"], options), options)


def test_parquet_files_that_agree_keep_their_types(tmp_path):
  for name in ("a", "b"):
    columns = {"n": [1], "f": [1.5], "b": [True], "tags": [["x"]], "large": pa.array(["x"], pa.large_string())}
    times = {"ns": pa.array([1], pa.timestamp("ns", "UTC")), "day": pa.array([1], pa.date32())}
    write_parquet(tmp_path / f"{name}.parquet", text=["x"], **columns, **times)
  assert schema_of(tmp_path, "day", "n", "f", "b", "tags", "large", "ns") == pa.schema(
    [
      ("day", pa.date32()),
      ("n", pa.int64()),
      ("f", pa.float64()),
      ("b", pa.bool_()),
      ("tags", pa.string()),
      ("large", pa.string()),
      ("ns", pa.timestamp("us", "UTC")),
    ]
  )


def test_otherwise_kept_columns_are_strings(tmp_path):
  write_parquet(tmp_path / "a.parquet", text=["x"], n=[1], m=[1])
  write_parquet(tmp_path / "b.parquet", text=["x"], n=[1.5], m=[1])
  assert schema_of(tmp_path, "n", "m") == pa.schema([("n", pa.string()), ("m", pa.int64())])
  write(tmp_path / "c.jsonl", b'{"text": "x", "n": 1, "m": 2}')
  assert schema_of(tmp_path, "n", "m") == pa.schema([("n", pa.string()), ("m", pa.string())])
  assert schema_of(tmp_path) == pa.schema([])


# --- slices


def test_text_and_jsonl_are_cut_and_the_rest_is_not(tmp_path):
  write(tmp_path / "a.txt", b"0123456789")
  write(tmp_path / "b.jsonl", b'{"text":1}')
  write(tmp_path / "c.csv", b"id,text\n1,2\n")
  write(tmp_path / "d.tsv", b"id\ttext\n")
  write(tmp_path / "e.txt.gz", gzip.compress(b"x\n" * 100))
  write(tmp_path / "f.txt", b"")
  files = list_files([f"{tmp_path}/*"], ReadOptions())
  assert cut_slices(files, 4) == [
    *(Slice(0, 0, 4), Slice(0, 4, 8), Slice(0, 8, 10)),
    *(Slice(1, 0, 4), Slice(1, 4, 8), Slice(1, 8, 10)),
    *(Slice(2), Slice(3), Slice(4)),
  ]


def test_parquet_is_cut_between_row_groups(tmp_path):
  write_parquet(tmp_path / "a.parquet", text=[f"{i}" + "x" * 999 for i in range(9)])
  write_parquet(tmp_path / "b.parquet", text=pa.array([], pa.string()))
  options = ReadOptions()
  files = list_files([f"{tmp_path}/*"], options)
  assert 2000 < files[0].row_groups[0].text_bytes < 4100  # the pages' statistics have the least and the greatest text
  assert cut_slices(files, 1) == [Slice(0, i, i + 1) for i in range(5)]
  assert cut_slices(files, 9000) == [Slice(0, 0, 2), Slice(0, 2, 4), Slice(0, 4, 5)]
  assert cut_slices(files) == [Slice(0, 0, 5)]
  for slice_bytes in (1, 9000, 1 << 20):
    rows = [
      r for piece in cut_slices(files, slice_bytes) for r in read_slice(files[piece.file], piece.file, piece, options)
    ]
    assert [row.position for row in rows] == list(range(9))
    assert [row.text[0] for row in rows] == list("012345678")


def test_a_limit_takes_the_first_documents_in_the_order_of_files_and_positions(tmp_path):
  write(tmp_path / "a.txt", b"a\nb\n\xff\nd\n")
  write_parquet(tmp_path / "b.parquet", text=["e", "f", "g"])
  write(tmp_path / "c.txt", b"h\n")
  options = ReadOptions()
  files = list_files([f"{tmp_path}/*"], options)
  slices = cut_slices(files, 4)
  assert limit_slices(files, slices, 3, options) == [Slice(0, 0, 4), Slice(0, 4, 8, limit=1)]
  assert limit_slices(files, slices, 5, options) == [Slice(0, 0, 4), Slice(0, 4, 8), Slice(1, 0, 1, limit=1)]
  assert limit_slices(files, slices, 100, options) == slices
  for n in range(1, 9):
    limited = limit_slices(files, slices, n, options)
    texts = [row.text for piece in limited for row in read_slice(files[piece.file], piece.file, piece, options)]
    assert texts == ["a", "b", "\\xff", "d", "e", "f", "g", "h"][:n]
  with pytest.raises(UsageError, match="a limit of 0 documents leaves nothing to read"):
    limit_slices(files, slices, 0, options)


def test_a_limit_and_a_bad_file(tmp_path):
  write(tmp_path / "a.txt.gz", gzip.compress(b"a\n")[:-5])
  write(tmp_path / "b.txt", b"b\nc\n")
  options = ReadOptions(allow_bad_files=True)
  files = list_files([f"{tmp_path}/*"], options)
  assert limit_slices(files, cut_slices(files), 1, options) == [Slice(0), Slice(1, 0, 4, limit=1)]
  with pytest.raises(InputFileError):
    limit_slices(files, cut_slices(files), 1, ReadOptions())
