"""Bad input gets a clear answer, and nothing is lost: what is read is written or rejected, to the row."""

from collections import Counter

import numpy as np
import pytest

from pipeline.command_line import main
from tests.bad_corpus import write_bad_corpus
from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import (
  NIGHT,
  embed_fake,
  made_up_texts,
  published_runs,
  raw_files,
  read_rejected,
  read_vectors,
  run_folder,
  write_shards,
)
from transforms import rejected
from transforms.errors import InputFileError, UsageError
from transforms.input_files import ReadOptions

VOCABULARY = make_vocabulary(["a document of red green blue white black small large old new good house in town"])
N_GOOD = 60
GOOD_IDS = {f"{name}-{i}" for name in ("jsonl", "gz-jsonl", "csv", "tsv", "parquet") for i in range(N_GOOD)}
# No more components than the vectors of documents alike have directions.
ANY = {"whitening": "fit", "n_components": 8, "buckets": 8, "threads": 2}


@pytest.fixture
def encoder():
  return FakeEncoder(VOCABULARY, 32)


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "input").mkdir()
  return tmp_path / "input"


def assert_accounted(dataset, manifest, corpus):
  """Read = written + rejected, each reason as often as expected, each rejected document with where and why."""
  counts = manifest["counts"]
  assert counts["rejected"] == dict(corpus.rejected)
  assert counts["written"] == corpus.n_written
  assert counts["read"] == corpus.n_read == counts["written"] + sum(counts["rejected"].values())
  lines = read_rejected(dataset, manifest)
  assert Counter(line["reason"] for line in lines) == corpus.rejected
  inputs = {file["name"] for file in manifest["inputs"]}
  assert all(line["file"] in inputs and isinstance(line["position"], int) and line["doc_id"] for line in lines)
  places = [(line["file"], line["position"]) for line in lines]
  assert len(set(places)) == len(places)
  doc_ids, vectors = read_vectors(dataset, manifest)
  assert len(doc_ids) == len(set(doc_ids)) == corpus.n_written
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("waves", [1, 3])
@pytest.mark.parametrize("beam_options", [(), ("--direct_runner_bundle_repeat=2",)])
def test_every_document_with_an_id_is_written_or_rejected(encoder, folder, tmp_path, beam_options, waves):
  corpus = write_bad_corpus(folder, n_good=N_GOOD, with_ids=True, too_long=False)
  asked = {"read": corpus.options, "waves": waves, "beam_options": beam_options, "max_rejected": 0.2}
  outcome = embed_fake(encoder, tmp_path / "dataset", corpus.patterns, **ANY, **asked)
  assert outcome.status == "published", outcome.manifest["verdicts"]
  assert_accounted(tmp_path / "dataset", outcome.manifest, corpus)
  assert set(read_vectors(tmp_path / "dataset", outcome.manifest)[0]) == GOOD_IDS | {"csv-last-0"}


@pytest.mark.parametrize("beam_options", [(), ("--direct_runner_bundle_repeat=2",)])
def test_every_document_without_an_id_is_written_or_rejected(encoder, folder, tmp_path, beam_options):
  """With a line of more than 64 MiB, rejected, and one of 5 MB, truncated."""
  corpus = write_bad_corpus(folder, n_good=N_GOOD)
  asked = {"read": corpus.options, "beam_options": beam_options, "max_rejected": 0.2}
  outcome = embed_fake(encoder, tmp_path / "dataset", corpus.patterns, **ANY, **asked)
  assert outcome.status == "published", outcome.manifest["verdicts"]
  assert_accounted(tmp_path / "dataset", outcome.manifest, corpus)
  assert outcome.manifest["counts"]["truncated"] == 1


def test_too_many_rejects_hold_a_run_back_until_they_are_allowed(encoder, folder, tmp_path):
  corpus = write_bad_corpus(folder, n_good=N_GOOD, with_ids=True, too_long=False)
  dataset = tmp_path / "dataset"
  held = embed_fake(encoder, dataset, corpus.patterns, **ANY, read=corpus.options)
  assert (held.status, held.exit_code) == ("held back", 1)
  assert published_runs(dataset) == []
  failed = {name for name, verdict in held.manifest["verdicts"].items() if not verdict["passed"]}
  assert failed == {"rejected"}
  assert "--max-rejected" in held.manifest["verdicts"]["rejected"]["finding"]
  assert_accounted(dataset, held.manifest, corpus)

  allowed = embed_fake(encoder, dataset, corpus.patterns, **ANY, read=corpus.options, max_rejected=0.2)
  assert (allowed.status, allowed.exit_code) == ("published", 0)
  assert allowed.manifest["counts"]["encoded"] == 0
  assert published_runs(dataset) == [allowed.manifest["run_id"]]


@pytest.mark.parametrize("waves", [1, 3])
def test_files_that_cannot_be_read_are_counted_apart_where_allowed(encoder, folder, tmp_path, waves):
  corpus = write_bad_corpus(folder, n_good=N_GOOD, with_ids=True, too_long=False, bad_files=True)
  dataset = tmp_path / "dataset"
  outcome = embed_fake(encoder, dataset, corpus.patterns, **ANY, read=corpus.options, max_rejected=0.2, waves=waves)
  assert outcome.status == "published", outcome.manifest["verdicts"]
  counts = outcome.manifest["counts"]
  assert counts["bad_files"] == corpus.n_bad_files
  named = " ".join(outcome.manifest["bad_files"])
  assert "cut.jsonl.gz" in named and "damaged.parquet" in named
  assert counts["rejected"] == dict(corpus.rejected)
  assert counts["read"] == counts["written"] + sum(counts["rejected"].values())
  assert set(read_vectors(dataset, outcome.manifest)[0]) >= GOOD_IDS


@pytest.mark.parametrize("damage", ["cut", "damaged"])
def test_a_file_that_cannot_be_read_fails_the_run_in_one_line(encoder, folder, tmp_path, damage):
  corpus = write_bad_corpus(folder, n_good=N_GOOD, with_ids=True, too_long=False, bad_files=True)
  remove, name = {"cut": ("damaged.parquet", "cut.jsonl.gz"), "damaged": ("cut.jsonl.gz", "damaged.parquet")}[damage]
  (folder / remove).unlink()
  read = ReadOptions(id_column="id", keep_columns=("lang",))
  with pytest.raises(InputFileError) as failed:
    embed_fake(encoder, tmp_path / "dataset", corpus.patterns, **ANY, read=read)
  assert name in str(failed.value) and "--allow-bad-files" in str(failed.value)
  assert "\n" not in str(failed.value) and "while running" not in str(failed.value)
  assert failed.value.exit_code == 1
  assert published_runs(tmp_path / "dataset") == []


@pytest.mark.parametrize("threads", [1, 2])  # Beam hands an error over as itself, or as a traceback in a string
def test_a_file_that_changes_during_the_run_fails_it_in_one_line(tmp_path, threads):
  """The second wave meets another file than was listed."""
  inputs = write_shards(tmp_path / "input", made_up_texts(50), 2)
  changed = inputs / "documents-00001-of-00002.jsonl"

  class Changing(FakeEncoder):
    def encode(self, input_ids, input_mask):
      changed.write_text('{"id": "other", "text": "another text"}\n')
      return super().encode(input_ids, input_mask)

  with pytest.raises(InputFileError, match=r"documents-00001.*changed") as failed:
    embed_fake(Changing(VOCABULARY, 16), tmp_path / "dataset", inputs, buckets=4, waves=2, threads=threads)
  assert "\n" not in str(failed.value) and "while running" not in str(failed.value)
  assert published_runs(tmp_path / "dataset") == []


class ConstantDimension(FakeEncoder):
  """One dimension is the same for every text."""

  def encode(self, input_ids, input_mask):
    vectors = super().encode(input_ids, input_mask)
    vectors[:, 3] = 0.7
    return vectors


def assert_held_back(dataset, outcome, *remedies):
  """Nothing is published, and one line says why and what to choose instead."""
  assert (outcome.status, outcome.exit_code) == ("held back", 1)
  assert published_runs(dataset) == []
  assert not list(run_folder(dataset, outcome.manifest).glob("vectors/*"))
  verdict = outcome.manifest["verdicts"]["whitening"]
  assert not verdict["passed"] and "\n" not in verdict["finding"]
  assert all(remedy in verdict["finding"] for remedy in (*remedies, "--whitening none")), verdict["finding"]


# What cannot be whitened as asked: texts, the encoder's class, its width, and the remedy.
NOT_TO_WHITEN = {
  "one repeated text": (["the same words"] * 500, FakeEncoder, 32, "nothing to whiten"),
  "one document": (["the same words"], FakeEncoder, 32, "too few"),
  "two texts": (["the same words", "other words"] * 200, FakeEncoder, 32, "--n-components 1 or less"),
  "50 documents for 256 components": (made_up_texts(50), FakeEncoder, 256, "--n-components 48 or less"),
  "a constant dimension": (made_up_texts(400), ConstantDimension, 32, "--n-components 31 or less"),
}


@pytest.mark.filterwarnings("error:.*divide:RuntimeWarning", "error:.*invalid:RuntimeWarning")
@pytest.mark.parametrize("case", NOT_TO_WHITEN)
def test_what_cannot_be_whitened_is_held_back_with_what_to_choose(tmp_path, case):
  texts, kind, hidden_size, remedy = NOT_TO_WHITEN[case]
  dataset, inputs = tmp_path / "dataset", write_shards(tmp_path / "input", texts, 3)
  encoder = kind(make_vocabulary(texts), hidden_size)
  asked = {"buckets": 4, "threads": 1, "n_components": hidden_size}
  assert_held_back(dataset, embed_fake(encoder, dataset, inputs, **asked), remedy)

  if "--n-components" in remedy:  # the remedy works, on what was encoded the first time
    n_components = int(remedy.split()[1])
    outcome = embed_fake(encoder, dataset, inputs, buckets=4, threads=1, n_components=n_components)
    assert outcome.status == "published", outcome.manifest["verdicts"]
    assert outcome.manifest["counts"]["encoded"] == 0
    assert np.isfinite(read_vectors(dataset, outcome.manifest)[1]).all()


def test_the_command_line_says_why_nothing_was_published(tiny_encoder, tmp_path, capsys):
  inputs = write_shards(tmp_path / "input", ["the rain and the sun"] * 20, 1)
  command = [*NIGHT, "--input", str(inputs), "--encoder", tiny_encoder, "--dataset", str(tmp_path / "dataset")]
  assert main([*command, "--threads", "1"]) == 1
  lines = capsys.readouterr().out.splitlines()
  (why,) = [line for line in lines if line.startswith("held back (")]
  assert "--whitening none" in why
  assert published_runs(tmp_path / "dataset") == []


class Faulty(FakeEncoder):
  """NaN for texts with `red` in them, infinity for `green`, zeros for `blue`."""

  def encode(self, input_ids, input_mask):
    vectors = super().encode(input_ids, input_mask)
    for word, value in (("red", np.nan), ("green", np.inf), ("blue", 0.0)):
      with_word = (input_ids == self.vocabulary.index(word)).any(axis=1)
      vectors[with_word] = np.where(np.arange(self.hidden_size) % 2, value, 0.0)
    return vectors


@pytest.mark.parametrize("beam_options", [(), ("--direct_runner_bundle_repeat=2",)])
def test_texts_without_a_usable_vector_are_rejected(tmp_path, beam_options):
  texts = made_up_texts(300)
  texts[10:13] = ["a red house", "a green house", "a blue house"]
  texts[20] = "a red house"  # a repeated text is rejected as often as it occurs
  inputs, dataset = write_shards(tmp_path / "input", texts, 3), tmp_path / "dataset"
  asked = {"read": ReadOptions(id_column="id"), "max_rejected": 0.02, "max_broken": 0.02, "beam_options": beam_options}
  outcome = embed_fake(Faulty(VOCABULARY, 16), dataset, inputs, buckets=4, **asked)
  assert outcome.status == "published", outcome.manifest["verdicts"]
  assert outcome.manifest["counts"]["rejected"] == {rejected.VECTOR_NOT_FINITE: 3, rejected.ZERO_VECTOR: 1}
  reasons = {line["doc_id"]: line["reason"] for line in read_rejected(dataset, outcome.manifest)}
  not_finite = dict.fromkeys(("000010", "000011", "000020"), rejected.VECTOR_NOT_FINITE)
  assert reasons == not_finite | {"000012": rejected.ZERO_VECTOR}
  doc_ids, vectors = read_vectors(dataset, outcome.manifest)
  assert len(doc_ids) == 296 and not reasons.keys() & set(doc_ids)
  assert np.isfinite(vectors).all()


def test_an_encoder_that_gives_nothing_but_zeros_holds_the_run_back(tmp_path):
  class Zeros(FakeEncoder):
    def encode(self, input_ids, input_mask):
      return np.zeros((len(input_ids), self.hidden_size), np.float32)

  inputs, dataset = write_shards(tmp_path / "input", made_up_texts(30), 1), tmp_path / "dataset"
  outcome = embed_fake(Zeros(VOCABULARY, 16), dataset, inputs, buckets=2)
  assert_held_back(dataset, outcome, "0 documents are too few")
  assert outcome.manifest["counts"]["rejected"] == {rejected.ZERO_VECTOR: 30}
  assert raw_files(dataset) == []


def test_a_kept_column_may_not_have_a_name_of_ours(encoder, folder, tmp_path):
  with pytest.raises(UsageError, match="--keep-columns vector"):
    embed_fake(encoder, tmp_path / "dataset", folder, read=ReadOptions(keep_columns=("vector",)))
