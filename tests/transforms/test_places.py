import subprocess
import sys

import pytest

from transforms.errors import UsageError
from transforms.places import file_system, is_local


def test_paths_and_urls(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for url, path in (("a/b", f"{tmp_path}/a/b"), ("/a::b", "/a::b"), ("file:///a/b", "/a/b"), ("memory://a/b", "/a/b")):
    fs, found = file_system(url)
    assert found == path and is_local(fs) == (not url.startswith("memory"))


BARE = """
import sys
sys.modules.update(s3fs=None, gcsfs=None)  # as where they are not installed
from transforms.encoder_spec import read_spec
from transforms.errors import UsageError
from transforms.input_files import ReadOptions, list_files
from transforms.storage import Storage
for protocol in ("s3", "gs"):
  url = f"{protocol}://bucket/a"
  asks = [lambda: read_spec(url), *(lambda u=u: list_files([u], ReadOptions()) for u in (url, f"zip://x::{url}"))]
  for ask in asks + ([lambda: Storage.at(url).read("b")] if protocol == "s3" else []):
    try:
      ask()
    except UsageError as error:
      print(error)
"""


def test_a_missing_package_is_told_with_what_installs_it():
  said = subprocess.run([sys.executable, "-c", BARE], check=True, capture_output=True, text=True).stdout.splitlines()
  starts = [f"{before}s3://bucket/a" for before in ("", "", "zip://x::")] + ["a dataset on s3://"]
  starts += [f"{before}gs://bucket/a" for before in ("", "", "zip://x::")]
  assert len(said) == len(starts)
  for line, start in zip(said, starts, strict=True):
    assert line.startswith(start) and f"pip install 'sorbus[{'gcs' if 'gs://' in start else 's3'}]'" in line


def test_what_is_no_place():
  with pytest.raises(UsageError, match=r"^s4://b/a: cannot be opened \(Protocol not known: s4\); is it spelt right\?$"):
    file_system("s4://b/a")
  with pytest.raises(UsageError, match=r"^http://\*\*\*@host/a: has a secret in it"):
    file_system("http://me:pa55@host/a")
