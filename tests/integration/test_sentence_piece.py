"""Texts cut by a SentencePiece model, as an XLNet's are, through whole runs; the encoder is none."""

import itertools
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from pipeline.dataset import Dataset
from pipeline.verify import verify_run
from tests.fake_encoder import FakeEncoder
from tests.integration.run_files import embed_fake, read_raw, read_rejected, run_folder
from tests.integration.test_long_texts import EMBED, check_chunks, write_corpus
from tests.tiny_sentence_piece import XLNET, made_texts, tiny_bytes, tiny_model
from transforms.encoder_spec import make_tokenizer
from transforms.long_texts import LongTexts
from transforms.storage import sha256


class FakeXlnet(FakeEncoder):
  """Gives a text the mean of its tokens' rows; 14 of its own fit."""

  def __init__(self):
    super().__init__(tiny_model().pieces, 16, max_seq_length=16)
    self.spec = replace(self.spec, tokenizer=XLNET, vocab_sha256=sha256(tiny_bytes())).with_fingerprint()

  def load_tokenizer(self):
    return make_tokenizer(tiny_model(), self.spec.tokenizer, self.spec.max_seq_length)


ENCODER = FakeXlnet()
RUNS = ["".join(itertools.islice(itertools.cycle("天地人大，中文。上海银行"), n)) for n in (30, 200)]
TEXTS = list(dict.fromkeys([*made_texts(40, 3), *RUNS, "<cls> the <sep> sun <cls>"]))


@pytest.fixture
def corpus(tmp_path):
  rows = [*((f"{i:03d}", text) for i, text in enumerate(TEXTS)), ("blank", " \u3000\n")]
  return write_corpus(tmp_path / "in", rows)


@pytest.mark.parametrize("mode", ["truncate", "head-tail", "windows", "chunks"])
def test_two_nights(corpus, tmp_path, mode):
  dataset, asked = tmp_path / "ds", EMBED | {"long_texts": mode, "max_rejected": 0.1, "whitening": "none"}
  first = embed_fake(ENCODER, dataset, corpus, **asked).manifest
  [blank] = read_rejected(dataset, first)
  assert (blank["doc_id"].removesuffix("#0"), blank["reason"]) == ("blank", "no tokens")
  assert first["long_texts"]["long"] == ENCODER.load_tokenizer().tokenise(TEXTS).truncated.sum() > 20
  if mode == "chunks":
    rows = pq.read_table(run_folder(dataset, first) / "vectors").drop_columns("vector").to_pylist()
    check_chunks(rows, {f"{i:03d}": text for i, text in enumerate(TEXTS)})
  else:
    spec = ENCODER.spec.with_long_texts(LongTexts.of(first))
    expected = replace(ENCODER.load(), spec=spec).encode_texts(TEXTS)
    assert read_raw(dataset, TEXTS).tobytes() == expected.tobytes()
  second = embed_fake(ENCODER, dataset, corpus, **asked).manifest
  assert (second["counts"]["encoded"], second["counts"]["unchanged"]) == (0, first["counts"]["written"])
  checks = verify_run(Dataset.open(str(dataset)), second["run_id"])
  assert all(check.passed for check in checks), checks
