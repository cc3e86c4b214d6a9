"""A folder appears whole, and what stood in its place is lost only to one that stands there."""

from pathlib import Path

import pytest

from pipeline.model.whole_folder import whole_folder
from transforms.errors import EncoderError


def write(target, text):
  with whole_folder(target) as new:
    new.mkdir()
    (new / "file").write_text(text)


def found(parent):
  """Every file below a folder, hidden ones too, with its content."""
  return {str(path.relative_to(parent)): path.read_text() for path in parent.rglob("*") if path.is_file()}


def test_a_folder_is_made_with_its_parents_and_replaced(tmp_path):
  for text in ("one", "two"):
    write(tmp_path / "a" / "b", text)
    assert found(tmp_path) == {"a/b/file": text} and [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), EncoderError("the self-test"), OSError(28, "No space left")])
def test_a_block_that_fails_changes_nothing(tmp_path, failure):
  write(tmp_path / "b", "before")
  with pytest.raises((KeyboardInterrupt, EncoderError)), whole_folder(tmp_path / "b") as new:
    new.mkdir()
    raise failure
  assert found(tmp_path) == {"b/file": "before"} and [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(5, "Input/output error")])
def test_what_stood_there_comes_back_when_the_second_of_two_moves_fails(tmp_path, monkeypatch, failure):
  write(tmp_path / "b", "before")
  rename = Path.rename

  def fail_on_the_new(path, target):
    if path.name == "new":
      raise failure
    return rename(path, target)

  monkeypatch.setattr(Path, "rename", fail_on_the_new)
  with pytest.raises((KeyboardInterrupt, EncoderError)):
    write(tmp_path / "b", "after")
  assert found(tmp_path) == {"b/file": "before"} and [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_the_file_system_refuses_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(EncoderError, match=r"file/b: cannot be written \((Not a directory|File exists)\); give a new"):
    write(tmp_path / "file" / "b", "text")
  with (
    pytest.raises(EncoderError, match=r"b: cannot be written \(two lines\); give"),
    whole_folder(tmp_path / "b", ZeroDivisionError),
  ):
    raise ZeroDivisionError("two\nlines")
