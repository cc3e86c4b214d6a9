import gzip

import numpy as np
import pytest

from transforms.errors import UsageError
from transforms.pairs import Pairs, read_pairs


def read(tmp_path, text, name="pairs.csv", **how):
  path = tmp_path / name
  data = text.encode()
  path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
  return read_pairs(str(path), **how)


def rows(pairs):
  return list(zip(pairs.first, pairs.second, pairs.scores.tolist(), strict=True))


def refused(tmp_path, text, name="pairs.csv", **how):
  with pytest.raises(UsageError) as error:
    read(tmp_path, text, name, **how)
  return str(error.value).removeprefix(f"{tmp_path}/")


JSON = '{"score": 0.25, "sentence2": "f", "sentence1": "é", "x": 1}'


@pytest.mark.parametrize(
  ("name", "text", "how"),
  [
    ("as-sts-b.csv", 'a b,"c, d",5.0\né,f,0.25\n', {}),
    ("bom.csv", '\ufeffa b,"c, d",5.0\r\né,f,0.25', {}),
    ("header.csv", 'left,right,how much\na b,"c, d",5\né,f,.25\n', {}),
    ("glue.tsv", "index\tsentence1\tsentence2\tscore\n7\ta b\tc, d\t5\n8\té\tf\t0.25\n", {}),
    ("more.tsv", "a b\tc, d\tx\t5\né\tf\ty\t0.25\n", {}),
    ("named.csv", 'id,y,b,a,2\n1,5,"c, d",a b,9\n2,.25,f,é,9\n', {"columns": ["a", "b", "y"]}),
    ("numbers.tsv", "news\t5\ta b\tc, d\t9\nnews\t0.25\té\tf\t9\n", {"columns": ["3", "4", "2"]}),
    ("any.txt", "a b\tc, d\t5\né\tf\t0.25\n", {"format": "tsv"}),
    ("small.tsv.gz", "a b\tc, d\t5\né\tf\t0.25\n", {}),
    ("a.jsonl", '{"sentence1": "a b", "sentence2": "c, d", "score": 5}\n\n' + JSON, {}),
    ("b.ndjson", '{"y": "5", "a": "a b", "b": "c, d"}\n{"y": 0.25, "a": "é", "b": "f"}', {"columns": ["a", "b", "y"]}),
  ],
)
def test_pairs_of_every_layout(tmp_path, name, text, how):
  assert rows(read(tmp_path, text, name, **how)) == [("a b", "c, d", 5.0), ("é", "f", 0.25)]


def test_a_quoted_text_may_go_over_lines_and_the_next_error_still_has_its_line(tmp_path):
  text = 'a,"b\nc",5\nd,e,f\n'
  assert refused(tmp_path, text) == (
    "pairs.csv, line 3: the score 'f' is no number; name the columns with --columns FIRST SECOND SCORE, or mend it"
  )


@pytest.mark.parametrize("score", ["nan", "inf", "", "1_0", "five", "1,5"])
def test_what_is_no_number_is_named_with_file_and_line(tmp_path, score):
  message = refused(tmp_path, f"a\tb\t1\nc\td\t{score}\n", "p.tsv")
  assert message.startswith(f"p.tsv, line 2: the score {score!r} is no number; ")


@pytest.mark.parametrize(
  ("name", "text", "how", "message"),
  [
    ("p.csv", "a,b,1\nc,d\n", {}, "line 2: 2 fields where the first line has 3: a broken line, or a comma that"),
    ("p.csv", "i,a,b,y\n1,2,3,x\n", {}, "line 1: no column 'sentence1'; its columns are: i, a, b, y; name three"),
    ("p.csv", "a,b\n", {}, "line 1: no column 'sentence1'; its columns are: a, b; name three"),
    ("p.csv", "a,b,1\n", {"columns": ["1", "2", "4"]}, "line 1: --columns 1 2 4: there are 3 columns, 1 to 3"),
    ("p.csv", "a,b,1\n", {"columns": ["0", "1", "2"]}, "line 1: --columns 0 1 2: there are 3 columns, 1 to 3"),
    ("p.csv", "a,b,1\n", {"columns": ["x", "b", "1"]}, "line 1: no column 'x'; its columns are: a, b, 1; name three"),
    ("p.csv", 'a,b,1\n"c,d,2\n', {}, "line 2: unclosed quote ("),
    ("p.jsonl", '{"sentence1": "a"}\n', {}, "line 1: no 'sentence2'; its keys are: sentence1; name three of them"),
    ("p.jsonl", '{"sentence1": 1, "sentence2": "b", "score": 1}\n', {}, "line 1: 1 is no text; name the columns"),
    ("p.jsonl", '{"sentence1": "a", "sentence2": "b", "score": null}\n', {}, "line 1: the score None is no number"),
    ("p.jsonl", "\n[1]\n", {}, "line 2: not an object (it is list); mend the line"),
  ],
)
def test_a_line_that_is_no_pair_is_refused(tmp_path, name, text, how, message):
  assert refused(tmp_path, text, name, **how).startswith(f"{name}, {message}")


def test_files_that_cannot_be_read_as_pairs(tmp_path):
  assert refused(tmp_path, "a\n", "p.txt").endswith(
    "p.txt: its ending does not tell how it is read; give --format csv, tsv or jsonl"
  )
  assert refused(tmp_path, "", "p.csv") == "p.csv: has no pair; give a file with two texts and a score a line"
  assert refused(tmp_path, "a,b,score\n", "p.csv").startswith("p.csv: has no pair")
  with pytest.raises(UsageError, match="no file matches"):
    read_pairs(str(tmp_path / "none.csv"))
  (tmp_path / "q.csv").write_text("a,b,1\n")
  with pytest.raises(UsageError, match=r"\d files; name one"):
    read_pairs(str(tmp_path / "*.csv"))


def test_labels_are_zeros_and_ones_and_both():
  def binary(*scores):
    return Pairs("p", ("a",) * len(scores), ("b",) * len(scores), np.array(scores, float)).are_binary

  assert binary(0, 1, 1) and not binary(1, 1) and not binary(0, 1, 2) and not binary(0.5, 0, 1)


def test_some_of_the_pairs():
  pairs = Pairs("p", ("a", "b", "c"), ("d", "e", "f"), np.array([1.0, 2.0, 3.0]))
  for chosen in (np.array([0, 2]), np.array([True, False, True])):
    assert rows(pairs.select(chosen)) == [("a", "d", 1.0), ("c", "f", 3.0)]
  assert len(pairs.select(np.zeros(3, bool))) == 0


def test_sts_b_as_it_is_published(shared_data):
  pairs = read_pairs(str(shared_data / "sts/stsb/stsb-en-dev.csv"))
  assert len(pairs) == 1500 and (pairs.scores.min(), pairs.scores.max()) == (0.0, 5.0)
  assert rows(pairs)[1] == ("A young child is riding a horse.", "A child is riding a horse.", 4.75)
  assert len(read_pairs(str(shared_data / "sts/stsb/stsb-zh-dev.csv"))) == 1500
