"""The cache itself; what several processes do to it is in test_encoder_files.py."""

import os
import threading
import time

import pytest

from transforms.encoder_cache import EncoderCache, WrongBytesError
from transforms.errors import EncoderError
from transforms.storage import sha256

A, B = b"a graph" * 1000, b"another one"


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("SORBUS_CACHE", str(tmp_path / "cache"))
  return EncoderCache.here()


def kept(cache):
  return sorted(path.name for path in cache.folder.iterdir() if path.name != "lock")


def never():
  raise AssertionError("nothing should be fetched")


def test_a_file_is_fetched_once_and_named_by_its_content(cache):
  pieces = [A[:10], A[10:]]
  assert cache.read(sha256(A), lambda: pieces) == A
  assert cache.read(sha256(A), never) == EncoderCache.here().read(sha256(A), never) == A
  assert kept(cache) == [sha256(A)]


def test_the_folder_and_what_is_in_it_are_ours_alone(cache, tmp_path):
  assert cache.folder == tmp_path / "cache/encoders"
  assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_what_was_damaged_is_fetched_again(cache):
  cache.read(sha256(A), lambda: [A])
  for damaged in (A[:-1], b"", A.replace(b"a", b"b", 1)):
    (cache.folder / sha256(A)).write_bytes(damaged)
    with pytest.raises(AssertionError, match="nothing should be fetched"):
      cache.read(sha256(A), never)
    assert cache.read(sha256(A), lambda: [A]) == cache.read(sha256(A), never) == A


def test_wrong_bytes_are_not_kept(cache):
  with pytest.raises(WrongBytesError, match=f"^{sha256(B)}$"):
    cache.read(sha256(A), lambda: [B])
  assert kept(cache) == []
  assert cache.read(sha256(A), lambda: [A]) == A


def test_what_fails_on_its_way_leaves_nothing(cache):
  def cut():
    yield A[:10]
    raise EncoderError("no more")

  with pytest.raises(EncoderError, match=r"^no more$"):
    cache.read(sha256(A), cut)
  assert kept(cache) == []


def test_a_half_that_a_killed_process_left_is_not_trusted_and_goes(cache):
  for name in (sha256(A), sha256(B)):
    (cache.folder / f"{name}.part").write_bytes(A[:10])
  assert cache.read(sha256(A), lambda: [A]) == A
  assert kept(cache) == [sha256(A)]


def test_of_threads_that_ask_at_once_one_fetches(cache):
  fetched, found, barrier = [], [], threading.Barrier(4)

  def fetch():
    fetched.append(1)
    time.sleep(0.1)
    return [A]

  def ask():
    barrier.wait()
    found.append(cache.read(sha256(A), fetch))

  threads = [threading.Thread(target=ask) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert fetched == [1] and found == [A] * 4


def test_what_was_used_least_recently_is_not_kept_for_good(cache, monkeypatch):
  monkeypatch.setattr("transforms.encoder_cache.KEPT_BYTES", 25)
  files = [bytes([i]) * 10 for i in range(4)]
  for age, data in ((300, files[0]), (200, files[1])):
    cache.read(sha256(data), lambda data=data: [data])
    os.utime(cache.folder / sha256(data), (time.time() - age,) * 2)
  cache.read(sha256(files[0]), never)  # in use again
  cache.read(sha256(files[2]), lambda: [files[2]])
  assert kept(cache) == sorted(sha256(data) for data in (files[0], files[2]))
  large = b"x" * 100
  cache.read(sha256(large), lambda: [large])
  assert kept(cache) == [sha256(large)]  # what is fetched stays, however large


@pytest.mark.parametrize("sha", ["", "../../x", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_what_is_no_sha256_is_no_path(cache, sha):
  with pytest.raises(EncoderError, match=r"^encoder\.json states .* for a sha256; freeze again$"):
    cache.read(sha, never)


def test_a_folder_that_others_may_write_to_is_refused(cache):
  for mode in (0o770, 0o702):
    cache.folder.chmod(mode)
    with pytest.raises(
      EncoderError, match=r"/encoders: may be written by others, and encoders are programs; remove it"
    ):
      EncoderCache.here()
  cache.folder.chmod(0o755)
  EncoderCache.here()


def test_a_folder_of_somebody_else_is_refused(cache, monkeypatch):
  monkeypatch.setattr(os, "geteuid", lambda: cache.folder.stat().st_uid + 1)
  with pytest.raises(EncoderError, match=r"/encoders: belongs to user \d+, not to us \(\d+\), and encoders are"):
    EncoderCache.here()


def test_a_link_is_refused(cache, tmp_path):
  cache.folder.rename(tmp_path / "elsewhere")
  cache.folder.symlink_to(tmp_path / "elsewhere")
  with pytest.raises(EncoderError, match="/encoders: is a link, and encoders are programs"):
    EncoderCache.here()


def test_where_it_is_unless_it_is_said(tmp_path, monkeypatch):
  monkeypatch.delenv("SORBUS_CACHE", raising=False)
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setenv("HOME", str(tmp_path))
  assert EncoderCache.here().folder == tmp_path / ".cache/sorbus/encoders"
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
  assert EncoderCache.here().folder == tmp_path / "xdg/sorbus/encoders"
  (tmp_path / "file").write_bytes(b"")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a home that is none, as containers have it
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
  assert EncoderCache.here().folder == tmp_path / f"sorbus-encoders-{os.geteuid()}"


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
  (tmp_path / "file").write_bytes(b"")
  monkeypatch.setenv("SORBUS_CACHE", str(tmp_path / "file"))
  with pytest.raises(
    EncoderError, match=r"/file/encoders: an encoder cannot be kept there \(Not a directory\); make room"
  ):
    EncoderCache.here()


def test_a_full_disk_is_told_in_one_line(cache, monkeypatch):
  def full():
    yield A
    raise OSError(28, "No space left on device")

  with pytest.raises(
    EncoderError, match=r"an encoder cannot be kept there \(No space left on device\); make room or set"
  ):
    cache.read(sha256(A), full)
  assert kept(cache) == []
