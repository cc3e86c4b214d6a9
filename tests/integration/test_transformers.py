"""Hugging Face folders frozen by ours give what `transformers` on PyTorch gives; `make test-transformers` runs this."""

import json
import random
import subprocess

import numpy as np
import pytest

from pipeline.model.freeze import FreezeOptions, freeze
from tests.conftest import REPOSITORY
from transforms.encoder import load_encoder
from transforms.wordpiece import parse_vocabulary

PEER = REPOSITORY / ".venv-transformers" / "bin" / "python"
pytestmark = pytest.mark.skipif(
  not (PEER.parent.parent / "ready").exists(),
  reason="needs PyTorch and transformers, which have an environment of their own: make test-transformers",
)

N_TEXTS = 200
MAX_SEQ_LENGTH = 128  # also in run_transformers.py
TOLERANCE = 2e-5
# Each way of freezing, and what it is of the peer's arrays.
WAYS = {
  "pooler": ({"pooling": "pooler"}, lambda peer: peer["pooler"]),
  "cls of the last layer": ({"pooling": "cls", "layers": (-1,)}, lambda peer: peer["cls"][-1]),
  "mean of the embeddings": ({"pooling": "mean", "layers": (0,)}, lambda peer: peer["mean"][0]),
  "mean of three layers": ({"pooling": "mean", "layers": (1, 2, -1)}, lambda peer: peer["mean"][[1, 2, -1]].mean(0)),
}


def ask_peer(folder, texts, scratch):
  (scratch / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
  run_peer("run", folder, scratch / "texts.json", scratch / "peer.npz")
  with np.load(scratch / "peer.npz") as file:
    return dict(file)


def run_peer(*arguments):
  subprocess.run([PEER, REPOSITORY / "tests/integration/run_transformers.py", *arguments], check=True)


@pytest.fixture(scope="module")
def english(shared_data, tmp_path_factory):
  """Real weights, uncased: the demo's encoder. Returns its folder, texts, and what the peer makes of them."""
  folder = REPOSITORY / "demo" / "all-MiniLM-L6-v2"
  if not folder.is_dir():
    pytest.skip("needs demo/all-MiniLM-L6-v2: make demo/all-MiniLM-L6-v2 fetches it")
  lines = (shared_data / "corpora/en_novel_paragraphs.txt").read_text(encoding="utf-8").splitlines()
  texts = random.Random(0).sample([line for line in lines if line.strip()], N_TEXTS)
  return folder, texts, ask_peer(folder, texts, tmp_path_factory.mktemp("english"))


@pytest.fixture(scope="module")
def drawn(shared_data, tmp_path_factory):
  """A folder with random weights, drawn and written by transformers for the multilingual vocabulary; and that."""
  path = shared_data / "vocab/bert-base-multilingual-cased.vocab.txt"
  vocabulary = parse_vocabulary(path.read_bytes(), path.name)
  folder = tmp_path_factory.mktemp("multilingual")
  (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
  run_peer("draw", folder)
  return folder, vocabulary


@pytest.fixture(scope="module")
def mixed_script(drawn, tmp_path_factory):
  """Pieces of up to 60 scripts in a text, with and without spaces between them; as `english`."""
  folder, vocabulary = drawn
  generator = random.Random(0)
  pieces = [token.removeprefix("##") for token in vocabulary if not token.startswith("[")]
  seams = [" ", " ", " ", "", ", ", "。", "! ", "\n"]
  texts = [
    "".join(generator.choice(pieces) + generator.choice(seams) for _ in range(generator.randrange(1, 60)))
    for _ in range(N_TEXTS)
  ]
  return folder, texts, ask_peer(folder, texts, tmp_path_factory.mktemp("mixed"))


def frozen(folder, target, **options):
  freeze(str(folder), str(target), FreezeOptions(max_seq_length=MAX_SEQ_LENGTH, **options), lambda line: None)
  return load_encoder(str(target))


def our_ids(encoder, texts):
  tokens = encoder.tokenizer.tokenise(texts)
  return [row.tolist() for row in np.split(tokens.input_ids, tokens.offsets[1:-1])]


def their_ids(peer):
  rows = zip(peer["input_ids"], peer["attention_mask"], strict=True)
  return [ids[mask == 1].tolist() for ids, mask in rows]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("texts", ["english", "mixed_script"])
def test_ids_and_vectors_are_those_of_transformers(request, tmp_path, texts, way):
  (folder, texts, peer), (options, expect) = request.getfixturevalue(texts), WAYS[way]
  encoder = frozen(folder, tmp_path / "encoder", **options)
  assert our_ids(encoder, texts) == their_ids(peer)
  ours, theirs = encoder.encode_texts(texts), expect(peer)
  assert ours.shape == theirs.shape and ours.dtype == np.float32
  assert np.abs(ours - theirs).max() < TOLERANCE
  assert np.std(theirs, axis=0).mean() > 0.02  # texts differ by far more than the tolerance


# docs/numerics.md has this list. Ours is in each case what Google's tokenization.py does.
DIFFERENCES = {
  "x" * 101: (["xx", *["##x"] * 99], ["[UNK]"]),
  "[SEP]": (["[", "SE", "##P", "]"], ["[SEP]"]),
  "a\ue000b": (["[UNK]"], ["ab"]),
  "a\u2e43b": (["a", "[UNK]", "b"], ["[UNK]"]),
  "a\U0002b820b": (["a", "[UNK]", "b"], ["[UNK]"]),
}
AGREEMENTS = {"x" * 100: ["xx", *["##x"] * 98], "x" * 201: ["[UNK]"], "a\u0378b": ["[UNK]"]}


def test_where_transformers_itself_is_not_google(drawn, tmp_path):
  folder, vocabulary = drawn
  encoder = frozen(folder, tmp_path / "encoder", pooling="mean", layers=(0,))
  expected = DIFFERENCES | {text: (tokens, tokens) for text, tokens in AGREEMENTS.items()}
  ours, theirs = our_ids(encoder, list(expected)), their_ids(ask_peer(folder, list(expected), tmp_path))
  found = [[[vocabulary[i] for i in row[1:-1]] for row in pair] for pair in zip(ours, theirs, strict=True)]
  assert dict(zip(expected, map(tuple, found), strict=True)) == expected
