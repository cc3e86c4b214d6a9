"""A remote encoder's files as several processes of a host read them, from a server that counts."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.encoder_server import serving
from tests.processes import wait_for
from transforms import encoder_files
from transforms.encoder_files import read_bytes, read_checked
from transforms.errors import EncoderError
from transforms.storage import sha256

GRAPH = os.urandom(12 << 20)  # several blocks of whatever reads it


@pytest.fixture
def server(tmp_path, monkeypatch):
  """A folder with one file, and a cache of its own for whoever reads it."""
  monkeypatch.setenv("SORBUS_CACHE", str(tmp_path / "cache"))
  (tmp_path / "encoder").mkdir()
  (tmp_path / "encoder" / "encoder.pb").write_bytes(GRAPH)
  with serving(tmp_path / "encoder") as running:
    yield running


def start(server):
  command = [sys.executable, "-m", "tests.encoder_reader", server.url, "encoder.pb", sha256(GRAPH)]
  return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_start_together_fetch_once(server):
  server.seconds = 1.0  # longer than they start apart
  processes = [start(server) for _ in range(4)]
  assert [process.communicate(timeout=300)[0].strip() for process in processes] == [sha256(GRAPH)] * 4
  assert server.fetched == {"encoder.pb": 1}


def test_a_fetcher_that_was_killed_leaves_nothing_that_is_trusted(server, tmp_path):
  server.stalled.set()
  first = start(server)
  wait_for(lambda: server.fetched["encoder.pb"] == 1, "the first one fetches")
  second = start(server)  # waits for the lock
  time.sleep(0.5)
  assert server.fetched["encoder.pb"] == 1
  first.send_signal(signal.SIGKILL)
  server.stalled.clear()
  assert second.communicate(timeout=300)[0].strip() == sha256(GRAPH)
  assert first.wait() == -signal.SIGKILL and server.fetched["encoder.pb"] == 2
  names = sorted(path.name for path in (tmp_path / "cache/encoders").iterdir())
  assert names == sorted([sha256(GRAPH), "lock"])


def test_what_the_server_has_now_is_read_and_what_it_should_have_is_kept(server):
  path = server.folder / "encoder.pb"
  assert read_checked(server.url, "encoder.pb", sha256(GRAPH)) == GRAPH
  path.write_bytes(b"another encoder")
  assert read_bytes(server.url, "encoder.pb") == b"another encoder"
  assert read_checked(server.url, "encoder.pb", sha256(GRAPH)) == GRAPH  # as long as encoder.json asks for it
  assert read_checked(server.url, "encoder.pb", sha256(b"another encoder")) == b"another encoder"
  wanted = sha256(b"neither")
  with pytest.raises(EncoderError) as caught:
    read_checked(server.url, "encoder.pb", wanted)
  assert str(caught.value) == (
    f"{server.url}/encoder.pb: sha256 {sha256(b'another encoder')[:12]}, but encoder.json says {wanted[:12]}; it was "
    "changed, or cut on its way: try again, or freeze again"
  )


def test_what_is_not_there_or_does_not_answer_is_told_in_one_line(server):
  for read in (lambda name: read_bytes(server.url, name), lambda name: read_checked(server.url, name, sha256(GRAPH))):
    with pytest.raises(
      EncoderError, match=r"/encoder/other: not there; an encoder folder is what `sorbus freeze` writes$"
    ):
      read("other")
  server.stop()
  with pytest.raises(
    EncoderError, match=r"^http://.*/encoder.pb: (cannot be read \(.*\)|not there); an encoder folder"
  ):
    read_bytes(server.url, "encoder.pb")


def test_an_encoder_for_which_there_are_no_credentials_says_how_to_give_them(monkeypatch):
  botocore = pytest.importorskip("botocore.exceptions", reason="needs s3fs, which is not installed")

  def without(*_):
    raise botocore.NoCredentialsError

  monkeypatch.setattr(encoder_files, "file_system", without)
  with pytest.raises(
    EncoderError, match=r"^s3://b/e/encoder.json: no credentials for it .*; set AWS_ACCESS_KEY_ID and "
  ):
    read_bytes("s3://b/e", "encoder.json")


def test_a_local_folder_is_used_in_place(tmp_path, monkeypatch):
  monkeypatch.setenv("SORBUS_CACHE", str(tmp_path / "cache"))
  (tmp_path / "encoder.pb").write_bytes(GRAPH)
  for url in (str(tmp_path), f"{tmp_path}/", f"file://{tmp_path}"):
    assert read_checked(url, "encoder.pb", sha256(GRAPH)) == read_bytes(url, "encoder.pb") == GRAPH
  assert not (tmp_path / "cache").exists()
  with pytest.raises(EncoderError, match=r"^/.*/encoder.pb: sha256 .* it was changed: freeze again$"):
    read_checked(str(tmp_path), "encoder.pb", sha256(b""))


def test_a_secret_is_not_asked_with():
  with pytest.raises(EncoderError, match=r"^https://\*\*\*@host/e/encoder.json: has a secret in it, which would be"):
    read_bytes("https://me:pa55@host/e", "encoder.json")
