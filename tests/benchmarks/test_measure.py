import benchmarks.measure
from benchmarks.measure import add_results, machine, read_results


def test_an_entry_is_written_beside_those_that_are_there(tmp_path, monkeypatch):
  monkeypatch.setattr(benchmarks.measure, "RESULTS", tmp_path)
  assert read_results("padding") == {}
  add_results("padding", "shares", "a.txt", {"ours": 1})
  add_results("padding", "shares", "b.txt", {"ours": 2})
  add_results("padding", "shares", "a.txt", {"ours": 3})
  assert read_results("padding") == {"machine": machine(), "shares": {"a.txt": {"ours": 3}, "b.txt": {"ours": 2}}}
