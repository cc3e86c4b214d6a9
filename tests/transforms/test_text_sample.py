import gzip

import pytest

from tests.tiny_bert import VOCABULARY
from transforms.errors import UsageError
from transforms.text_sample import Sample, TokenRates, measure, read_sample
from transforms.wordpiece import TokenizerSettings, Wordpiece


@pytest.mark.parametrize("ending", ["", ".txt", ".txt.gz"])
def test_the_first_texts_of_a_file(tmp_path, ending):
  data = b"one\ntwo\r\n\xff\nthree\nfour"
  path = tmp_path / f"texts{ending}"
  path.write_bytes(gzip.compress(data) if ending.endswith(".gz") else data)
  assert read_sample(Sample(str(path))) == ["one", "two", "three", "four"]  # without the line that is not UTF-8
  assert read_sample(Sample(f"file://{path}"), 3) == ["one", "two", "three"]


def test_documents_in_json_lines_too(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text('{"text": "one", "title": "1"}\n{"text": "two", "title": "2"}\n')
  assert read_sample(Sample(str(path))) == ["one", "two"]
  assert read_sample(Sample(str(path), ("title",))) == ["1", "2"]
  with pytest.raises(UsageError, match="has no column 'body'; its columns are: text, title"):
    read_sample(Sample(str(path), ("body",)))


def test_a_file_without_a_text_is_refused(tmp_path):
  (tmp_path / "empty.txt").write_bytes(b"")
  with pytest.raises(UsageError, match=r"empty.txt: has no text; give a file with a text a line"):
    read_sample(Sample(str(tmp_path / "empty.txt")))
  with pytest.raises(UsageError, match="no file matches"):
    read_sample(Sample(str(tmp_path / "none.txt")))


def test_what_a_tokenizer_makes_of_texts():
  wordpiece = Wordpiece(VOCABULARY, TokenizerSettings(False, False), 6)
  # Four tokens fit. "Rain" is [UNK] with its capital, and so is "é".
  texts = ["the rain", "Rain", " ", "the sun and the rain", "é é é é é"]
  assert measure(texts, wordpiece) == TokenRates(texts=5, tokens=2 + 1 + 0 + 4 + 4, unknown=5, truncated=2, empty=1)
