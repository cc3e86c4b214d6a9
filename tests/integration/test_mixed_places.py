"""Input, encoder and dataset each in another place: the same rows to the bit as with all of them on this machine."""

import os
import uuid
from pathlib import Path

import fsspec
import pytest

from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.search import Searcher
from tests.encoder_server import serving
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import NIGHT, embed_fake, made_up_texts, write_shards
from tests.integration.test_object_store import published_rows
from tests.integration.test_operations import commands, run
from tests.object_store import BUCKET, SECRET
from transforms.encoder_spec import SPEC_FILE, read_spec
from transforms.input_files import ReadOptions
from transforms.object_storage import service

TEXTS = ["the rain", "the sun and rain", "a tree in it", "not he but she", "she had it", "of that tree", "it was rain"]
FAKE_TEXTS = made_up_texts(40)
FAKE = FakeEncoder(make_vocabulary(FAKE_TEXTS), 16)
PASSWORD = "pa55-word"


def put(folder, url):
  """Copies the files of a local folder to an object store."""
  for path in Path(folder).iterdir():
    service(os.getpid()).ask(lambda fs, path=path: fs.put_file(str(path), f"{url}/{path.name}"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("SORBUS_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache" / "encoders"


@pytest.fixture
def bucket(proxy):
  """A place on the object store."""
  return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def inputs(tmp_path):
  """A folder of two shards."""
  return write_shards(tmp_path / "input", TEXTS, 2)


def embed_real(inputs, encoder, dataset):
  command = [*NIGHT, "--input", *map(str, inputs), "--encoder", encoder, "--dataset", str(dataset)]
  assert main([*command, "--id-column", "id", "--threads", "1", "--n-components", "4"]) == 0
  return published_rows(str(dataset))


def test_a_real_encoder_and_its_input_from_three_places(bucket, inputs, tiny_encoder, tmp_path, cache, proxy):
  here = embed_real([inputs], tiny_encoder, tmp_path / "local")
  assert here.num_rows == len(TEXTS) and not cache.exists()
  put(inputs, f"{bucket}/input")
  put(tiny_encoder, f"{bucket}/encoder")
  assert embed_real([f"{bucket}/input/*.jsonl"], f"{bucket}/encoder", tmp_path / "mixed").equals(here)
  spec = read_spec(tiny_encoder)
  assert {path.name for path in cache.iterdir()} == {spec.graph_sha256, spec.vocab_sha256, "lock"}
  assert embed_real([inputs], f"{bucket}/encoder/", f"{bucket}/dataset").equals(here)
  assert Searcher.open(f"{bucket}/dataset").search("the rain", 1)[0].doc_id == "000000"
  with serving(inputs) as shards, serving(Path(tiny_encoder)) as encoder:
    urls = [f"{shards.url}/{path.name}" for path in sorted(inputs.iterdir())]
    assert embed_real(urls, encoder.url, f"{bucket}/from-http").equals(here)
    assert set(encoder.fetched) == {SPEC_FILE}  # graph and vocabulary are on this host already


def test_the_fake_from_memory_to_a_bucket(bucket, tmp_path):
  options = {"read": ReadOptions(id_column="id"), "n_components": 8, "buckets": 1, "threads": 1}
  inputs = write_shards(tmp_path / "input", FAKE_TEXTS, 3)
  embed_fake(FAKE, tmp_path / "local", inputs, **options)
  here = published_rows(str(tmp_path / "local"))
  memory = f"/{uuid.uuid4().hex}"
  for path in inputs.iterdir():
    fsspec.filesystem("memory").pipe(f"{memory}/{path.name}", path.read_bytes())
  embed_fake(FAKE, f"{bucket}/from-memory", f"memory:/{memory}", **options)
  assert published_rows(f"{bucket}/from-memory").equals(here)


def test_an_encoder_that_was_changed_is_noticed_whatever_was_listed_before(
  bucket, inputs, tiny_encoder, other_encoder, tmp_path, capsys
):
  put(tiny_encoder, f"{bucket}/encoder")
  embed_real([inputs], f"{bucket}/encoder", tmp_path / "dataset")
  fsspec.filesystem("s3").ls(f"{bucket}/encoder", detail=True)  # which it remembers
  put(other_encoder, f"{bucket}/encoder")
  assert read_spec(f"{bucket}/encoder") == read_spec(other_encoder) != read_spec(tiny_encoder)
  command = [*NIGHT, "--input", str(inputs), "--encoder", f"{bucket}/encoder", "--dataset", str(tmp_path / "dataset")]
  assert main([*command, "--id-column", "id"]) == 2
  assert "--new-encoder" in capsys.readouterr().err


def test_the_credentials_stand_nowhere(bucket, inputs, tiny_encoder, capfd, caplog):
  put(inputs, f"{bucket}/input")
  put(tiny_encoder, f"{bucket}/encoder")
  command = [*NIGHT, "--input", f"{bucket}/input", "--encoder", f"{bucket}/encoder", "--dataset", f"{bucket}/dataset"]
  command += ["--id-column", "id", "--threads", "1", "--n-components", "4"]
  assert main([*command, "-v"]) == 0
  assert (
    main([*command[: command.index("--encoder") + 1], f"{bucket}/no-such-encoder", "--dataset", f"{bucket}/none"]) == 2
  )
  assert main(["show", f"{bucket}/dataset", "--json"]) == 0
  out, err = capfd.readouterr()
  assert "published" in out and "no-such-encoder/encoder.json: not there" in err
  assert SECRET not in out + err + caplog.text
  storage = Dataset.open(f"{bucket}/dataset").storage
  files = storage.walk("")
  assert {path.rpartition("/")[2] for path in files} >= {"plan.json", "manifest.json", "dataset.json"}
  assert not [path for path in files if SECRET.encode() in storage.read(path)]


def test_all_of_it_on_google_cloud_storage(gcs, inputs, tiny_encoder, tmp_path, cache):
  """In one bucket, and dataset or encoder here."""
  here = embed_real([inputs], tiny_encoder, tmp_path / "local")
  place = f"gs://{BUCKET}/{uuid.uuid4().hex}"
  fs = fsspec.filesystem("gs")
  for folder, name in ((inputs, "input"), (tiny_encoder, "encoder")):
    for path in Path(folder).iterdir():
      fs.pipe_file(f"{place}/{name}/{path.name}", path.read_bytes())
  assert embed_real([f"{place}/input/*.jsonl"], f"{place}/encoder", f"{place}/dataset").equals(here)
  assert len(list(cache.iterdir())) == 3
  assert embed_real([f"{place}/input"], tiny_encoder, tmp_path / "mixed").equals(here)
  for command in ("verify", "show", "gc"):
    assert main([command, f"{place}/dataset"]) == 0
  assert main(["search", f"{place}/dataset", "the rain", "-k", "1"]) == 0
  again = [*NIGHT, "--input", f"{place}/input/*.jsonl", "--encoder", f"{place}/encoder"]
  again += ["--dataset", f"{place}/dataset", "--id-column", "id", "--threads", "1", "--n-components", "4"]
  assert main(again) == 0
  assert len(Dataset.open(f"{place}/dataset").run_ids()) == 1  # unchanged
  assert main(["rewhiten", "--no-report", f"{place}/dataset", "--n-components", "3"]) == 0
  assert len(Dataset.open(f"{place}/dataset").run_ids()) == 2


def test_the_page_as_it_stands(proxy, tiny_encoder, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  put(write_shards(tmp_path / "articles", FAKE_TEXTS, 2), f"s3://{BUCKET}/articles")
  put(tiny_encoder, f"s3://{BUCKET}/encoder")
  for line in commands("Places"):
    run(line)
  here, there = published_rows("vectors"), published_rows(f"s3://{BUCKET}/vectors")
  assert here.num_rows == len(FAKE_TEXTS) and here["doc_id"].equals(there["doc_id"])


SECRET_URLS = [
  f"s3://KEY:{PASSWORD}@bucket/a",
  f"ftp://user:{PASSWORD}@host/a",
  f"http://host/a?X-Amz-Date=1&X-Amz-Signature={PASSWORD}",
]


@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_url_with_a_secret_is_refused_everywhere_in_one_line_without_it(url, inputs, tiny_encoder, tmp_path, capfd):
  dataset = str(tmp_path / "dataset")
  given = {"--input": str(inputs), "--encoder": tiny_encoder, "--dataset": dataset}
  embed = [["embed", *(p for flag in (given | {name: url}).items() for p in flag)] for name in (*given, "--whitening")]
  others = [["show", url], ["search", url, "a"], ["verify", url], ["gc", url], ["wait", url], ["rewhiten", url]]
  typing_mistakes = [["embed", f"--inptu={url}"], ["show", dataset, url], ["diff", dataset, "a", url, "b"]]
  for command in embed + others + typing_mistakes:
    assert main(command) == 2, command
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("sorbus: error: ") and err.count("\n") == 1, command
    assert PASSWORD not in err and (command in typing_mistakes or "***" in err), command
    assert command not in embed or err.startswith("sorbus: error: --"), command  # with the flag's name
  assert not Path(dataset).exists()
