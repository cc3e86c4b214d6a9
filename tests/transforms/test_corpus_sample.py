import pytest

from transforms.corpus_sample import sample_texts
from transforms.digests import digest
from transforms.errors import UsageError
from transforms.input_types import ReadOptions


def write(folder, texts, shards):
  folder.mkdir()
  for i in range(shards):
    (folder / f"{i}.txt").write_text("".join(f"{text}\n" for text in texts[i::shards]))
  return [f"{folder}/*.txt"]


def test_the_sample_does_not_depend_on_the_order_of_files_or_lines_nor_on_repeats(tmp_path):
  texts = [f"text {i}" for i in range(5000)]
  expected = sorted(texts, key=digest)[:40]
  assert sample_texts(write(tmp_path / "a", texts, 3), ReadOptions(), 40) == expected
  assert sample_texts(write(tmp_path / "b", [*texts[::-1], *texts], 2), ReadOptions(), 40) == expected


def test_of_few_texts_all_are_taken(tmp_path):
  assert sorted(sample_texts(write(tmp_path / "a", ["b", "a", "b"], 1), ReadOptions(), 9)) == ["a", "b"]


def test_columns_are_taken_as_embed_takes_them_and_bad_lines_left_out(tmp_path):
  (tmp_path / "a.jsonl").write_text('{"title": "t", "body": "b"}\nno json\n')
  options = ReadOptions(text_columns=("title", "body"))
  assert sample_texts([str(tmp_path / "a.jsonl")], options, 9) == ["t\nb"]


def test_a_corpus_without_a_text_is_refused(tmp_path):
  with pytest.raises(UsageError, match="has no text; give files with a text a line, or --text-column"):
    sample_texts(write(tmp_path / "a", [], 1), ReadOptions(), 9)
