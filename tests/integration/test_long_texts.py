"""Texts that are longer than the encoder takes, through whole runs."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from pipeline.dataset import Dataset
from pipeline.embed import embed
from pipeline.options import EmbedOptions, RewhitenOptions
from pipeline.rewhiten import rewhiten
from pipeline.verify import verify_run
from tests.fake_encoder import FailingEncoder, FakeEncoder, make_vocabulary
from tests.integration.run_files import embed_fake, made_up_texts, read_raw, read_rejected, read_vectors, run_folder
from transforms.errors import UsageError
from transforms.input_files import ReadOptions
from transforms.long_texts import LongTexts
from transforms.wordpiece import Wordpiece

SHORT, LONG = made_up_texts(40), [" ".join(made_up_texts(40, seed)[: 5 * seed]) for seed in range(1, 9)]
TEXTS = [*SHORT, *LONG]
ENCODER = FakeEncoder(make_vocabulary(TEXTS), 16, max_seq_length=64)
READ = ReadOptions(id_column="id", keep_columns=("text",))
EMBED = {"read": READ, "threads": 1, "buckets": 4}


def write_corpus(folder, rows):
  folder.mkdir()
  (folder / "a.jsonl").write_text("".join(f"{json.dumps({'id': key, 'text': text})}\n" for key, text in rows))
  return folder


@pytest.fixture
def corpus(tmp_path):
  return write_corpus(tmp_path / "in", [(f"{i:03d}", text) for i, text in enumerate(TEXTS)])


def rows_of(dataset, manifest):
  return pq.read_table(run_folder(dataset, manifest) / "vectors").drop_columns("vector").to_pylist()


def problems(dataset, manifest):
  return [check for check in verify_run(Dataset.open(str(dataset)), manifest["run_id"]) if not check.passed]


def check_chunks(rows, texts):
  """Asserts that chunks are what they say of texts by id, one after the other."""
  by_parent = {}
  for row in sorted(rows, key=lambda row: (row["parent_id"], row["chunk_start"])):
    text = texts[row["parent_id"]]
    assert text[row["chunk_start"] : row["chunk_end"]] == row["text"] and not row["truncated"]
    numbers = by_parent.setdefault(row["parent_id"], [])
    assert row["doc_id"] == f"{row['parent_id']}#{len(numbers)}"
    numbers.append(row)
  assert by_parent.keys() == texts.keys()
  for parent, found in by_parent.items():
    edges = [0, *(edge for row in found for edge in (row["chunk_start"], row["chunk_end"])), len(texts[parent])]
    assert edges == sorted(edges)
    assert not any(texts[parent][a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True))
  return by_parent


@pytest.mark.parametrize("waves", [1, 3])
def test_chunks(corpus, tmp_path, waves):
  dataset = tmp_path / "ds"
  manifest = embed_fake(ENCODER, dataset, corpus, **EMBED, long_texts="chunks", waves=waves).manifest
  by_parent = check_chunks(rows_of(dataset, manifest), {f"{i:03d}": text for i, text in enumerate(TEXTS)})
  n_long = sum(len(found) > 1 for found in by_parent.values())
  n_chunks = sum(len(found) for found in by_parent.values() if len(found) > 1)
  long_texts = {"mode": "chunks", "room": 62, "stride": 62, "long": n_long, "chunks": n_chunks}
  assert manifest["long_texts"] == long_texts and n_long > 5 and n_chunks > 40
  counts = manifest["counts"]
  assert counts["read"] == counts["written"] == len(TEXTS) - n_long + n_chunks
  assert counts["truncated"] == 0 and problems(dataset, manifest) == []


def test_a_chunk_has_the_vector_of_its_text(corpus, tmp_path):
  chunked = embed_fake(ENCODER, tmp_path / "ds", corpus, **EMBED, long_texts="chunks", whitening="none").manifest
  rows = [(row["doc_id"], row["text"]) for row in rows_of(tmp_path / "ds", chunked)]
  alone = embed_fake(ENCODER, tmp_path / "b", write_corpus(tmp_path / "as", rows), **EMBED, whitening="none").manifest
  (ids, vectors), (alone_ids, expected) = read_vectors(tmp_path / "ds", chunked), read_vectors(tmp_path / "b", alone)
  assert ids == alone_ids and vectors.tobytes() == expected.tobytes()


def test_nights_of_chunks(corpus, tmp_path):
  """A run that truncated leaves what short texts need; the next is unchanged; whitened anew; a text is edited."""
  dataset, chunks = tmp_path / "ds", EMBED | {"long_texts": "chunks"}
  embed_fake(ENCODER, dataset, corpus, **EMBED)
  first = embed_fake(ENCODER, dataset, corpus, **chunks).manifest
  assert first["counts"]["reused"] == first["counts"]["distinct"] - first["long_texts"]["chunks"]
  assert embed_fake(ENCODER, dataset, corpus, again=False, **chunks).status == "unchanged"
  second = embed_fake(ENCODER, dataset, corpus, **chunks).manifest
  assert (second["counts"]["encoded"], second["counts"]["unchanged"]) == (0, first["counts"]["written"])
  anew = rewhiten(RewhitenOptions(dataset=str(dataset), n_components=3)).manifest
  assert anew["long_texts"] == first["long_texts"] and problems(dataset, anew) == []
  lines = (corpus / "a.jsonl").read_text().splitlines()
  last = json.loads(lines[-1])
  lines[-1] = json.dumps(last | {"text": f"{last['text']} and an end"})
  (corpus / "a.jsonl").write_text("\n".join(lines))
  edited = embed_fake(ENCODER, dataset, corpus, **chunks).manifest["counts"]
  assert edited["encoded"] == edited["new"] + edited["changed"] < 4 and edited["gone"] == 0


def test_of_two_documents_with_one_id_all_chunks_of_the_second_go(tmp_path):
  rows = [("a", LONG[1]), ("b", SHORT[0]), ("a", LONG[5])]
  manifest = embed_fake(
    ENCODER,
    tmp_path / "ds",
    write_corpus(tmp_path / "in", rows),
    **EMBED,
    long_texts="chunks",
    max_rejected=1.0,
    whitening="none",
  ).manifest
  check_chunks(rows_of(tmp_path / "ds", manifest), {"a": LONG[1], "b": SHORT[0]})
  rejected = read_rejected(tmp_path / "ds", manifest)
  assert {r["reason"] for r in rejected} == {"duplicate id"} and len(rejected) > len(rows_of(tmp_path / "ds", manifest))
  assert problems(tmp_path / "ds", manifest) == []


def test_chunks_do_not_hide_documents_that_are_rejected(tmp_path):
  rows = [*((f"{i:03d}", text) for i, text in enumerate(LONG)), ("empty", " ")]
  for mode in ("truncate", "chunks"):
    asked = EMBED | {"long_texts": mode, "max_rejected": 0.1, "whitening": "none"}
    inputs = write_corpus(tmp_path / mode, rows)
    found = embed_fake(ENCODER, tmp_path / f"{mode}-ds", inputs, **asked)
    counts = found.manifest["counts"]
    assert found.status == "held back" and not found.manifest["verdicts"]["rejected"]["passed"]
  assert sum(counts["rejected"].values()) / counts["read"] < 0.05


def test_documents_that_are_gone_are_found_whether_rows_are_chunks_or_not(tmp_path):
  """Three of four are: as chunks the rest has more rows than all had before; and the way back loses none."""
  dataset, asked = tmp_path / "ds", EMBED | {"whitening": "none", "max_shrink": 0.5}
  rows = [(f"{i:03d}", text) for i, text in enumerate(LONG)]
  inputs, few = write_corpus(tmp_path / "in", rows), write_corpus(tmp_path / "few", rows[-2:])
  embed_fake(ENCODER, dataset, inputs, **asked)
  held = embed_fake(ENCODER, dataset, few, **asked, long_texts="chunks")
  assert held.manifest["counts"]["written"] > len(rows) and held.status == "held back"
  assert held.manifest["verdicts"]["rows"]["finding"].startswith("2 documents after 8 (75.00% fewer), 50.00% allowed")
  assert embed_fake(ENCODER, dataset, inputs, **asked, long_texts="chunks").status == "published"
  back = embed_fake(ENCODER, dataset, inputs, **asked)
  assert back.status == "published"
  assert back.manifest["verdicts"]["rows"]["finding"].startswith("8 documents after 8 (0.00% fewer)")


def test_a_replay_finds_the_chunks_of_what_was_mended(tmp_path):
  rows = [("a", LONG[1]), ("b", None), ("c", "\u200b"), ("d", 5), ("e", SHORT[0])]
  asked = EMBED | {"long_texts": "chunks", "max_rejected": 1.0, "whitening": "none"}
  first = embed_fake(ENCODER, tmp_path / "ds", write_corpus(tmp_path / "in", rows), **asked).manifest
  assert first["counts"]["rejected"] == {"no tokens": 1, "not a string": 1, "null": 1}
  mended = [("a", LONG[1]), ("b", LONG[2]), ("c", SHORT[1]), ("d", 5), ("e", SHORT[0])]
  (tmp_path / "in/a.jsonl").unlink()
  (tmp_path / "in").rmdir()
  write_corpus(tmp_path / "in", mended)
  second = embed_fake(ENCODER, tmp_path / "ds", tmp_path / "in", **asked, replay=first["run_id"]).manifest
  expected = {"rejected": 3, "written": 2, "still_rejected": {"not a string": 1}, "gone": 0}
  assert second["replay"] == {"run_id": first["run_id"]} | expected


def n_long_of(texts):
  return int(ENCODER.load_tokenizer().tokenise(texts).truncated.sum())


@pytest.mark.parametrize("mode", ["head-tail", "windows"])
def test_one_vector_a_text(corpus, tmp_path, mode):
  """Of long texts another than their first tokens have, of others the same to the bit; and a query has the same."""
  asked = EMBED | {"long_texts": mode, "whitening": "none"}
  manifest = embed_fake(ENCODER, tmp_path / "ds", corpus, **asked).manifest
  plain = embed_fake(ENCODER, tmp_path / "plain", corpus, **EMBED, whitening="none").manifest
  (ids, vectors), (plain_ids, cut) = read_vectors(tmp_path / "ds", manifest), read_vectors(tmp_path / "plain", plain)
  is_long = ENCODER.load_tokenizer().tokenise(TEXTS).truncated
  assert ids == plain_ids and (vectors == cut).all(axis=1).tolist() == (~is_long).tolist()
  stride = {"head-tail": None, "windows": 46}[mode]
  expected = {"mode": mode, "room": 62, "stride": stride, "long": n_long_of(TEXTS), "chunks": None}
  assert manifest["long_texts"] == expected and plain["long_texts"]["long"] == n_long_of(TEXTS) > 5
  assert manifest["counts"]["truncated"] == (n_long_of(TEXTS) if mode == "head-tail" else 0)
  assert problems(tmp_path / "ds", manifest) == []
  spec = ENCODER.spec.with_long_texts(LongTexts.of(manifest))
  assert manifest["encoder"]["fingerprint"] == spec.fingerprint != ENCODER.spec.fingerprint
  raw = replace(ENCODER.load(), spec=spec).encode_texts(TEXTS)
  assert raw.tobytes() == read_raw(tmp_path / "ds", TEXTS).tobytes()


@pytest.mark.parametrize("stride", [16, 46, 62])
def test_windows_do_not_depend_on_batches_buckets_or_waves(corpus, tmp_path, stride):
  shapes = [{"token_budget": 64, "buckets": 1}, {"token_budget": 5000, "buckets": 8, "waves": 3}]
  found = []
  for i, shape in enumerate(shapes):
    asked = {"read": READ, "threads": 1, "whitening": "none", "long_texts": "windows", "stride": stride} | shape
    counts = embed_fake(ENCODER, tmp_path / f"{i}", corpus, **asked).manifest["counts"]
    found.append((read_raw(tmp_path / f"{i}", TEXTS).tobytes(), counts["tokens"], counts["encoded_tokens"]))
  assert found[0] == found[1]
  whole = Wordpiece(ENCODER.vocabulary, ENCODER.spec.tokenizer, 100_000).tokenise(TEXTS)
  assert found[0][1] == whole.lengths.sum() < found[0][2]  # all tokens, once; and all that windows have


@pytest.mark.parametrize("mode", ["head-tail", "windows"])
def test_nights_of_one_mode_and_the_way_to_another(corpus, tmp_path, mode):
  dataset, asked = tmp_path / "ds", EMBED | {"long_texts": mode}
  first = embed_fake(ENCODER, dataset, corpus, **asked).manifest
  assert embed_fake(ENCODER, dataset, corpus, again=False, **asked).status == "unchanged"
  second = embed_fake(ENCODER, dataset, corpus, **asked).manifest["counts"]
  assert (second["encoded"], second["unchanged"]) == (0, len(TEXTS)) and second["tokens"] == first["counts"]["tokens"]
  anew = rewhiten(RewhitenOptions(dataset=str(dataset), n_components=3)).manifest
  assert anew["long_texts"] == first["long_texts"] and problems(dataset, anew) == []
  with pytest.raises(UsageError, match=f"the same with --long-texts {mode}.* not of this one .* --new-encoder"):
    embed_fake(ENCODER, dataset, corpus, **EMBED)
  moved = embed_fake(ENCODER, dataset, corpus, **EMBED, new_encoder=True).manifest
  assert moved["counts"]["encoded"] == len(TEXTS) and moved["encoder"]["fingerprint"] == ENCODER.spec.fingerprint
  with pytest.raises(UsageError, match="the same with --long-texts truncate, not of this one"):
    embed_fake(ENCODER, dataset, corpus, **asked)


def test_a_document_of_which_one_window_fails_is_rejected(tmp_path):
  rows = [("a", f"{LONG[1]} red {LONG[2]}"), ("b", LONG[3]), ("c", SHORT[0])]
  encoder = FailingEncoder(TEXTS)
  asked = EMBED | {"long_texts": "windows", "whitening": "none", "max_rejected": 1.0, "max_broken": 1.0}
  manifest = embed_fake(encoder, tmp_path / "ds", write_corpus(tmp_path / "in", rows), **asked).manifest
  assert manifest["counts"]["rejected"] == {"encoder failed": 1}
  assert [row["doc_id"] for row in rows_of(tmp_path / "ds", manifest)].count("a") == 0
  assert problems(tmp_path / "ds", manifest) == [] and manifest["counts"]["written"] == 2


def real_rows(folder, name, n):
  lines = (folder / f"corpora/{name}.jsonl").read_text().splitlines()
  found = sorted((json.loads(line) for line in lines), key=lambda row: -len(row["text"]))
  return [(row["id"], row["text"]) for row in [*found[:n], *found[-n:]]]


def test_chapters_and_chinese_articles(shared_data, tmp_path):
  rows = [*real_rows(shared_data, "en_novel_chapters", 8), *real_rows(shared_data, "zh_articles", 8)]
  dataset, corpus = tmp_path / "ds", write_corpus(tmp_path / "in", rows)
  encoder = FakeEncoder([*make_vocabulary(["the"]), *sorted({c for _, text in rows for c in text if c > "\u2e7f"})], 16)
  options = EmbedOptions(
    inputs=(str(corpus),), encoder="fake", dataset=str(dataset), read=READ, threads=1, long_texts="chunks", again=True
  )
  first = embed(options, encoder.loaders(), encoder.spec).manifest
  by_parent = check_chunks(rows_of(dataset, first), dict(rows))
  assert sum(len(found) for found in by_parent.values()) == first["counts"]["written"] > 2000
  second = embed(options, encoder.loaders(), encoder.spec).manifest["counts"]
  assert (second["encoded"], second["unchanged"]) == (0, first["counts"]["written"])
  windows = replace(options, long_texts="windows", dataset=str(tmp_path / "windows"), whitening="none")
  counts = embed(windows, encoder.loaders(), encoder.spec).manifest["counts"]
  whole = Wordpiece(encoder.vocabulary, encoder.spec.tokenizer, 1_000_000).tokenise([text for _, text in rows])
  assert counts["tokens"] == whole.lengths.sum() and counts["written"] == len(rows)
  assert 1.2 < counts["encoded_tokens"] / counts["tokens"] < 16 / 9
  assert embed(windows, encoder.loaders(), encoder.spec).manifest["counts"]["encoded"] == 0
