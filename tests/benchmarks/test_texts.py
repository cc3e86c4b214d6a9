from benchmarks.texts import read_lines


def test_documents_of_a_file_are_its_lines_its_texts_or_its_first_column(tmp_path):
  for name, content in {
    "a.txt": "one\ttwo\n\nthree\u2028four\n",
    "a.tsv": "one\ttwo\nthree\n",
    "a.jsonl": '{"text": "one", "id": 1}\n{"text": "two"}\n',
  }.items():
    (tmp_path / name).write_text(content, encoding="utf-8")
  assert read_lines(tmp_path / "a.txt") == ["one\ttwo", "three\u2028four"]
  assert read_lines(tmp_path / "a.tsv") == ["one", "three"]
  assert read_lines(tmp_path / "a.jsonl") == ["one", "two"]
