"""A second night tokenises what is new, wherever the documents are now."""

import json

import pytest

from tests.fake_encoder import FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, read_rejected, read_vectors, run_folder, write_shards
from transforms.input_files import ReadOptions
from transforms.wordpiece import Wordpiece

TEXTS = made_up_texts(60)
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 16)
EMBED = {"read": ReadOptions(id_column="id"), "whitening": "none", "threads": 1}


@pytest.fixture
def tokenised(monkeypatch):
  """Every text that a tokeniser is given."""
  texts, tokenise = [], Wordpiece.tokenise

  def listen(self, given):
    texts.extend(given)
    return tokenise(self, given)

  monkeypatch.setattr(Wordpiece, "tokenise", listen)
  return texts


@pytest.fixture
def first_night(tmp_path):
  return embed_fake(ENCODER, tmp_path / "dataset", write_shards(tmp_path / "first", TEXTS, 2), **EMBED, buckets=4)


def write_rows(folder, rows):
  folder.mkdir()
  (folder / "a.jsonl").write_text("".join(f"{json.dumps({'id': key, 'text': text})}\n" for key, text in rows))
  return folder


def test_documents_that_have_moved_are_not_tokenised(first_night, tmp_path, tokenised):
  """In other files, more of them, in another order, some twice; read by finer buckets, coarser ones, and waves."""
  rows = [(f"new {i}", text) for i, text in enumerate([*TEXTS[::-1], *TEXTS[:5]])]
  folders = write_shards(tmp_path / "moved", TEXTS, 7), write_rows(tmp_path / "renamed", rows)
  for folder, buckets, waves in [(folders[0], 8, 2), (folders[1], 1, 1)]:
    night = embed_fake(ENCODER, tmp_path / "dataset", folder, **EMBED, buckets=buckets, waves=waves)
    counts = night.manifest["counts"]
    assert (counts["encoded"], counts["reused"], counts["distinct"]) == (0, 60, 60)
    run = run_folder(tmp_path / "dataset", night.manifest)
    assert not [*run.glob("known/*"), *run.glob("planned/*")]  # what only the run itself needed
  assert tokenised == []
  assert counts["written"] == 65


def test_what_is_edited_added_or_gone(first_night, tmp_path, tokenised):
  """Also a text without a token, which no store has, so that it is found out each night."""
  rows = [("a", TEXTS[0]), ("b", f"{TEXTS[1]} edited"), ("c", "something new"), ("d", "\u200b"), ("e", "something new")]
  night = embed_fake(ENCODER, tmp_path / "dataset", write_rows(tmp_path / "next", rows), **EMBED, max_rejected=1.0)
  assert sorted(tokenised) == sorted(text for _, text in rows[1:])
  counts = night.manifest["counts"]
  assert (counts["written"], counts["encoded"], counts["reused"], counts["rejected"]) == (4, 2, 1, {"no tokens": 1})
  assert [reject["doc_id"] for reject in read_rejected(tmp_path / "dataset", night.manifest)] == ["d"]
  fresh = embed_fake(ENCODER, tmp_path / "fresh", tmp_path / "next", **EMBED, max_rejected=1.0)
  doc_ids, vectors = read_vectors(tmp_path / "dataset", night.manifest)
  assert doc_ids == ["a", "b", "c", "e"]
  assert vectors.tobytes() == read_vectors(tmp_path / "fresh", fresh.manifest)[1].tobytes()


def test_the_counts_of_a_known_text_come_from_the_store(first_night, tmp_path):
  night = embed_fake(ENCODER, tmp_path / "dataset", tmp_path / "first", **EMBED)
  first, second = (
    {key: run.manifest["counts"][key] for key in ("tokens", "unknown_tokens", "truncated")}
    for run in (first_night, night)
  )
  assert first == second and first["tokens"] > 60


def test_an_engine_that_repeats_every_bundle_reads_the_same(first_night, tmp_path, tokenised):
  repeat = ("--direct_running_mode=in_memory", "--direct_runner_bundle_repeat=1")
  night = embed_fake(ENCODER, tmp_path / "dataset", tmp_path / "first", **EMBED, beam_options=repeat)
  assert (night.manifest["counts"]["reused"], tokenised) == (60, [])
